//! `verify-unprotected`: what protects an agent, and what does not.

use serde_json::Value;

use crate::install::protected;
use crate::server::TlsServer;
use crate::{Agent, mode};

/// Returns the exit code and the names of the findings with this verdict.
fn findings(agent: &Agent, verdict: &str) -> (i32, Vec<String>) {
    let (code, text) = agent.installed(&["verify-unprotected", "--output", "json"]);
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["protected"], code == 0, "{found}");
    let all = found["findings"].as_array().unwrap().iter();
    let named = all.filter(|finding| finding["verdict"] == verdict).map(|finding| finding["check"].as_str().unwrap());
    (code, named.map(str::to_owned).collect())
}

#[test]
fn ag142_verify_unprotected_names_what_protects_the_host_and_what_does_not() {
    let server = TlsServer::start();
    let agent = Agent::new();
    let (code, text) = crate::output(&mut agent.command("verify-unprotected"));
    assert_eq!(code, 12, "no agent: {text}");
    let daemon = protected(&server, &agent);
    // The test server does not sign, and there is no service manager.
    assert_eq!(findings(&agent, "gap"), (15, vec!["signatures".to_owned(), "service".into()]));
    assert!(findings(&agent, "protects").1.contains(&"uninstall_token".to_owned()));
    assert!(findings(&agent, "limit").1.contains(&"root".to_owned()));
    let (code, text) = agent.installed(&["verify-unprotected"]);
    assert!(code == 15 && text.contains("NOT protected") && text.contains("gap       service: "), "{code} {text}");
    drop(daemon);
    let fleet = agent.path("fleet.enc");
    std::fs::set_permissions(&fleet, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(mode(&fleet), 0o644);
    let gaps = ["signatures", "files", "service", "daemon"].map(str::to_owned).to_vec();
    assert_eq!(findings(&agent, "gap"), (15, gaps), "without a daemon, and with a readable secret");
}
