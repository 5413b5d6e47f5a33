//! What protects an installed agent, and what undoes a change that is interrupted, refused or fails.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use crate::install::{tree, until};
use crate::server::TlsServer;
use crate::{Agent, Daemon, TOKEN};

#[test]
fn ag4_ctrl_c_undoes_an_installation_and_stops_the_server_that_it_has_started() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGTERM] {
        let agent = Agent::new();
        // Its child would be left behind if only the program itself were killed.
        let (program, child) = (agent.directory.path().join("muster"), agent.directory.path().join("child"));
        std::fs::write(&program, format!("#!/bin/sh\nsleep 1234 &\necho $! > {}\nwait\n", child.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let begin = |args: &[&str]| {
            let mut command = agent.command("install");
            command.args(["--service", "none"]).args(args).env("MUSTER_ENROLLMENT_TOKEN", TOKEN);
            Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
        };
        let interrupted = |mut command: Daemon| {
            command.signal(signal);
            assert_eq!(command.ended(), 1);
            assert!(!agent.path("").try_exists().unwrap(), "nothing is left: {:?}", tree(&agent.path("")));
        };
        let local = begin(&["--fleet-server", "--fleet-server-program", program.to_str().unwrap()]);
        let pid = || std::fs::read_to_string(&child).ok().filter(|pid| pid.ends_with('\n'));
        until("the server has started", || pid().is_some());
        interrupted(local);
        until("its child has ended", || !Path::new("/proc").join(pid().unwrap().trim()).try_exists().unwrap());
        let remote = begin(&["--url", &url, "--insecure"]);
        until("the command is enrolling", || agent.path("muster-agent").try_exists().unwrap());
        interrupted(remote);
    }
}

#[test]
fn ag84_an_enrollment_that_cannot_be_stored_is_withdrawn_from_the_server() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    std::fs::create_dir(agent.path("")).unwrap();
    // Never followed, and noticed only when the files are written.
    std::os::unix::fs::symlink("/etc", agent.path("run")).unwrap();
    let (code, text) = agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]);
    assert!(code != 0 && text.contains("symbolic link"), "{code} {text}");
    let server = server.lock();
    assert_eq!((server.enrolled.len(), server.audits.len()), (1, 1), "{text}");
    assert_eq!(server.audits[0]["departure"]["why"], "the enrollment could not be stored");
}
