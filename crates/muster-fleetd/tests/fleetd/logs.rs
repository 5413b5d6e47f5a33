//! Lines of osquery's logs, and their destination.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use muster_core::{Error, ErrorKind};
use muster_fleetd::logs::{LogDestination, LogKind, Storing};
use serde_json::json;

use crate::setting::{Server, UUID};

/// Keeps lines, or fails.
#[derive(Default)]
struct Kept {
    lines: Mutex<Vec<(LogKind, String)>>,
    fails: AtomicBool,
}

impl LogDestination for Kept {
    fn store(&self, kind: LogKind, lines: Vec<u8>) -> Storing<'_> {
        let stored = if self.fails.load(Ordering::SeqCst) {
            Err(Error::new(ErrorKind::Unavailable, "full", "/var/log/secret is full"))
        } else {
            self.lines.lock().expect("not poisoned").push((kind, String::from_utf8(lines).expect("text")));
            Ok(())
        };
        Box::pin(std::future::ready(stored))
    }
}

#[tokio::test]
async fn fl23_lines_reach_the_destination_and_its_failure_is_an_error() {
    let kept = Arc::new(Kept::default());
    let server = Server::with_logs(Some(kept.clone())).await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    let line = json!({"name": "pack/Global/users", "columns": {"username": "eve"}, "action": "added"});
    let body = json!({"node_key": key, "log_type": "result", "data": [line, 5, {"columns": {}}]});
    let stored = || kept.lines.lock().expect("not poisoned").clone();
    assert_eq!(server.osquery("log", &body).await.text, "{}");
    assert_eq!(stored(), [(LogKind::Result, format!("{line}\n"))], "FL162");
    kept.fails.store(true, Ordering::SeqCst);
    let refused = server.osquery("log", &body).await;
    assert_eq!(refused.status, 503);
    assert!(refused.json()["error"].is_string() && refused.json().get("node_invalid").is_none(), "{refused:?}");
    assert!(!refused.text.contains("/var/log"));
    kept.fails.store(false, Ordering::SeqCst);
    let status =
        json!({"node_key": key, "log_type": "status", "data": [{"severity": "0", "unixTime": "1", "line": "7"}]});
    assert_eq!(server.osquery("log", &status).await.status, 200);
    assert_eq!(stored()[1].0, LogKind::Status);
    assert_eq!(server.osquery("log", &json!({"node_key": key, "log_type": "x", "data": []})).await.status, 400, "FL20");
    assert_eq!(stored().len(), 2);
}
