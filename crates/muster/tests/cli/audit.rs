//! `muster audit …`

use crate::world::{fails, json, new_policy, ok};

#[test]
fn what_was_done_is_listed_and_the_log_is_intact() {
    let policy = new_policy("audited");
    let subject = format!("policy:{policy}");
    let listed = json(&["audit", "list", "--subject", &subject]);
    assert_eq!((&listed[0]["action"], listed.as_array().unwrap().len()), (&"policy.create".into(), 1));
    let table = ok(&["audit", "list", "--action", "policy.create", "--limit", "1"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    fails(2, &["audit", "list", "--since", "yesterday"]);
    let told = ok(&["audit", "verify"]);
    assert!(told.starts_with("intact     yes\n"), "{told}");
    assert_eq!(json(&["audit", "verify"])["intact"], true);
}
