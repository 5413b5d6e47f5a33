//! Carves: what osqueryd uploads, and what becomes of blocks that do not fit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use muster_core::authorization::{Actor, OpContext};
use muster_core::carve::{Carve, CarveState, KEPT};
use muster_fleet::upload_limits::UploadLimits;
use muster_fleetd::FleetdApiOptions;
use serde_json::{Value, json};

use crate::setting::{Got, Server, UUID};

const OTHER: &str = "4C4C4544-0042-3510-8052-000000000002";
const QUERY: &str = "fleet_distributed_query_9";

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

/// A server with a host.
async fn server() -> (Server, String) {
    let uploads = UploadLimits { max_bytes: 1 << 20, max_bytes_per_agent: 2 << 20, ..UploadLimits::default() };
    let server = Server::start_with(FleetdApiOptions { uploads, ..FleetdApiOptions::default() });
    let key = server.osquery_key(&server.secret().await, UUID).await;
    (server, key)
}

fn announced(key: &str, count: u64, block: u64, size: u64) -> Value {
    json!({"node_key": key, "block_count": count, "block_size": block, "carve_size": size, "carve_id": "a3f",
        "request_id": QUERY})
}

async fn begin(server: &Server, key: &str, count: u64, block: u64, size: u64) -> String {
    let got = server.osquery("carve/begin", &announced(key, count, block, size)).await;
    assert_eq!((got.status, &got.json()["success"]), (200, &json!(true)), "{got:?}");
    got.json()["session_id"].as_str().expect("as expected").to_owned()
}

/// A block, in the exact form of osqueryd.
fn body(session: &str, number: u64, data: &[u8]) -> String {
    let data = STANDARD.encode(data);
    format!(r#"{{"block_id":{number},"session_id":"{session}","request_id":"{QUERY}","data":"{data}"}}"#)
}

async fn send(server: &Server, body: String) -> Got {
    server.raw(Method::POST, "/api/v1/osquery/carve/block", &[], body).await
}

async fn only(server: &Server) -> Carve {
    let mut found = server.fleet.carves().list(&root().grant().expect("as expected")).await.expect("as expected");
    assert_eq!(found.len(), 1);
    found.remove(0)
}

/// Downloads the archive.
async fn content(server: &Server, carve: &Carve) -> Vec<u8> {
    let found = server.fleet.carves().find(&root(), carve.id.as_str()).await.expect("as expected");
    let mut pieces = server.fleet.carves().download(&found).await.expect("as expected");
    let mut all = Vec::new();
    while let Some(piece) = pieces.recv().await {
        all.extend_from_slice(&piece);
    }
    all
}

fn is_refusal(got: &Got, status: u16) {
    assert_eq!(got.status, status, "{got:?}");
    assert!(got.json()["error"].is_string() && got.json().get("node_invalid").is_none(), "FL159: {got:?}");
}

#[tokio::test]
async fn m35_fl39_fl40_the_blocks_of_a_carve_become_the_archive() {
    let (server, key) = server().await;
    for (archive, extension) in
        [(vec![7; 250_001], ".tar"), ([vec![0x28, 0xb5, 0x2f, 0xfd], vec![9; 99_996]].concat(), ".tar.zst")]
    {
        let blocks: Vec<&[u8]> = archive.chunks(100_000).collect();
        let session = begin(&server, &key, blocks.len() as u64, 100_000, archive.len() as u64).await;
        for (number, block) in (0..).zip(&blocks) {
            let got = send(&server, body(&session, number, block)).await;
            assert_eq!((got.status, got.json()), (200, json!({"success": true})), "{number}");
        }
        let carve = only(&server).await;
        assert_eq!((carve.state, carve.query(), carve.hostname.as_str()), (CarveState::Complete, Some("9"), "web-7"));
        assert!(carve.file_name().ends_with(extension), "{}", carve.file_name());
        assert!(content(&server, &carve).await == archive);
        let found = server.fleet.carves().find(&root(), carve.id.as_str()).await.expect("as expected");
        server.fleet.carves().delete(&found).await.expect("as expected");
    }
}

#[tokio::test]
async fn fl1_carves_have_both_prefixes_and_a_server_may_take_what_another_began() {
    let (server, key) = server().await;
    let got = server.post("/api/osquery/carve/begin", &announced(&key, 2, 2, 3)).await;
    let session = got.json()["session_id"].as_str().expect("as expected").to_owned();
    let got = server.raw(Method::POST, "/api/osquery/carve/block", &[], body(&session, 0, b"ab")).await;
    assert_eq!(got.status, 200, "{got:?}");
    let other = server.restarted();
    assert_eq!(send(&other, body(&session, 1, b"c")).await.status, 200);
    assert_eq!(content(&server, &only(&server).await).await, b"abc");
}

#[tokio::test]
async fn fl38_begin_refuses_sizes_that_do_not_fit() {
    let (server, key) = server().await;
    for (count, block, size) in [
        (1, 8, 0),
        (1, 8, 9),
        (2, 8, 8),
        (1, 300 << 20, 1),
        (1, 0, 1),
        (9000 << 10, 1 << 20, 9000 << 30),
        (2, 1 << 20, 2 << 20),
    ] {
        is_refusal(&server.osquery("carve/begin", &announced(&key, count, block, size)).await, 400);
    }
    for bad in [json!({"node_key": key}), json!({"node_key": key, "block_count": -1, "block_size": 1, "carve_size": 1})]
    {
        is_refusal(&server.osquery("carve/begin", &bad).await, 400);
    }
    let unknown = server.osquery("carve/begin", &announced("x", 1, 8, 8)).await;
    assert_eq!((unknown.status, &unknown.json()["node_invalid"]), (401, &json!(true)));
}

#[tokio::test]
async fn fl39_a_block_without_a_session_is_refused_before_its_data_is_read() {
    let (server, key) = server().await;
    let session = begin(&server, &key, 2, 4, 8).await;
    let before = server.commits();
    let wrong_query = body(&session, 0, b"abcd").replace(QUERY, "fleet_distributed_query_8");
    let megabytes = body("x", 0, &vec![7; 20 << 20]);
    let data_first = format!(r#"{{"data":"YWJjZA==","block_id":0,"session_id":"{session}","request_id":"{QUERY}"}}"#);
    for bad in [
        body("x", 0, b"abcd"),
        body("", 0, b"abcd"),
        wrong_query,
        megabytes,
        data_first,
        "{}".into(),
        "x".repeat(1 << 20),
        String::new(),
    ] {
        is_refusal(&send(&server, bad).await, 401);
    }
    let other = server.osquery_key(&server.secret().await, OTHER).await;
    let block = "/api/v1/osquery/carve/block";
    let foreign = format!("NodeKey {other}");
    is_refusal(&server.raw(Method::POST, block, &[("authorization", &foreign)], body(&session, 0, b"abcd")).await, 401);
    assert_eq!(only(&server).await.state, CarveState::Receiving, "a stranger cannot end the carve");
    assert!(server.commits() <= before + 3, "only the enrollment of the other host is written");
    let own = format!("nodekey {key}");
    let got = server.raw(Method::POST, block, &[("authorization", &own)], body(&session, 0, b"abcd")).await;
    assert_eq!(got.status, 200, "{got:?}");
}

#[tokio::test]
async fn fl39_fl165_a_refused_block_ends_the_carve_and_its_reason_is_shown() {
    type Bad = fn(&str) -> String;
    let cases: [(Bad, &str); 7] = [
        (|session: &str| body(session, 2, b"ab"), "received block 2 instead of block 1"),
        (|session: &str| body(session, 0, b"abcd"), "received block 0 instead of block 1"),
        (|session: &str| body(session, 1, b"abcde"), "block 1 has 5 bytes instead of the announced 4"),
        (|session: &str| body(session, 1, b"abc"), "block 1 has 3 bytes instead of the announced 4"),
        (|session: &str| body(session, 1, b"").replace("\"\"", "\"%\""), "block 1 is not base64"),
        (|session: &str| body(session, 1, &vec![7; 9 << 20]), "request body too large"),
        (|session: &str| body(session, 1, b"abcd").replace("\"}", "\""), "the body is not valid"),
    ];
    for (bad, reason) in cases {
        let (server, key) = server().await;
        let session = begin(&server, &key, 3, 4, 9).await;
        assert_eq!(send(&server, body(&session, 0, b"abcd")).await.status, 200);
        let status = if reason.contains("large") { 413 } else { 400 };
        is_refusal(&send(&server, bad(&session)).await, status);
        let carve = only(&server).await;
        assert_eq!(carve.state, CarveState::Failed);
        assert!(carve.error.as_deref().is_some_and(|error| error.contains(reason)), "{carve:?}");
        for number in [1, 2] {
            let got = send(&server, body(&session, number, b"abcd")).await;
            is_refusal(&got, 400);
            assert!(got.text.contains("the carve has ended"), "{got:?}");
        }
    }
}

#[tokio::test]
async fn a_host_has_one_carve_at_a_time_and_unfinished_ones_end_after_a_day() {
    let (server, key) = server().await;
    let first = begin(&server, &key, 2, 4, 8).await;
    let second = begin(&server, &key, 2, 4, 8).await;
    assert_ne!(first, second);
    is_refusal(&send(&server, body(&first, 0, b"abcd")).await, 400);
    assert_eq!(send(&server, body(&second, 0, b"abcd")).await.status, 200);
    server.clock.advance(KEPT + std::time::Duration::from_secs(1));
    server.fleet.housekeeping().run().await;
    is_refusal(&send(&server, body(&second, 1, b"abcd")).await, 400);
    let found = server.fleet.carves().list(&root().grant().expect("as expected")).await.expect("as expected");
    assert!(found.iter().all(|carve| carve.state == CarveState::Failed), "{found:?}");
}

#[tokio::test]
async fn the_archives_of_a_host_are_limited_and_a_failing_store_keeps_the_carve() {
    let (server, key) = server().await;
    for _ in 0..2 {
        let session = begin(&server, &key, 1, 1 << 20, 1 << 20).await;
        assert_eq!(send(&server, body(&session, 0, &vec![1; 1 << 20])).await.status, 200);
    }
    let got = server.osquery("carve/begin", &announced(&key, 1, 8, 8)).await;
    assert!(got.status == 400 && got.text.contains("delete older carves"), "{got:?}");
    let other = server.osquery_key(&server.secret().await, OTHER).await;
    let session = begin(&server, &other, 1, 8, 8).await;
    server.switch_off(true);
    is_refusal(&send(&server, body(&session, 0, b"abcdefgh")).await, 503);
    server.switch_off(false);
    assert_eq!(send(&server, body(&session, 0, b"abcdefgh")).await.status, 200);
}
