//! `muster-agent enroll --fleet-server` with the real programs: it runs `muster serve` on its host, and enrolls at it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod canary;
mod elasticsearch;
mod host;
mod migration;
mod stampede;

use std::time::{Duration, Instant};

use host::{Daemon, Host, output};
use serde_json::Value;

/// Maximum time for a failed start of the server to be reported.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn ag94_ag95_ag98_ag101_ag102_one_command_on_an_empty_directory_makes_a_fleet() {
    let host = Host::new();
    let (code, text) = host.enroll(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Enrolled as agent") && text.contains("on policy fleet-server-policy"), "{text}");
    assert!(text.contains("muster status --data-dir"), "it prints how to manage the fleet: {text}");
    host.until_silent();
    let daemon = host.run();
    let status = host.until_healthy();
    assert_eq!(status["fleet"]["servers"], serde_json::json!([host.local_url("https")]));
    assert_eq!(status["policy"]["id"], "fleet-server-policy");
    let server = &status["components"][0];
    assert_eq!((&server["id"], &server["type"]), (&"fleet-server-local".into(), &"fleet-server".into()), "{status}");

    let fingerprint = text.split_once("--ca-sha256 ").unwrap().1.split(' ').next().unwrap();
    assert_eq!(host.muster(&["ca", "fingerprint"]).trim(), fingerprint, "the CA can be exported (AG95)");
    let (remote, _remote) = a_remote_agent_joins(&host, "https://127.0.0.1", &["--ca-sha256", fingerprint]);
    // Policies name the server by its external URL. The local agent stays on its own listener (AG102).
    assert_eq!(host.until_healthy()["fleet"]["servers"], status["fleet"]["servers"]);

    // The server is a component: it ends with the daemon, and starts with it.
    drop(daemon);
    host.until_silent();
    let _daemon = host.run();
    host.until_healthy();
    remote.until_healthy();
}

/// Enrolls and runs an agent of another host, through the listener for agents.
fn a_remote_agent_joins(host: &Host, url: &str, trust: &[&str]) -> (Host, Daemon) {
    let token = host.muster_json(&["enrollment-key", "create"])["api_key"].as_str().unwrap().to_owned();
    let remote = Host::new();
    let (code, text) = remote.enroll_at(&format!("{url}:{}", host.port), &token, trust);
    assert_eq!(code, 0, "{text}");
    let daemon = remote.run();
    remote.until_healthy();
    let agents = host.muster_json(&["agent", "list"]);
    assert_eq!(agents.as_array().unwrap().len(), 2, "{agents}");
    (remote, daemon)
}

#[test]
fn ag28_a_container_sets_up_a_server_once_and_again_with_other_variables() {
    let host = Host::new();
    let contain = |port: u16| {
        let mut command = host.command("container");
        for (name, value) in host.server_variables(port) {
            command.env(name, value);
        }
        Daemon::new(command.env("FLEET_SERVER_ELASTICSEARCH_HOST", "http://elasticsearch:9200"))
    };
    let mut daemon = contain(host.port);
    let status = host.until_healthy();
    assert_eq!(
        (&status["components"][0]["id"], &status["policy"]["id"]),
        (&"fleet-server-local".into(), &"own".into())
    );
    let first = host.enrollment().agent_id;
    daemon.stop();
    let mut daemon = contain(host.port);
    host.until_healthy();
    assert_eq!(host.enrollment().agent_id, first, "the same server and agent");
    daemon.stop();
    host.until_silent();
    let other = Host::new().port;
    let _daemon = contain(other);
    host.until_healthy();
    assert!(std::net::TcpStream::connect(("127.0.0.1", other)).is_ok(), "at the other port");
    assert_eq!(host.enrollment().agent_id, first, "an enrollment at the same server keeps the id");
}

#[test]
fn ag97_the_certificate_of_the_user_is_verified_for_the_name_of_the_url() {
    let host = Host::new();
    let made = host.certificate("fleet.example");
    let cert = ["--fleet-server-cert", made.chain.as_str(), "--fleet-server-cert-key", made.key.as_str()];
    let (code, text) = host.enroll(&[&cert[..], &["-a", made.ca.as_str()]].concat());
    assert!(code == 2 && text.contains("--url"), "without a URL: {code} {text}");
    assert_eq!(host.enroll(&cert[..2]).0, 2, "without a key");
    let url = ["--url", "https://fleet.example:8220"];
    let other = host.certificate("fleet.example");
    let begun = Instant::now();
    let (code, text) = host.enroll(&[&cert[..], &url, &["-a", other.ca.as_str()]].concat());
    assert!(code == 5 && text.contains("--certificate-authorities"), "the CA is another one: {code} {text}");
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    assert!(!host.path("server.json").try_exists().unwrap(), "the failed attempt leaves no server behind");
    let (code, text) =
        host.enroll(&[&cert[..], &["--url", "https://other.example"], &["-a", made.ca.as_str()]].concat());
    assert!(code == 5 && text.contains("other.example"), "the certificate is for another name: {code} {text}");
    let made = host.certificate("localhost");
    let cert = ["--fleet-server-cert", made.chain.as_str(), "--fleet-server-cert-key", made.key.as_str()];
    let url = ["--url", &format!("https://localhost:{}", host.port)];
    let (code, text) = host.enroll(&[&cert[..], &url, &["-a", made.ca.as_str()]].concat());
    assert_eq!(code, 0, "{text}");
    let _daemon = host.run();
    let status = host.until_healthy();
    assert_eq!(status["fleet"]["servers"], serde_json::json!([host.local_url("https")]));
    let _remote = a_remote_agent_joins(&host, "https://localhost", &["-a", made.ca.as_str()]);
}

#[test]
fn ag96_plain_http_is_served_on_loopback_only() {
    let host = Host::new();
    let (code, text) = host.enroll(&["--fleet-server-insecure-http", "--fleet-server-host", "0.0.0.0"]);
    assert!(code == 1 && text.contains("the server did not start"), "{code} {text}");
    let (code, text) = host.enroll(&["--fleet-server-insecure-http"]);
    assert_eq!(code, 0, "{text}");
    let _daemon = host.run();
    let status = host.until_healthy();
    assert_eq!(status["fleet"]["servers"], serde_json::json!([host.local_url("http")]));
    let listen: Value = serde_json::from_slice(&std::fs::read(host.data().join("listen.json")).unwrap()).unwrap();
    assert_eq!(listen["agent"], format!("127.0.0.1:{}", host.port));
    let _remote = a_remote_agent_joins(&host, "http://127.0.0.1", &["--insecure"]);
}

#[test]
fn ag100_a_failed_bootstrap_ends_with_the_last_message_of_the_server() {
    let host = Host::new();
    let taken = std::net::TcpListener::bind(("0.0.0.0", host.port)).unwrap();
    let nowhere = "postgres://muster@127.0.0.1:1/muster";
    let timeout = ["--fleet-server-timeout", "10s"];
    let token = "--enrollment-token=d3Jvbmc6dG9rZW4=";
    let (one, other) = (host.certificate("localhost"), host.certificate("localhost"));
    let pair = ["--fleet-server-cert", &one.chain, "--fleet-server-cert-key", &other.key];
    let mismatched = [&pair[..], &["--url", "https://localhost", "-a", &one.ca]].concat();
    let cases: [(&[&str], &[i32], &str); 5] = [
        (&[], &[1], "ddress already in use"),
        (&["--fleet-server-database", nowhere], &[1, 8], "127.0.0.1 port 1"),
        (&["--fleet-server-set", "no.such.key=1"], &[1], "no.such.key"),
        (&mismatched, &[1], "the key does not belong to the certificate"),
        (&[token], &[6], "enrollment token is unknown"),
    ];
    let mut taken = Some(taken);
    for (flags, codes, cause) in cases {
        let begun = Instant::now();
        let (code, text) = host.enroll(&[flags, &timeout].concat());
        assert!(codes.contains(&code) && text.contains(cause), "{flags:?}: {code} {text}");
        assert!(begun.elapsed() < LIMIT, "{flags:?}: {:?}", begun.elapsed());
        assert!(!host.path("server.json").try_exists().unwrap() && !host.path("fleet.enc").try_exists().unwrap());
        taken.take();
    }
    // Nothing of the failures is in the way.
    let (code, text) = host.enroll(&[]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn ag173_the_time_for_the_start_of_the_server_is_not_that_of_the_enrollment() {
    use std::os::unix::fs::PermissionsExt as _;
    let (host, slow) = (Host::new(), tempfile::tempdir().unwrap());
    let program = slow.path().join("muster");
    let server = host::muster();
    std::fs::write(&program, format!("#!/bin/sh\nsleep 8\nexec {} \"$@\"\n", server.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = ["--fleet-server-program", program.to_str().unwrap()];
    let begun = Instant::now();
    let (code, text) = host.enroll(&[&program[..], &["--fleet-server-timeout", "2s"]].concat());
    assert!(matches!(code, 1 | 8) && begun.elapsed() < Duration::from_secs(8), "{code} {text}");
    let (code, text) = host.enroll(&[&program[..], &["--timeout", "6s"]].concat());
    assert_eq!(code, 0, "{text}");
}

#[test]
fn ag10_ag12_ag92_the_options_of_a_server_are_validated_before_it_starts() {
    let host = Host::new();
    for (flags, word) in [
        (&["--fleet-server-program", "/nowhere"][..], "/nowhere"),
        (&["--fleet-server-data-dir", "relative"], "not absolute"),
        (&["--fleet-server-database", "postgres://u:secret@h/d"], "passfile="),
        (&["--fleet-server-database", "postgres://u@h/d?password=secret"], "passfile="),
        (&["-a", "/etc/ssl/certs/ca-certificates.crt"], "--fleet-server-cert"),
        (&["--fleet-server-port", "0"], "0"),
        (&["--fleet-server-cert", "/etc/hostname"], "--fleet-server-cert-key"),
        (&["--fleet-server-cert-key", "/etc/hostname"], "--fleet-server-cert"),
    ] {
        let (code, text) = host.enroll(flags);
        assert!(code == 2 && text.contains(word) && !text.contains("secret"), "{flags:?}: {code} {text}");
    }
    let inside = host.path("data");
    assert_eq!(host.enroll(&["--fleet-server-data-dir", inside.to_str().unwrap()]).0, 2, "it would be uninstalled");
    assert!(!host.path("").try_exists().unwrap() && !host.data().try_exists().unwrap(), "nothing was created");
    let (code, text) = output(host.command("install").args(["--service", "none", "--delay-enroll", "--fleet-server"]));
    assert!(code == 2 && text.contains("--delay-enroll"), "{text}");
}

#[test]
fn ag107_the_server_outlives_the_enrollment_of_its_agent() {
    let host = Host::new();
    assert_eq!(host.enroll(&[]).0, 0);
    let mut daemon = host.run();
    let first = host.until_healthy()["agent_id"].clone();
    let (code, text) = host.enroll(&["--force"]);
    assert!(code == 1 && text.contains("is running"), "the running server is not started twice: {code} {text}");
    let (code, text) = output(&mut host.command("unenroll"));
    assert_eq!(code, 0, "{text}");
    let status = host.until_status(|status| status["agent_id"] == "");
    assert!(status["message"].as_str().unwrap().contains("fleet server only"), "{status}");
    let agents = host.muster_json(&["agent", "list", "--filter", "status:unenrolled"]);
    assert_eq!(agents[0]["id"], first, "the server, which still runs, knows: {agents}");
    daemon.stop();
    host.until_silent();
    let (code, text) = host.enroll(&[]);
    assert_eq!(code, 0, "the data of the fleet is still there: {text}");
    let _daemon = host.run();
    assert_ne!(host.until_healthy()["agent_id"], first);
}

#[test]
fn ag84_ag85_only_the_replace_token_lets_another_host_take_over_an_agent() {
    let (host, first, second) = (Host::new(), Host::new(), Host::new());
    assert_eq!(host.enroll(&[]).0, 0);
    let _daemon = host.run();
    host.until_healthy();
    let token = host.muster_json(&["enrollment-key", "create", "--policy", "fleet-server-policy"])["api_key"].clone();
    let (token, url) = (token.as_str().unwrap(), format!("https://127.0.0.1:{}", host.port));
    let ca = host.data().join("ca.crt").into_os_string().into_string().unwrap();
    let (code, text) = first.enroll_at(&url, token, &["-a", &ca, "--replace-token", "mine"]);
    assert_eq!(code, 0, "{text}");
    let agent = first.run();
    let id = first.until_healthy()["agent_id"].as_str().unwrap().to_owned();
    let before = first.enrollment().access_api_key;
    for force in [&first, &second] {
        let (code, text) =
            force.enroll_at(&url, token, &["-a", &ca, "--force", "--id", &id, "--replace-token", "theirs"]);
        assert!(code == 6 && text.contains("--replace-token"), "{code} {text}");
    }
    assert_eq!(first.enrollment().access_api_key, before, "the enrolled agent stays as it was");
    assert!(!second.path("fleet.enc").try_exists().unwrap());
    let (code, text) = second.enroll_at(&url, token, &["-a", &ca, "--id", &id, "--replace-token", "mine"]);
    assert!(code == 0 && text.contains(&id), "{text}");
    let _second = second.run();
    assert_eq!(second.until_healthy()["agent_id"], id);
    // The key of the first host is no longer valid.
    drop(agent);
    let _agent = first.run();
    let status = first.until_status(|status| status["fleet"]["state"] == "FAILED");
    assert!(status["fleet"]["message"].as_str().unwrap().contains("401"), "{status}");
}

#[test]
fn ag139_an_uninstallation_tells_the_local_server_before_it_stops_it_unless_this_is_skipped() {
    for (more, is_told) in [(&[] as &[&str], true), (&["--skip-fleet-audit"], false)] {
        let host = Host::new();
        let mut install = host.command("install");
        install.args(["--service", "none"]).args(host.server_flags());
        let (code, text) = output(&mut install);
        assert_eq!(code, 0, "{text}");
        let daemon = host.run_installed();
        let id = host.until_healthy()["agent_id"].as_str().unwrap().to_owned();
        let mut uninstall = std::process::Command::new(host.path("muster-agent"));
        let (code, text) = output(uninstall.args(["uninstall", "--force"]).args(more));
        assert_eq!(code, 0, "{text}");
        drop(daemon);
        assert!(text.contains("data of the fleet server stays"), "{text}");
        assert!(!host.path("").try_exists().unwrap());
        let notifier = host.path("").with_file_name("agent-notifier");
        assert!(!notifier.try_exists().unwrap(), "nobody is left to be told");
        // A server on the same data directory knows who has left.
        let _server = host.serve();
        let unenrolled = host.muster_json(&["agent", "list", "--filter", "status:unenrolled"]);
        assert_eq!(unenrolled[0]["id"] == id, is_told, "{unenrolled}");
    }
}
