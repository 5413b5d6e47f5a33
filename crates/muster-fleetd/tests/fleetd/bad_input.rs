//! Bad input always gets the form of its plane, and never an empty body.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full};
use muster_core::agent::Family;
use muster_listen::Answer;
use muster_listen::gzip::deflate;
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::setting::{Server, UUID, agent_id, details, orbit_enroll};

const BODIES: [&str; 8] = ["", "{", "[]", "null", "\"x\"", "{}{}", "{\"node_key\":5}", "{\"enroll_secret\":[]}"];

#[tokio::test]
async fn fl4_fl6_fl159_fl160_every_refusal_has_a_body_of_its_plane() {
    let server = Server::start().await;
    for call in
        ["enroll", "config", "distributed/read", "distributed/write", "log", "carve/begin", "carve/block", "", "x"]
    {
        for prefix in ["/api/osquery/", "/api/v1/osquery/"] {
            for method in [Method::POST, Method::GET, Method::PUT, Method::DELETE] {
                for body in BODIES {
                    let got = server.raw(method.clone(), &format!("{prefix}{call}"), &[], body).await;
                    assert!(got.status >= 400 && got.json()["error"].is_string(), "{method} {call} {body}: {got:?}");
                }
            }
        }
    }
    let got = server.raw(Method::POST, "/api/osquery/enroll", &[], "{").await;
    assert_eq!(got.json()["node_invalid"], true);
    for call in [
        "enroll",
        "config",
        "device_token",
        "scripts/request",
        "scripts/result",
        "software_install/details",
        "software_install/package",
        "software_install/result",
        "disk_encryption_key",
        "luks_data",
        "",
    ] {
        for body in BODIES {
            let got = server.raw(Method::POST, &format!("/api/fleet/orbit/{call}"), &[], body).await;
            let json = got.json();
            assert!(got.status >= 400 && json["message"].is_string() && json["errors"][0]["reason"].is_string());
        }
    }
    let wrong = server.raw(Method::GET, "/api/osquery/config", &[], "").await;
    assert_eq!((wrong.status, wrong.headers["allow"].to_str().unwrap()), (405, "POST"));
}

#[tokio::test]
async fn fl22_compressed_logs_are_read_and_a_bomb_is_413() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let gzip = [("content-encoding", "gzip")];
    let body = json!({"node_key": key, "log_type": "result", "data": [{"name": "x"}]}).to_string();
    let got = server.raw(Method::POST, "/api/v1/osquery/log", &gzip, deflate(body.as_bytes())).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
    let bomb = deflate(&vec![b' '; 64 << 20]);
    for call in ["log", "config", "distributed/write", "enroll"] {
        let got = server.raw(Method::POST, &format!("/api/osquery/{call}"), &gzip, bomb.clone()).await;
        assert_eq!((got.status, got.json()["error"].is_string()), (413, true), "{call}");
    }
    let got = server.raw(Method::POST, "/api/osquery/log", &gzip, "not gzip").await;
    assert_eq!((got.status, got.json()["error"].is_string()), (400, true));
    let got = server.raw(Method::POST, "/api/osquery/log", &[("content-encoding", "br")], "x").await;
    assert_eq!((got.status, got.json()["error"].is_string()), (415, true));
}

#[tokio::test]
async fn fl42_bodies_over_the_limit_are_413() {
    let server = Server::start().await;
    for (call, limit) in [("enroll", 1 << 20), ("config", 1 << 20), ("distributed/write", 5 << 20), ("log", 10 << 20)] {
        let got = server.raw(Method::POST, &format!("/api/osquery/{call}"), &[], vec![b' '; limit + 1]).await;
        assert_eq!((got.status, got.json()["error"].is_string()), (413, true), "{call}");
    }
}

/// A body that begins, and does not go on.
struct Stalled(Option<Bytes>);

impl Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |first| Poll::Ready(Some(Ok(Frame::data(first)))))
    }
}

#[tokio::test(start_paused = true)]
async fn fl6_fl42_fl159_a_body_that_stalls_is_408_with_an_error() {
    let server = Server::start().await;
    for (path, beginning) in [
        ("/api/osquery/enroll", "{\"enroll_secret\":"),
        ("/api/v1/osquery/config", ""),
        ("/api/v1/osquery/distributed/write", "{"),
        ("/api/v1/osquery/log", "{\"node_key\":"),
        ("/api/v1/osquery/carve/begin", "{"),
        ("/api/v1/osquery/carve/block", "{\"block_id\":0,"),
        ("/api/fleet/orbit/config", "{"),
    ] {
        let began = Instant::now();
        let request = Request::builder().method(Method::POST).uri(path).body(Stalled(Some(beginning.into())));
        let answer = server.api.handle(request.expect("a request"), Peer::new(ListenerKind::Agent)).await.answer;
        let Answer::Reply(reply) = answer else { panic!("{path}: no reply") };
        assert_eq!((reply.status().as_u16(), began.elapsed().as_secs()), (408, 20), "{path}");
        let body = reply.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let member = if path.contains("osquery") { "error" } else { "message" };
        assert!(
            body[member].is_string() && body.get("node_invalid").is_none_or(|_| path.ends_with("enroll")),
            "{body}"
        );
    }
}

#[tokio::test]
async fn results_with_thousands_of_columns_or_excessive_nesting_change_nothing() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let columns: serde_json::Map<String, Value> =
        (0..10_000).map(|n| (format!("column {n}"), json!("x".repeat(20)))).collect();
    let mut wide = details(&key, "wide");
    wide["queries"]["fleet_detail_query_system_info"] = json!([columns]);
    assert_eq!(server.osquery("distributed/write", &wide).await.status, 200);
    let deep = format!(
        r#"{{"node_key":"{key}","queries":{{"fleet_detail_query_system_info":{}1{}}},"statuses":{{"fleet_detail_query_system_info":0}}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let got = server.raw(Method::POST, "/api/osquery/distributed/write", &[], deep).await;
    assert!(!got.text.is_empty(), "{got:?}");
    let record = server.record(Family::Osquery, UUID).await.unwrap();
    assert_eq!(record.hostname, "web-7");
}

#[tokio::test]
async fn a_refusal_names_the_agent_of_its_request_and_not_the_one_that_used_the_connection_before() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    // What a connection has proved is shared by its requests.
    let connection = Peer::new(ListenerKind::Agent);
    let send = async |path: &str, body: Value| {
        let method = if body.is_null() { Method::GET } else { Method::POST };
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Full::new(Bytes::from(body.to_string()))).expect("a request");
        server.send_from(connection.clone(), request).await.status
    };
    assert_eq!(send("/api/osquery/config", json!({"node_key": key})).await, 200);
    assert!(connection.key().is_some());
    assert_eq!(send("/api/osquery/distributed/read", json!({"node_key": "wrong"})).await, 401);
    assert_eq!(send(&format!("/api/latest/fleet/device/{UUID}/desktop"), Value::Null).await, 401);
    assert_eq!(send("/api/fleet/orbit/enroll", orbit_enroll("wrong", UUID)).await, 401);
    let unknown = json!({"fleet_distributed_query_7": []});
    let results = json!({"node_key": key, "queries": unknown, "statuses": {"fleet_distributed_query_7": 0}});
    assert_eq!(send("/api/osquery/distributed/write", results).await, 200);
    let mut named: Vec<_> = server.fleet.refusals().latest().into_iter().map(|row| row.refused).collect();
    named.sort_by_key(|refused| refused.reason);
    let named: Vec<_> = named.iter().map(|refused| (refused.reason, refused.key.as_deref())).collect();
    let agent = agent_id(Family::Osquery, UUID);
    let expected = [
        ("InvalidDeviceToken", None),
        ("InvalidEnrollSecret", None),
        ("InvalidNodeKey", None),
        ("UnknownQuery", Some(agent.as_str())),
    ];
    assert_eq!(named, expected);
}

#[tokio::test]
async fn fl80_refusals_are_listed_for_administrators_without_secrets() {
    let server = Server::start().await;
    server.osquery("enroll", &crate::setting::osquery_enroll("a-wrong-secret-of-mine", UUID)).await;
    server.osquery("config", &json!({"node_key": "a-wrong-node-key"})).await;
    let text = format!("{:?}", server.fleet.refusals());
    assert!(text.contains("InvalidEnrollSecret") && text.contains("InvalidNodeKey") && text.contains("osquery_enroll"));
    assert!(!text.contains("a-wrong"), "{text}");
}

#[tokio::test]
async fn fl5_fl53_a_missing_key_is_refused_before_missing_fields() {
    let server = Server::start().await;
    let got = server.osquery("carve/begin", &json!({})).await;
    assert_eq!((got.status, got.json()["error"].is_string()), (401, true));
    let got = server.orbit("scripts/result", &json!({})).await;
    assert_eq!(got.status, 401, "{got:?}");
    let secret = server.secret().await;
    let (orbit, osquery) = (server.orbit_key(&secret, UUID).await, server.osquery_key(&secret, UUID).await);
    assert_eq!(server.osquery("carve/begin", &json!({"node_key": osquery})).await.status, 400);
    let result = json!({"orbit_node_key": orbit, "execution_id": "x", "output": ""});
    let got = server.orbit("scripts/result", &result).await;
    assert!(got.status == 400 && got.text.contains("exit_code"), "{got:?}");
}

#[tokio::test]
async fn the_whole_output_of_an_install_is_accepted() {
    let server = Server::start().await;
    let key = server.orbit_key(&server.secret().await, UUID).await;
    let result = |length: usize| {
        json!({"orbit_node_key": key, "install_uuid": "x", "install_script_exit_code": 0,
            "install_script_output": "x".repeat(length)})
    };
    assert_eq!(server.orbit("software_install/result", &result(4 << 20)).await.status, 404, "there is no such install");
    assert_eq!(server.orbit("software_install/result", &result(5 << 20)).await.status, 413);
}
