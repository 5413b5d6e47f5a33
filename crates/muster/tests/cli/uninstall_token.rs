//! `muster uninstall-token`.

use crate::world::{fails, file, json, new_policy, ok};

#[test]
fn uninstall_tokens_are_listed_shown_and_rotated() {
    let policy = new_policy("guarded");
    let listed = json(&["uninstall-token", "list", "--search", "guarded"]);
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    assert_eq!((&listed[0]["policy_id"], listed[0].get("token")), (&policy.into(), None));
    let shown = json(&["uninstall-token", "show", &id]);
    assert_eq!(shown["token"].as_str().unwrap().len(), 32);
    assert!(ok(&["uninstall-token", "show", &id]).contains(shown["token"].as_str().unwrap()));
    assert!(fails(1, &["uninstall-token", "rotate", "guarded", "--yes"]).contains("is not protected"));
    let (_directory, path) = file("guarded.yml", "name: guarded\nsettings: {is_protected: true}\n");
    ok(&["policy", "apply", "-f", &path]);
    fails(2, &["uninstall-token", "rotate", "guarded"]);
    ok(&["uninstall-token", "rotate", "guarded", "--yes"]);
    let next = ok(&["uninstall-token", "list", "--search", "guarded", "--output", "name"]);
    assert_ne!(next.trim(), id);
    assert_eq!(json(&["uninstall-token", "show", &id])["token"], shown["token"], "agents that are offline need it");
}

#[test]
fn a_recovery_code_is_printed_once_and_replaced_or_removed_after_confirmation() {
    new_policy("recoverable");
    assert!(fails(1, &["policy", "recovery-code", "recoverable"]).contains("set is_protected first"));
    let (_directory, path) = file("recoverable.yml", "name: recoverable\nsettings: {is_protected: true}\n");
    ok(&["policy", "apply", "-f", &path]);
    let first = ok(&["policy", "recovery-code", "recoverable"]);
    assert_eq!((first.trim().len(), first.matches('-').count(), first.lines().count()), (23, 3, 1), "{first}");
    assert_eq!(json(&["policy", "show", "recoverable"])["has_recovery_code"], true);
    assert!(!ok(&["policy", "show", "recoverable", "--full", "--output", "yaml"]).contains(first.trim()));
    fails(2, &["policy", "recovery-code", "recoverable"]);
    assert_ne!(ok(&["policy", "recovery-code", "recoverable", "--yes"]), first);
    fails(2, &["policy", "recovery-code", "recoverable", "--remove"]);
    ok(&["policy", "recovery-code", "recoverable", "--remove", "--yes"]);
    assert!(fails(3, &["policy", "recovery-code", "recoverable", "--remove", "--yes"]).contains("not found"));
}
