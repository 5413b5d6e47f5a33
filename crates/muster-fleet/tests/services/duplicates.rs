//! Detection of two hosts that use one agent's key.

use std::sync::Arc;

use muster_fleet::registry::AgentEntry;
use muster_store::query::{AgentCondition, AgentFilter};

use crate::setting::{Setting, parked};

async fn check_in(setting: &Setting, entry: &Arc<AgentEntry>, host: &str) -> muster_fleet::check_in::HeldPoll {
    let metadata = format!(r#"{{"host":{{"id":"{host}","hostname":"web"}}}}"#);
    let body = format!(r#"{{"status":"online","message":"Running","local_metadata":{metadata}}}"#);
    parked(setting.check_in(entry, &body).await)
}

/// Number of agents that the filter finds, and of audit events.
async fn found(setting: &Setting) -> (usize, usize) {
    let filter = AgentFilter::all([AgentCondition::HasDuplicateHosts]);
    let agents = setting.store().agent_ids(&filter, None, 10).await.expect("readable").len();
    let lines = setting.store().audit_events(0, 1000).await.expect("readable");
    (agents, lines.iter().filter(|(_, json, _)| json.contains("agent.duplicate_hosts")).count())
}

#[tokio::test]
async fn alternating_hosts_are_reported_once_and_found_by_a_filter() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    for host in ["one", "one", "two"] {
        drop(check_in(&setting, &entry, host).await);
    }
    assert_eq!(found(&setting).await, (0, 0), "a host may be reinstalled");
    for host in ["one", "two", "one", "two"] {
        drop(check_in(&setting, &entry, host).await);
    }
    assert_eq!(found(&setting).await, (1, 1));
    assert_eq!(setting.stored("a").await.duplicate_hosts.expect("known").hosts, ["one", "two"]);
}

#[tokio::test]
async fn second_host_during_a_held_poll_is_detected() {
    let setting = Setting::new();
    let key = setting.agent("a", None).await;
    let entry = setting.entry("a", &key).await;
    let _held = check_in(&setting, &entry, "one").await;
    drop(check_in(&setting, &entry, "two").await);
    assert_eq!(found(&setting).await, (1, 1));
}
