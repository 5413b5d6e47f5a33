//! `container`, with the environment variables of Elastic Agent's images.

use std::process::{Command, Stdio};

use muster_core::uninstall_token;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::install::{UNINSTALL, until};
use crate::server::TlsServer;
use crate::{Agent, Daemon, TOKEN, output};

impl Agent {
    fn contain(&self, server: &TlsServer, more: &[(&str, &str)]) -> Daemon {
        let mut command = self.command("container");
        command.env("FLEET_ENROLL", "1").env("FLEET_URL", &server.url).env("FLEET_ENROLLMENT_TOKEN", TOKEN);
        command.env("FLEET_CA", &server.ca_file).envs(more.iter().copied());
        Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Runs the container until its program is healthy, and stops it.
    fn live(&self, server: &TlsServer, more: &[(&str, &str)]) {
        let mut daemon = self.contain(server, more);
        self.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ended(), 0, "AG174");
    }
}

#[test]
fn ag27_ag29_ag30_ag174_a_container_enrolls_only_if_necessary() {
    let server = TlsServer::start();
    let agent = Agent::new();
    agent.live(&server, &[]);
    agent.live(&server, &[]);
    agent.live(&server, &[("ELASTIC_AGENT_ID", "agent-1")]);
    assert_eq!(server.lock().enrolled.len(), 1, "unchanged");
    // base64 of `other:token`.
    agent.live(&server, &[("FLEET_ENROLLMENT_TOKEN", "b3RoZXI6dG9rZW4=")]);
    assert_eq!(server.lock().enrolled.len(), 2, "another token");
    agent.live(&server, &[("FLEET_ENROLLMENT_TOKEN", "b3RoZXI6dG9rZW4="), ("FLEET_FORCE", "1")]);
    assert_eq!(server.lock().enrolled.len(), 3, "forced");
    server.lock().revoked = true;
    agent.live(&server, &[("FLEET_ENROLLMENT_TOKEN", "b3RoZXI6dG9rZW4=")]);
    assert_eq!(server.lock().enrolled.len(), 4, "the key is rejected");
}

/// Variables must not do what `enroll --force` refuses.
#[test]
fn ag143_a_container_leaves_a_protected_enrollment_only_with_the_token() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let hash = uninstall_token::hash(UNINSTALL);
    server.lock().protection = Some(json!({"enabled": true, "uninstall_token_hash": hash}));
    agent.live(&server, &[]);
    // base64 of `other:token`.
    let other = ("FLEET_ENROLLMENT_TOKEN", "b3RoZXI6dG9rZW4=");
    for more in [&[other][..], &[("FLEET_FORCE", "1")], &[other, ("MUSTER_UNINSTALL_TOKEN", "wrong")]] {
        assert_eq!(agent.contain(&server, more).ended(), 14, "{more:?}");
    }
    assert_eq!(server.lock().enrolled.len(), 1);
    assert_eq!(server.lock().audits.len(), 3);
    assert!(server.lock().audits.iter().all(|audit| audit["reason"] == "refused"));
    agent.live(&server, &[other, ("MUSTER_UNINSTALL_TOKEN", UNINSTALL)]);
    assert_eq!(server.lock().enrolled.len(), 2);
    // Its server no longer wants it.
    server.lock().revoked = true;
    agent.live(&server, &[other]);
    assert_eq!(server.lock().enrolled.len(), 3);
}

#[test]
fn ag174_a_container_that_is_stopped_while_it_enrolls_or_starts_exits_with_0() {
    let server = TlsServer::start();
    let agent = Agent::new();
    server.lock().refuse_enroll = Some(503);
    let mut daemon = agent.contain(&server, &[]);
    until("a request", || server.lock().enroll_attempts > 0);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0, "while it enrolls");
    server.lock().refuse_enroll = None;
    let mut daemon = agent.contain(&server, &[]);
    until("a request", || !server.lock().enrolled.is_empty());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0, "while it stores the enrollment or starts");
}

#[test]
fn ag34_a_container_is_alive_during_a_slow_enrollment() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    server.lock().refuse_enroll = Some(503);
    let mut daemon = agent.contain(&server, &[]);
    until("a request", || server.lock().enroll_attempts > 0);
    assert!(agent.ask("GET", "/liveness").starts_with("HTTP/1.1 200"));
    let (code, status) = agent.status();
    assert_eq!((code, &status["message"]), (9, &"Enrolling".into()), "{status}");
    let mut second = agent.contain(&server, &[]);
    assert_eq!(second.ended(), 1, "one daemon in a directory, also while it enrolls");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
}

#[test]
fn ag26_without_a_request_to_enroll_a_container_contacts_nobody() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let mut daemon = agent.contain(&server, &[("FLEET_ENROLL", "")]);
    assert_eq!(daemon.ended(), 13, "there is nothing to run");
    assert!(server.lock().gateway.is_empty());
}

#[test]
fn ag33_ag37_a_container_needs_its_certificate_files_and_options_only_once() {
    let (server, [certificate, key]) = TlsServer::requiring_certificates();
    let agent = Agent::new();
    let file = |name: &str, pem: &str| {
        let path = agent.directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let (certificate, key) = (file("cert.pem", &certificate), file("key.pem", &key));
    agent.live(&server, &[("ELASTIC_AGENT_CERT", &certificate), ("ELASTIC_AGENT_CERT_KEY", &key)]);
    for path in [certificate, key] {
        std::fs::remove_file(path).unwrap();
    }
    let mut daemon = agent.contain(&server, &[]);
    agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    assert_eq!(server.lock().enrolled.len(), 1, "the stored certificate is used");
    // As with `docker exec`, which has the variables of the image.
    for name in ["MUSTER_AGENT_BASE_PATH", "STATE_PATH"] {
        let mut status = Command::new(env!("CARGO_BIN_EXE_muster-agent"));
        let status = status.arg("status").env_remove("MUSTER_AGENT_BASE_PATH").env(name, agent.path(""));
        let (code, text) = output(status);
        assert_eq!(code, 0, "{name}: {text}");
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
}

#[test]
fn a_container_without_the_variables_is_a_usage_error() {
    let agent = Agent::new();
    let mut command = agent.command("container");
    let (code, text) = output(command.env("FLEET_ENROLL", "true").env_remove("FLEET_URL"));
    assert_eq!((code, text.contains("FLEET_URL: ")), (2, true), "{text}");
    let mut command = agent.command("container");
    let (code, text) = output(command.env("FLEET_SERVER_ENABLE", "1").env("FLEET_SERVER_CLIENT_AUTH", "required"));
    assert_eq!((code, text.contains("FLEET_SERVER_CLIENT_AUTH")), (2, true), "{text}");
    assert!(!agent.path("").try_exists().unwrap());
}
