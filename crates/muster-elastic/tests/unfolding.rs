//! Memory of a small request that expands into millions of values. A single test in a process of its own, because it
//! measures the peak memory of the process.

#![cfg(target_os = "linux")]

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use muster_core::reported::METADATA_NODES;
use muster_elastic::{AgentApi, AgentApiOptions};
use muster_fleet::health::ServerState;
use muster_fleet::testing::TestFleet;
use muster_listen::gzip::deflate;
use muster_listen::reply::{Answer, ListenerKind, Peer};
use serde_json::{Value, json};

/// Maximum rise of the peak for a body of 20 MB: the inflated body, and space for the allocator.
const ROOM: usize = 64 << 20;

/// Peak resident memory of the process in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

struct Server {
    api: AgentApi,
    test: TestFleet,
}

impl Server {
    async fn post(&self, path: &str, token: &str, body: Vec<u8>, gzip: bool) -> (u16, Value) {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("authorization", format!("ApiKey {token}"))
            .header("user-agent", "Elastic Agent v9.5.2");
        if gzip {
            request = request.header("content-encoding", "gzip");
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let peer = Peer { address: Some(([192, 0, 2, 1], 5000).into()), tls: true, ..Peer::new(ListenerKind::Agent) };
        match self.api.handle(request, peer).await.answer {
            Answer::Reply(reply) => {
                let status = reply.status().as_u16();
                let bytes = reply.into_body().collect().await.expect("a body").to_bytes();
                (status, serde_json::from_slice(&bytes).unwrap_or_default())
            }
            Answer::Park(_) | Answer::Upgrade(_) => (200, Value::Null),
        }
    }
}

/// A check-in with one field of 20 MB that repeats `unit`.
fn bomb(field: &str, unit: &str) -> Vec<u8> {
    let many = unit.repeat((19 << 20) / unit.len());
    let text = format!(r#"{{"status":"online","{field}":{}0]}}"#, many.replacen(unit, &format!("[{unit}"), 1));
    deflate(text.as_bytes())
}

#[tokio::test]
async fn a_body_that_expands_costs_no_more_than_its_size() {
    let options = AgentApiOptions::default();
    options.health.set(ServerState::Healthy);
    let test = TestFleet::default();
    let server = Server { api: AgentApi::new(Arc::clone(&test.fleet), options), test };
    let key = server.test.add_key(None, |_| {}).await.token();
    let enroll = json!({"type": "PERMANENT"}).to_string().into_bytes();
    let (status, reply) = server.post("/api/fleet/agents/enroll", &key, enroll, false).await;
    assert_eq!(status, 200, "{reply}");
    let (id, token) = (reply["item"]["id"].as_str().unwrap(), reply["item"]["access_api_key"].as_str().unwrap());
    let path = format!("/api/fleet/agents/{id}/checkin");
    // Warm-up: allocates the inflater and the store's buffers, which are kept.
    let plain = format!(r#"{{"status":"online","message":"{}"}}"#, "x".repeat(900_000));
    assert_eq!(server.post(&path, token, deflate(plain.as_bytes()), true).await.0, 200);

    let unit = r#"{"":{"":{"":0}}},"#;
    let fields = ["local_metadata", "components", "upgrade", "upgrade_details", "unknown"];
    let bombs = fields.map(|field| (field, bomb(field, unit)));
    let long = deflate(format!(r#"{{"status":"online","message":"{}"}}"#, "m".repeat(19 << 20)).as_bytes());
    let before = peak();
    for (field, body) in bombs {
        assert!(body.len() < 400_000, "{} bytes on the wire", body.len());
        let (status, reply) = server.post(&path, token, body, true).await;
        assert_eq!(status, 400, "{field}: {reply}");
        assert!(
            reply["message"].as_str().unwrap().starts_with(&format!("Bad request: {field}: too many values")),
            "{reply}"
        );
    }
    assert_eq!(server.post(&path, token, long, true).await.0, 200);
    let risen = peak() - before;
    assert!(risen < ROOM, "the peak rose by {} MiB", risen >> 20);
    let stored = server.test.stored(id).await;
    assert!(stored.health.message.len() <= 8192);

    // Lists and a restart read the largest accepted document as text.
    let nested = vec![json!({"": {"": {"": 0}}}); METADATA_NODES / 4 - 1];
    let body = json!({"status": "online", "local_metadata": {"a": nested}}).to_string();
    assert_eq!(server.post(&path, token, deflate(body.as_bytes()), true).await.0, 200);
}
