//! Flags of Elastic Agent's `enroll`.

use std::process::Command;

use muster_core::testing::{ENCRYPTED_KEY, PASSPHRASE};

use crate::server::TlsServer;
use crate::{Agent, output};

#[test]
fn ag13_a_key_with_a_passphrase_is_stored_without_it() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let file = |name: &str, text: &str| {
        let path = agent.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = muster_core::private_key::decrypt(ENCRYPTED_KEY, PASSPHRASE).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["agent".into()]).unwrap().self_signed(&key).unwrap();
    let (certificate, key) = (file("agent.crt", &certificate.pem()), file("agent.key", ENCRYPTED_KEY));
    let ca = server.ca_file.to_str().unwrap();
    let flags = ["-a", ca, "--elastic-agent-cert", &certificate, "--elastic-agent-cert-key", &key];
    let (code, text) = agent.enroll(&server, &flags);
    assert!(code == 2 && text.contains("hint: pass a file with its passphrase"), "{code} {text}");
    let (code, text) = agent.enroll(&server, &["--elastic-agent-cert-key-passphrase", "/p"]);
    assert!(code == 2 && text.contains("--elastic-agent-cert"), "without a certificate and a key: {code} {text}");
    let with = |passphrase: &str| {
        agent.enroll(&server, &[&flags[..], &["--elastic-agent-cert-key-passphrase", passphrase]].concat())
    };
    let (code, text) = with(&file("wrong", "wrong-canary"));
    assert!(code == 2 && text.contains("cannot be decrypted") && !text.contains("wrong-canary"), "{code} {text}");
    let (code, text) = with(&file("passphrase", &format!("{PASSPHRASE}\n")));
    assert_eq!(code, 0, "{text}");
    let client = agent.enrollment().trust.client.unwrap();
    assert!(client.key.expose().starts_with("-----BEGIN PRIVATE KEY-----"), "the key is stored decrypted");
}

#[test]
fn ag91_a_delayed_enrollment_takes_place_at_the_next_start() {
    let (server, agent) = (TlsServer::start(), Agent::new());
    let ca = server.ca_file.to_str().unwrap();
    let (code, text) = agent.enroll(&server, &["-a", ca, "--delay-enroll", "--staging", "0123abcd"]);
    assert!(code == 0 && text.contains("Note: --staging has no effect"), "{code} {text}");
    assert_eq!(server.lock().enroll_attempts, 0);
    let daemon = agent.run();
    agent.until_status(|code, status| code == 0 && status["components"][0]["state"] == "HEALTHY");
    assert_eq!(server.lock().enrolled.len(), 1);
    let (code, text) = agent.enroll(&server, &["-a", ca, "--force", "--delay-enroll"]);
    assert!(code == 2 && text.contains("reset-identity"), "{code} {text}");
    let (code, text) = agent.enroll(&server, &["-a", ca, "--force", "--skip-daemon-reload", "--daemon-timeout", "5s"]);
    assert!(code == 0 && text.contains("from its next start"), "{code} {text}");
    drop(daemon);
}

#[test]
fn client_certificates_at_a_local_server_need_their_authorities() {
    let agent = Agent::new();
    let enroll = |more: &[&str]| {
        let mut command: Command = agent.command("enroll");
        output(command.args(["--fleet-server-program", "/bin/true"]).args(more))
    };
    let (code, text) = enroll(&["--fleet-server-client-auth", "required"]);
    assert!(code == 2 && text.contains("needs one file of --certificate-authorities"), "{code} {text}");
    let (code, text) = enroll(&["--fleet-server-client-auth", "maybe"]);
    assert!(code == 2 && text.contains("none, optional, required"), "{code} {text}");
    let (code, text) = enroll(&["--fleet-server-cert-key-passphrase", "/p"]);
    assert!(code == 2 && text.contains("--fleet-server-cert-key"), "{code} {text}");
    assert!(!agent.path("").try_exists().unwrap(), "nothing was changed");
}
