//! `muster audit …`

use crate::world::{fails, json, new_policy, ok};

#[test]
fn audit_events_are_listed_and_the_log_is_verified() {
    let policy = new_policy("audited");
    let subject = format!("policy:{policy}");
    let listed = json(&["audit", "list", "--subject", &subject]);
    assert_eq!((&listed[0]["action"], listed.as_array().unwrap().len()), (&"policy.create".into(), 1));
    let table = ok(&["audit", "list", "--action", "policy.create", "--limit", "1"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    let actor = listed[0]["actor"].as_str().unwrap();
    let by = ok(&["audit", "list", "--actor", actor, "--subject", &subject, "--output", "name"]);
    assert_eq!(by.trim(), listed[0]["seq"].to_string());
    let before = ["audit", "list", "--subject", &subject, "--until", "2020-01-01T00:00:00Z", "--output", "name"];
    assert_eq!(ok(&before), "");
    fails(2, &["audit", "list", "--since", "yesterday"]);
    let told = ok(&["audit", "verify"]);
    assert!(told.starts_with("intact     yes\n"), "{told}");
    let head = ok(&["audit", "verify", "--output", "name"]);
    assert_eq!(head.trim().len(), 64, "{head}");
}
