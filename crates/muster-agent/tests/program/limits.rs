//! Limits of a program of a policy.

use serde_json::json;

use crate::Agent;
use crate::server::TlsServer;

#[test]
fn ag64_a_program_gets_the_limits_of_its_policy_and_the_status_names_them() {
    let server = TlsServer::start();
    let limits = json!({"memory": "64MiB", "open_files": 100, "cpu": 0.5});
    let script = "ulimit -n; ulimit -d; exec sleep 1000";
    server.lock().program = Some(json!({"command": "/bin/sh", "limits": limits, "args": ["-c", script]}));
    let agent = Agent::new();
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let _daemon = agent.run();
    let status = agent.until_status(|_, status| status["components"][0]["state"] == "HEALTHY");
    let message = status["components"][0]["message"].as_str().unwrap();
    assert!(message.contains("(limits: memory 64 MiB"), "{message}");
    assert!(message.contains("100 open files for each process"), "{message}");
    let log = std::fs::read_to_string(agent.path("logs/components/process-default-web.log")).unwrap();
    // In a control group, the memory of all processes together is limited.
    let is_of_each = message.contains("memory 64 MiB for each process");
    assert_eq!(log, if is_of_each { "100\n65536\n" } else { "100\nunlimited\n" }, "kibibytes");
    assert_eq!(message.contains("not limited on this host: cpu"), is_of_each, "{message}");
}

#[test]
fn ag64_a_program_that_needs_more_memory_than_allowed_fails_with_the_limit() {
    let server = TlsServer::start();
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    server.lock().program = Some(json!({"command": "/bin/sh", "limits": {"memory": "64MiB"}, "args": ["-c", script]}));
    let agent = Agent::new();
    assert_eq!(agent.enroll(&server, &["-a", server.ca_file.to_str().unwrap()]).0, 0);
    let _daemon = agent.run();
    let status = agent.until_status(|_, status| status["components"][0]["state"] == "FAILED");
    let message = status["components"][0]["message"].as_str().unwrap();
    assert!(message.contains("memory") && message.contains("64 MiB"), "{message}");
    let (_, other) = agent.status();
    assert_ne!(other["fleet"]["state"], "FAILED", "the agent is not affected: {other}");
}
