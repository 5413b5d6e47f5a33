//! `verify-unprotected`: what protects an agent, and what does not.

use serde_json::Value;

use crate::Agent;
use crate::install::protected;
use crate::server::TlsServer;

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
    assert_eq!(code, 13, "no agent: {text}");
    let daemon = protected(&server, &agent);
    // The test server does not sign, and there is no service manager.
    assert_eq!(findings(&agent, "gap"), (15, vec!["signatures".to_owned(), "service".into()]));
    assert!(findings(&agent, "protects").1.contains(&"uninstall_token".to_owned()));
    assert!(findings(&agent, "limit").1.contains(&"root".to_owned()));
    let (code, text) = agent.installed(&["verify-unprotected"]);
    assert!(code == 15 && text.contains("NOT protected") && text.contains("gap       service: "), "{code} {text}");
    drop(daemon);
    let gaps = |names: &[&str]| (15, names.iter().map(ToString::to_string).collect());
    for (name, open, private) in [("fleet.enc", 0o644, 0o600), ("versions", 0o770, 0o700)] {
        let set = |mode| {
            std::fs::set_permissions(agent.path(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        set(open);
        assert_eq!(findings(&agent, "gap"), gaps(&["signatures", "files", "service", "daemon"]), "{name}");
        set(private);
    }
    assert_eq!(findings(&agent, "gap"), gaps(&["signatures", "service", "daemon"]));
}
