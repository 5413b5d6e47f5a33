//! Logs of osquery, and their destination.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::error_chain::SharedError;
use muster_core::fleetd::log_lines::{LogType, MAX_LINES};
use muster_fleet::host_logs::LogDestination;
use muster_fleet::packs::PackDraft;
use serde_json::{Value, json};

use crate::setting::{Server, UUID, agent_id};

/// A destination in memory that can fail.
#[derive(Default)]
struct Kept {
    lines: Mutex<Vec<(LogType, Value)>>,
    fails: AtomicBool,
}

#[async_trait]
impl LogDestination for Kept {
    async fn store(&self, kind: LogType, lines: String) -> Result<(), SharedError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err("disk full: /secret/path".into());
        }
        let lines = lines.lines().map(|line| (kind, serde_json::from_str(line).expect("JSON")));
        self.lines.lock().expect("not poisoned").extend(lines);
        Ok(())
    }
}

impl Kept {
    fn take(&self) -> Vec<(LogType, Value)> {
        std::mem::take(&mut self.lines.lock().expect("not poisoned"))
    }
}

async fn server() -> (Server, Arc<Kept>, String) {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let kept = Arc::new(Kept::default());
    server.fleet.host_logs().use_destination(kept.clone());
    (server, kept, key)
}

#[tokio::test]
async fn m35_fl20_fl162_lines_reach_the_destination_with_their_host() {
    let (server, kept, key) = server().await;
    let known = json!({"name": "pack/Global/os", "hostIdentifier": UUID, "unixTime": 1, "columns": {"a": "b"}});
    let data = json!([known, 5, {"columns": {}}, {"name": "unknown", "snapshot": []}]);
    let got = server.osquery("log", &json!({"node_key": key, "log_type": "result", "data": data})).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
    let lines = kept.take();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((lines[0].0, &lines[0].1["line"]), (LogType::Result, &known), "as it was");
    assert_eq!(lines[0].1["agent_id"], agent_id(Family::Osquery, UUID).as_str());
    let host = server.record(Family::Osquery, UUID).await.expect("enrolled").host_id.expect("on a host");
    assert_eq!((&lines[0].1["host_id"], &lines[0].1["space"]), (&json!(host.as_str()), &json!("default")));
    let status = json!([{"severity": "0", "line": "7", "unixTime": "1", "message": "m"}]);
    server.osquery("log", &json!({"node_key": key, "log_type": "status", "data": status})).await;
    assert_eq!(kept.take()[0].0, LogType::Status);
}

#[tokio::test]
async fn fl162_results_of_a_pack_for_other_hosts_are_dropped() {
    let (server, kept, key) = server().await;
    let document = "queries:\n  x: {query: SELECT 1, interval: 60}\n";
    let context = OpContext::administrator(Actor::System);
    for (name, platform) in [("mac", "darwin"), ("here", "linux")] {
        let platforms = vec![platform.to_owned()];
        let draft = PackDraft { name: name.into(), platforms, document: document.into(), ..PackDraft::default() };
        server.fleet.packs().save(&context, draft).await.expect("a valid pack");
    }
    let named = |name: &str| json!({"name": name, "columns": {}});
    let data = json!([named("pack/mac/x"), named("pack/here/x"), named("pack/mac/deleted"), named("pack/gone/x")]);
    let got = server.osquery("log", &json!({"node_key": key, "log_type": "result", "data": data})).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
    let names: Vec<Value> = kept.take().into_iter().map(|(_, line)| line["line"]["name"].clone()).collect();
    assert_eq!(names, ["pack/here/x", "pack/mac/deleted", "pack/gone/x"]);
}

#[tokio::test]
async fn fl23_a_failure_of_the_destination_is_an_error_and_the_lines_arrive_later() {
    let (server, kept, key) = server().await;
    let body = json!({"node_key": key, "log_type": "result", "data": [{"name": "x"}]});
    kept.fails.store(true, Ordering::SeqCst);
    let got = server.osquery("log", &body).await;
    assert_eq!(got.status, 503);
    assert!(got.json()["error"].is_string() && got.json().get("node_invalid").is_none(), "{got:?}");
    assert!(!got.text.contains("secret"), "{got:?}");
    kept.fails.store(false, Ordering::SeqCst);
    assert_eq!(server.osquery("log", &body).await.text, "{}");
    assert_eq!(kept.take().len(), 1);
}

#[tokio::test]
async fn a_request_with_too_many_lines_is_refused_as_a_whole() {
    let (server, kept, key) = server().await;
    let lines = vec![json!({}); MAX_LINES + 1];
    let got = server.osquery("log", &json!({"node_key": key, "log_type": "status", "data": lines})).await;
    assert!(got.status == 400 && got.json()["error"].is_string(), "{got:?}");
    assert!(kept.take().is_empty());
}
