//! Images of hosts, and hosts whose key was encrypted elsewhere.

use nix::sys::signal::Signal;

use crate::server::TlsServer;
use crate::{Agent, output};

/// Leaves a key that systemd cannot decrypt here, as on a copy of a host, with a new TPM, or after a restored backup.
fn as_on_another_host(agent: &Agent) {
    let _ = std::fs::remove_file(agent.path("secret.key"));
    std::fs::write(agent.path("secret.cred"), "encrypted elsewhere").unwrap();
}

#[test]
fn ag91_each_host_of_an_image_has_a_key_of_its_own() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let (code, text) = agent.install(&server, &["--delay-enroll"]);
    assert_eq!(code, 0, "{text}");
    let key = || std::fs::read(agent.path("secret.key")).unwrap();
    let of_image = key();
    let mut daemon = agent.start();
    agent.until_healthy();
    assert_ne!(key(), of_image);
    assert!(!agent.path("secret.key.former").try_exists().unwrap());
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), 0);
    let _daemon = agent.start();
    agent.until_healthy();
    assert_eq!(server.lock().enrolled.len(), 1);
}

#[test]
fn ag91_a_copy_whose_key_cannot_be_decrypted_says_so_and_can_enroll() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let ca = server.ca_file.to_str().unwrap();
    assert_eq!(agent.enroll(&server, &["-a", ca]).0, 0);
    as_on_another_host(&agent);
    let (code, text) = output(&mut agent.command("run"));
    assert!(
        code == 13 && text.contains("encrypted on another host") && text.contains("enroll --force"),
        "{code} {text}"
    );
    let (code, text) = agent.enroll(&server, &["-a", ca]);
    assert_eq!(code, 13, "{text}");
    assert_eq!(server.lock().enrolled.len(), 1, "no agent that exists only at the server");
    let (code, text) = agent.enroll(&server, &["-a", ca, "--force"]);
    assert!(code == 0 && text.contains("a new one replaces it"), "{code} {text}");
    assert_eq!(server.lock().enrolled.len(), 2);
    assert_eq!(server.lock().audits.len(), 0, "the original is still there");
    let _daemon = agent.run();
    agent.until_healthy();
}

#[test]
fn ag91_the_identity_of_such_a_copy_can_be_reset() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let ca = server.ca_file.to_str().unwrap();
    assert_eq!(agent.enroll(&server, &["-a", ca]).0, 0);
    as_on_another_host(&agent);
    assert_eq!(output(agent.command("reset-identity").arg("--keep-id")).0, 13);
    let mut reset = agent.command("reset-identity");
    reset.args(["--url", &server.url, "-a", ca]).env("MUSTER_ENROLLMENT_TOKEN", crate::TOKEN);
    let (code, text) = output(&mut reset);
    assert_eq!(code, 0, "{text}");
    assert!(agent.path("secret.key").try_exists().unwrap(), "other hosts can read the key of an image");
    let _daemon = agent.run();
    agent.until_healthy();
    assert_eq!(server.lock().enrolled.len(), 2);
}
