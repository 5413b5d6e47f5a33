//! Behavior without free file descriptors. The test has a process of its own, because it uses up all descriptors.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use muster_listen::reply::{Answer, ListenerKind};
use muster_listen::testing::{Setup, handler, reply};
use muster_listen::{Listening, accept, socket};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[tokio::test]
async fn administrators_are_served_without_free_file_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8PathBuf::from_path_buf(directory.path().join("admin.sock")).unwrap();
    let listener = socket::bind_unix(&path).unwrap();
    let listening = Setup::default().listening(handler(|_| async { Answer::Reply(reply("here")) }));
    let listening = Listening { kind: ListenerKind::Socket, ..listening };
    let shutdown = listening.shutdown.clone();
    let task = tokio::spawn(accept::run_unix(listener, Arc::new(listening)));
    // Runs the listener until it waits for a connection. Its reserve is open by then.
    tokio::task::yield_now().await;

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256.min(hard), hard).unwrap();
    // No await until all descriptors are used up, so that the clients are not accepted before.
    let clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut hogs = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hogs.push(file);
    }
    for mut client in clients {
        let asked = tokio::task::spawn_blocking(move || {
            client.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            text
        });
        assert!(asked.await.unwrap().ends_with("here"));
    }
    drop(hogs);
    shutdown.cancel();
    assert_eq!(task.await.unwrap().cut, 0);
}
