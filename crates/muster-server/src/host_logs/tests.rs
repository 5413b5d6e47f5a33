//! Forwarding to a receiver in this process.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::fleetd::log_lines::LogType;
use muster_fleet::host_logs::LogDestination as _;
use muster_notify::LogFormat;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::files::{LogFiles, Rotation};
use super::forward::{ForwardConfig, Forwarded, start};

/// An HTTP server that keeps the bodies of requests.
#[derive(Clone, Default)]
struct Receiver {
    bodies: Arc<Mutex<Vec<String>>>,
    /// Statuses of the next responses; then 200, and 400 for a body with `poison`.
    statuses: Arc<Mutex<VecDeque<u16>>>,
    /// Time between a request and its response, milliseconds.
    delay: Arc<AtomicU64>,
}

impl Receiver {
    async fn listen(&self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(self.clone().serve(stream));
        }
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let Some((head, body)) = request(&bytes) else {
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return;
                }
                continue;
            };
            assert!(head.starts_with("POST /logs") && head.contains("authorization: Bearer token"), "{head}");
            let scripted = self.statuses.lock().unwrap().pop_front();
            let status = scripted.unwrap_or(if body.contains("poison") { 400 } else { 200 });
            if status == 200 {
                self.bodies.lock().unwrap().push(body);
            }
            tokio::time::sleep(Duration::from_millis(self.delay.load(Ordering::Relaxed))).await;
            let reply = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(reply.as_bytes()).await.unwrap();
            bytes.clear();
        }
    }

    fn received(&self) -> String {
        self.bodies.lock().unwrap().concat()
    }

    async fn wait_for(&self, expected: &str) {
        let received = async {
            while self.received() != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), received).await;
        assert!(in_time.is_ok(), "received {:?} instead of {expected:?}", self.received());
    }
}

/// Returns the head and the body of a complete request.
fn request(bytes: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
    (body.len() == length).then(|| (head.to_owned(), body.to_owned()))
}

/// Opens the files. The writer of dropped ones may not have ended yet.
async fn opened(path: &Utf8Path) -> LogFiles {
    for _ in 0..1000 {
        match LogFiles::open(path, Rotation { bytes: 20, files: 10 }, true) {
            Ok(files) => return files,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("the last writer has not ended");
}

/// A directory of logs, and the receiver that they are forwarded to.
struct Setting {
    _directory: tempfile::TempDir,
    path: Utf8PathBuf,
    config: ForwardConfig,
    receiver: Receiver,
}

impl Setting {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authorization = path.join("token");
        fs_err::write(&authorization, "Bearer token\n").unwrap();
        let config = ForwardConfig {
            url: format!("http://{}/logs", listener.local_addr().unwrap()),
            format: LogFormat::Ndjson,
            authorization_file: Some(authorization),
            ca: None,
        };
        let receiver = Receiver::default();
        let serving = receiver.clone();
        tokio::spawn(async move { serving.listen(listener).await });
        Self { _directory: directory, path, config, receiver }
    }

    /// Starts the writer and the forwarders.
    async fn run(&self) -> (LogFiles, CancellationToken, Vec<JoinHandle<()>>) {
        let (files, shutdown) = (opened(&self.path).await, CancellationToken::new());
        let forwarding = start(&self.config, files.logs(), &Arc::<Forwarded>::default(), &shutdown).unwrap();
        (files, shutdown, forwarding)
    }
}

#[tokio::test]
async fn lines_reach_the_receiver_once_and_in_order_through_outages_rejections_and_restarts() {
    let setting = Setting::new().await;
    let receiver = &setting.receiver;
    let (files, shutdown, _forwarding) = setting.run().await;
    receiver.statuses.lock().unwrap().extend([503, 401]);
    for line in ["{\"n\":1}\n", "{\"n\":2}\n", "{\"n\":3}\n"] {
        files.store(LogType::Result, line.into()).await.unwrap();
    }
    let first = "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n";
    receiver.wait_for(first).await;
    // Only the line that the receiver rejects is left out.
    files.store(LogType::Result, "4\npoison\n5\n".into()).await.unwrap();
    receiver.wait_for(&format!("{first}4\n5\n")).await;

    // Written while nothing forwards, and forwarded after the next start.
    shutdown.cancel();
    files.store(LogType::Result, "6\n".into()).await.unwrap();
    drop(files);
    let (files, shutdown, _forwarding) = setting.run().await;
    receiver.wait_for(&format!("{first}4\n5\n6\n")).await;
    files.store(LogType::Result, "7\n".into()).await.unwrap();
    receiver.wait_for(&format!("{first}4\n5\n6\n7\n")).await;
    shutdown.cancel();
}

#[tokio::test]
async fn lines_that_are_in_flight_at_a_shutdown_are_sent_once() {
    let setting = Setting::new().await;
    let receiver = &setting.receiver;
    receiver.delay.store(300, Ordering::Relaxed);
    let (files, shutdown, forwarding) = setting.run().await;
    files.store(LogType::Result, "1\n".into()).await.unwrap();
    receiver.wait_for("1\n").await;
    // Before the response.
    shutdown.cancel();
    for task in forwarding {
        task.await.unwrap();
    }
    files.store(LogType::Result, "2\n".into()).await.unwrap();
    drop(files);
    let (_files, shutdown, _forwarding) = setting.run().await;
    receiver.wait_for("1\n2\n").await;
    shutdown.cancel();
}

#[tokio::test]
async fn lines_that_rotation_deletes_before_they_are_forwarded_are_counted() {
    let setting = Setting::new().await;
    let rotation = Rotation { bytes: 20, files: 2 };
    let (files, shutdown) = (LogFiles::open(&setting.path, rotation, true).unwrap(), CancellationToken::new());
    let forwarding = start(&setting.config, files.logs(), &Arc::<Forwarded>::default(), &shutdown).unwrap();
    shutdown.cancel();
    for task in forwarding {
        task.await.unwrap();
    }
    for _ in 0..10 {
        files.store(LogType::Result, "ten bytes\n".into()).await.unwrap();
    }
    // Four are left in two files.
    assert_eq!(files.logs()[0].lost.load(Ordering::Relaxed), 6);
}

#[test]
fn a_setting_that_cannot_be_used_is_named() {
    let config = ForwardConfig {
        url: "https://logs.example/".into(),
        format: LogFormat::Otlp,
        authorization_file: Some("/nowhere/token".into()),
        ca: None,
    };
    let error = config.receiver().map(drop).unwrap_err();
    assert!(error.starts_with("osquery.forward_authorization_file: "), "{error}");
}
