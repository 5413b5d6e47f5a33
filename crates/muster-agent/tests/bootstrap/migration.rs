//! MIGRATE with the real programs on all sides: an agent leaves the fleet of one server for that of another.

use crate::a_remote_agent_joins;
use crate::host::{Daemon, Host, until};

fn fleet() -> (Host, Daemon) {
    let host = Host::new();
    let (code, text) = host.enroll(&[]);
    assert_eq!(code, 0, "{text}");
    let daemon = host.run();
    host.until_healthy();
    (host, daemon)
}

/// The server signs references to the secrets of the action, and sends their values beside the signature.
#[test]
fn ag119_ea84_an_agent_migrates_with_the_enrollment_token_of_the_action() {
    let ((old, _old), (new, _new)) = (fleet(), fleet());
    let ca = |host: &Host| host.data().join("ca.crt").into_os_string().into_string().unwrap();
    let (remote, _remote) = a_remote_agent_joins(&old, "https://127.0.0.1", &["-a", &ca(&old)]);
    let before = remote.enrollment();
    assert!(before.signing_key.is_some(), "only signed actions are trusted");
    let token = new.muster_json(&["enrollment-key", "create"])["api_key"].as_str().unwrap().to_owned();
    let to = format!("https://127.0.0.1:{}", new.port);
    let authority = format!("ca={}", ca(&new));
    let words =
        ["agent", "migrate", &before.agent_id, "--to", &to, "--enrollment-token", &token, "--setting", &authority];
    old.muster(&[&words[..], &["--wait", "--timeout", "60", "--yes"]].concat());
    // The former server has the acknowledgement before the agent stores its new enrollment.
    let after = until(
        || Some(remote.enrollment()).filter(|now| now.agent_id != before.agent_id),
        || "the agent has acknowledged the action, and stays where it was".into(),
    );
    // The policy of the new server may already have named it by its host name.
    let port = format!(":{}", new.port);
    assert!(after.servers.iter().all(|server| server.ends_with(&port)), "{:?}", after.servers);
    remote.until_healthy();
    let agents = new.muster_json(&["agent", "list"]);
    assert!(agents.as_array().unwrap().iter().any(|agent| agent["id"] == after.agent_id.as_str()), "{agents}");
}
