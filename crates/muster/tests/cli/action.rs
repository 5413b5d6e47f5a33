//! `muster action …`

use crate::agents::fleet;
use crate::world::{fails, json, ok};

#[test]
fn a_wait_follows_an_action_until_it_ends() {
    let (_, agents) = fleet("follow", &["follow-1", "follow-2"]);
    let action = ok(&["agent", "log-level", "follow-1", "follow-2", "--level", "info", "--yes"]);
    let action = action.trim();
    assert!(ok(&["action", "list", "--limit", "10000", "-o", "name"]).lines().any(|id| id == action));
    agents[0].take("SETTINGS", None);
    let shown = json(&["action", "show", action]);
    assert_eq!((&shown["action"]["status"], &shown["action"]["nbAgentsAck"]), (&"IN_PROGRESS".into(), &1.into()));
    agents[1].take("SETTINGS", None);
    assert_eq!(ok(&["action", "wait", action, "--timeout", "18446744073709551615"]), "");
    ok(&["action", "list", "--latest", "9223372036854775807d"]);
    let table = ok(&["action", "show", action]);
    assert!(table.contains("status     COMPLETE"), "{table}");
    assert_eq!(table.lines().filter(|line| line.contains("acked") && line.contains("follow-")).count(), 2, "{table}");
    assert!(ok(&["action", "show", action, "-o", "wide"]).contains("FIELDS"));
    let one = json(&["action", "show", action, "--limit", "1"]);
    assert_eq!(one["results"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_failure_is_printed_with_agent_and_reason() {
    let (_, agents) = fleet("broken", &["broken-1"]);
    let action = ok(&["agent", "log-level", "broken-1", "--level", "info"]);
    agents[0].take("SETTINGS", Some("disk full"));
    let told = fails(1, &["action", "wait", action.trim()]);
    let who = format!("is failed: 0 acked, 1 failed, of 1; agent {}: disk full", agents[0].id);
    assert!(told.contains(&who), "{told}");
    assert!(ok(&["action", "show", action.trim()]).contains("disk full"));
}

#[test]
fn a_canceled_action_is_not_executed() {
    let (_, agents) = fleet("withdraw", &["withdraw-1", "withdraw-2"]);
    let ids = [agents[0].id.as_str(), agents[1].id.as_str()];
    let upgrade = |more: &[&str]| ok(&[&["agent", "upgrade", "--version", "9.5.3"], more].concat());
    let action = upgrade(&[ids[0], ids[1], "--yes"]);
    let action = action.trim();
    assert_eq!(ok(&["action", "cancel", action, "--dry-run"]), "would cancel UPGRADE for 2 agents\n");
    let told = fails(2, &["action", "cancel", action]);
    assert!(told.contains("Cancel UPGRADE for 2 agents? Nothing was changed"), "{told}");
    assert_eq!(json(&["action", "show", action])["action"]["status"], "IN_PROGRESS");
    ok(&["action", "cancel", action, "--yes"]);
    let shown = json(&["action", "show", action]);
    assert_eq!(shown["action"]["status"], "CANCELLED");
    assert_eq!(agents[0].take("CANCEL", None)["data"]["target_id"], action);
    let told = fails(1, &["action", "wait", action]);
    assert!(told.contains("is cancelled"), "{told}");
    // For one agent there is nothing to ask.
    let action = ok(&["agent", "unenroll", ids[1]]);
    ok(&["action", "cancel", action.trim()]);
    // What agents do at once can't be taken back, and that is said.
    let action = ok(&["agent", "log-level", ids[0], "--level", "info"]);
    let told = fails(2, &["action", "cancel", action.trim()]);
    assert!(told.contains("SETTINGS cannot be cancelled; only UPGRADE and UNENROLL can"), "{told}");
    assert_eq!(fails(2, &["action", "cancel", action.trim(), "--dry-run"]), told);
}

#[test]
fn actions_are_listed_by_filter() {
    let (policy, agents) = fleet("sought", &["sought-1", "sought-2"]);
    let (one, two) = (agents[0].id.as_str(), agents[1].id.as_str());
    let action = |words: &[&str]| ok(words).trim().to_owned();
    let level = action(&["agent", "log-level", one, "--level", "info"]);
    let both = action(&["agent", "log-level", one, two, "--level", "debug", "--yes"]);
    let upgrade = action(&["agent", "upgrade", two, "--version", "9.5.3"]);
    ok(&["agent", "reassign", one, "--no-policy"]);
    let back = action(&["agent", "reassign", one, "--policy", &policy]);
    let found = |filter: &str| -> Vec<String> {
        let out = ok(&["action", "list", "--filter", filter, "--limit", "10000", "-o", "name"]);
        let mut ids: Vec<String> = out.lines().map(str::to_owned).collect();
        ids.retain(|id| [&level, &both, &upgrade, &back].contains(&id));
        ids
    };
    assert_eq!(found(&format!("agent_id:\"{one}\" and type:settings")), [both.as_str(), &level]);
    assert_eq!(found(&format!("agent_id:{two}")), [upgrade.as_str(), &both]);
    assert_eq!(found(&format!("policy_id:\"{policy}\"")), [back.as_str()]);
    assert_eq!(found(&format!("type:(UPGRADE or POLICY_REASSIGN) and not policy_id:\"{policy}\"")), [upgrade.as_str()]);
    assert_eq!(found(&format!("id:\"{level}\" or id:{both}")).len(), 2);
    agents[0].take("SETTINGS", None);
    agents[0].take("SETTINGS", Some("disk full"));
    assert_eq!(found(&format!("status:in_progress and agent_id:{one} and type:SETTINGS")), [both.as_str()]);
    let failed = json(&["action", "list", "--filter", "status:FAILED or status:IN_PROGRESS", "--limit", "10000"]);
    assert!(failed.to_string().contains("disk full"), "errors come with what was filtered too");
    let told = fails(2, &["action", "list", "--filter", "colour:red"]);
    assert!(told.contains("unknown field \"colour\"") && told.contains("created_by"), "{told}");
}
