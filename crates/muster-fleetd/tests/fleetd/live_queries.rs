//! Live queries: how hosts get them, and what becomes of their answers.

use std::time::Duration;

use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext, RefusalsRead};
use muster_core::id::SpaceId;
use muster_core::live_query::{LiveQuery, LiveResult};
use muster_fleet::live_queries::{NewLiveQuery, QuerySource};
use muster_store::query::AgentFilter;
use serde_json::{Value, json};

use crate::setting::{Server, UUID, agent_id, details};

const OTHER: &str = "4C4C4544-0042-3510-8052-000000000002";
const SQL: &str = "SELECT * FROM processes;";

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

fn new(hosts: &[&str]) -> NewLiveQuery {
    NewLiveQuery {
        sql: QuerySource::Sql(SQL.to_owned()),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        labels: Vec::new(),
        filter: AgentFilter::default(),
        timeout: Duration::from_secs(60),
    }
}

async fn run(server: &Server, hosts: &[&str]) -> LiveQuery {
    server.fleet.live_queries().create(&root(), new(hosts)).await.expect("as expected").query
}

async fn stored(server: &Server, query: &LiveQuery) -> (LiveQuery, Vec<LiveResult>) {
    let found = server.fleet.live_queries().find(&root(), query.id.as_str()).await.expect("as expected");
    let results = server.fleet.live_queries().results(&found, 0, 100).await.expect("as expected");
    (found.into_inner(), results)
}

fn name(query: &LiveQuery) -> String {
    format!("fleet_distributed_query_{}", query.id)
}

async fn read(server: &Server, key: &str) -> Value {
    let got = server.osquery("distributed/read", &json!({"node_key": key})).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()
}

async fn write(server: &Server, key: &str, query: &str, rows: Value, status: Value, message: &str) -> u16 {
    let body =
        json!({"node_key": key, "queries": {query: rows}, "statuses": {query: status}, "messages": {query: message}});
    let got = server.osquery("distributed/write", &body).await;
    assert_eq!(got.text, if got.status == 200 { "{}" } else { got.text.as_str() });
    got.status
}

/// A server with a host that has nothing else to report.
async fn server() -> (Server, String) {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    assert_eq!(server.osquery("distributed/write", &details(&key, "web-7")).await.status, 200);
    (server, key)
}

fn refusals(server: &Server) -> Vec<(&'static str, u64)> {
    let grant = root().grant::<RefusalsRead>().expect("as expected");
    server.fleet.refusals().list(&grant).into_iter().map(|row| (row.refused.reason, row.count)).collect()
}

#[tokio::test]
async fn m35_fl24_fl35_a_live_query_is_given_until_it_is_answered() {
    let (server, key) = server().await;
    let query = run(&server, &[]).await;
    let name = name(&query);
    for _ in 0..2 {
        let given = read(&server, &key).await;
        assert_eq!((&given["queries"], &given["discovery"]), (&json!({&name: SQL}), &json!({&name: "SELECT 1"})));
    }
    assert_eq!(write(&server, &key, &name, json!([{"pid": "1"}, {"pid": "2"}]), json!(0), "").await, 200);
    assert_eq!(read(&server, &key).await["queries"], json!({}));
    let (ended, results) = stored(&server, &query).await;
    assert_eq!((ended.state(), ended.answered, ended.rows), ("complete", 1, 2));
    assert_eq!((results.len(), results[0].hostname.as_str()), (1, "web-7"));
    assert_eq!(results[0].answer.rows, r#"[{"pid":"1"},{"pid":"2"}]"#);
    // osqueryd sends results again if the response was lost.
    assert_eq!(write(&server, &key, &name, json!([{"pid": "9"}]), json!(0), "").await, 200);
    assert_eq!(stored(&server, &query).await, (ended, results), "FL34");
    assert_eq!(refusals(&server), []);
}

#[tokio::test]
async fn hosts_that_have_not_answered_when_a_live_query_ends_are_named() {
    let (server, key) = server().await;
    let mut other = crate::setting::osquery_enroll(&server.secret().await, OTHER);
    other["host_details"]["system_info"]["hostname"] = json!("silent-host");
    assert_eq!(server.osquery("enroll", &other).await.status, 200);
    let query = run(&server, &[]).await;
    assert_eq!(write(&server, &key, &name(&query), json!([{"pid": "1"}]), json!(0), "").await, 200);
    let view = async || {
        let found = server.fleet.live_queries().find(&root(), query.id.as_str()).await.expect("as expected");
        server.fleet.live_queries().view(&found).await.expect("a view")
    };
    assert!(view().await.silent.is_empty(), "it runs");
    let found = server.fleet.live_queries().find(&root(), query.id.as_str()).await.expect("as expected");
    server.fleet.live_queries().stop(&found).await.expect("as expected");
    assert_eq!(view().await.silent, ["silent-host"]);
}

#[tokio::test]
async fn the_audit_log_tells_which_hosts_a_live_query_was_for() {
    let (server, _) = server().await;
    run(&server, &["web-7"]).await;
    let detail = server.events("live_query.run").await[0]["detail"].clone();
    let agents = json!([agent_id(Family::Osquery, UUID)]);
    assert_eq!((&detail["hosts"], &detail["labels"], &detail["agents"]), (&json!(["web-7"]), &json!([]), &agents));
}

#[tokio::test]
async fn a_read_that_finds_nothing_neither_reads_nor_writes_the_store() {
    let (server, key) = server().await;
    server.osquery_key(&server.secret().await, OTHER).await;
    let query = run(&server, &[OTHER]).await;
    server.switch_off(true);
    assert_eq!(read(&server, &key).await["queries"], json!({}), "FL28, and asked of another host only");
    server.switch_off(false);
    assert_eq!(query.targets, 1);
}

#[tokio::test]
async fn fl28_detail_queries_are_given_while_the_store_of_live_queries_fails() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    // A host that comes online is written, after which reads need no store.
    read(&server, &key).await;
    run(&server, &[]).await;
    server.switch_off(true);
    let given = read(&server, &key).await;
    assert!(given["queries"]["fleet_detail_query_system_info"].is_string(), "{given}");
}

#[tokio::test]
async fn fl37_a_failed_or_denylisted_query_is_shown_with_its_message() {
    let (server, key) = server().await;
    let query = run(&server, &["web-7"]).await;
    let denied = "distributed query is denylisted";
    assert_eq!(write(&server, &key, &name(&query), json!([]), json!("1"), denied).await, 200);
    let (ended, results) = stored(&server, &query).await;
    assert_eq!((ended.answered, ended.failed, ended.rows), (1, 1, 0));
    assert_eq!(results[0].answer.error.as_deref(), Some(denied));
}

#[tokio::test]
async fn fl164_results_that_were_never_asked_are_dropped_and_counted() {
    let (server, key) = server().await;
    server.osquery_key(&server.secret().await, OTHER).await;
    let query = run(&server, &[OTHER]).await;
    let made_up = "fleet_distributed_query_00000000-0000-4000-8000-000000000000";
    for name in [made_up, "fleet_distributed_query_", &name(&query)] {
        assert_eq!(write(&server, &key, name, json!([{"a": "1"}]), json!(0), "").await, 200);
    }
    assert_eq!(refusals(&server), [("UnknownQuery", 3)]);
    let (query, results) = stored(&server, &query).await;
    assert_eq!((query.answered, results.len()), (0, 0));
    // Other names are ignored, and details in the same request are kept.
    assert_eq!(write(&server, &key, "no_prefix", json!([{"a": "1"}]), json!(0), "").await, 200);
    assert_eq!(refusals(&server), [("UnknownQuery", 3)]);
}

#[tokio::test]
async fn a_live_query_that_timed_out_or_was_stopped_is_not_given_any_more() {
    let (server, key) = server().await;
    let (timed, stopped) = (run(&server, &[]).await, run(&server, &[]).await);
    let found = server.fleet.live_queries().find(&root(), stopped.id.as_str()).await.expect("as expected");
    assert_eq!(server.fleet.live_queries().stop(&found).await.expect("as expected").state(), "stopped");
    assert_eq!(read(&server, &key).await["queries"], json!({name(&timed): SQL}));
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(read(&server, &key).await["queries"], json!({}), "also before its end is stored");
    server.fleet.live_queries().advance().await.expect("as expected");
    assert_eq!(stored(&server, &timed).await.0.state(), "timed_out");
    // Late answers are no sign of an attack.
    for query in [&timed, &stopped] {
        assert_eq!(write(&server, &key, &name(query), json!([]), json!(0), "").await, 200);
    }
    assert_eq!(refusals(&server), []);
}

#[tokio::test]
async fn fl35_a_repeated_answer_is_no_unknown_query_after_a_restart() {
    let (server, key) = server().await;
    let query = run(&server, &[]).await;
    assert_eq!(write(&server, &key, &name(&query), json!([]), json!(0), "").await, 200);
    let server = server.restarted();
    assert_eq!(write(&server, &key, &name(&query), json!([]), json!(0), "").await, 200);
    assert_eq!(refusals(&server), []);
}

#[tokio::test]
async fn an_answer_that_cannot_be_stored_is_sent_again() {
    let (server, key) = server().await;
    let query = run(&server, &[]).await;
    server.switch_off(true);
    assert_eq!(write(&server, &key, &name(&query), json!([{"a": "1"}]), json!(0), "").await, 503);
    server.switch_off(false);
    assert_eq!(write(&server, &key, &name(&query), json!([{"a": "1"}]), json!(0), "").await, 200);
    assert_eq!(stored(&server, &query).await.0.state(), "complete");
}

#[tokio::test]
async fn details_and_an_answer_in_one_request_are_both_stored() {
    let (server, key) = server().await;
    let query = run(&server, &[]).await;
    let mut both = details(&key, "web-8");
    both["queries"][name(&query)] = json!([{"pid": "1"}]);
    both["statuses"][name(&query)] = json!(0);
    assert_eq!(server.osquery("distributed/write", &both).await.status, 200);
    let record = server.record(Family::Osquery, UUID).await.expect("as expected");
    assert_eq!((record.hostname.as_str(), stored(&server, &query).await.0.answered), ("web-8", 1));
}

#[tokio::test]
async fn offline_targets_are_counted_once_a_second() {
    let (server, _) = server().await;
    let query = run(&server, &[]).await;
    let queries = server.fleet.live_queries();
    let found = queries.find(&root(), query.id.as_str()).await.expect("as expected");
    let reads = async || {
        let before = server.reads();
        assert_eq!(queries.view(&found).await.expect("as expected").offline, 0);
        server.reads() - before
    };
    assert_eq!(reads().await, 0, "counted when the live query was created");
    server.clock.advance(Duration::from_secs(1));
    assert_eq!((reads().await, reads().await), (1, 0));
}

#[tokio::test]
async fn hosts_are_selected_by_name_uuid_and_id_within_the_space() {
    let (server, _) = server().await;
    server.osquery_key(&server.secret_in("other").await, OTHER).await;
    let agent = agent_id(Family::Osquery, UUID);
    let host = server.record(Family::Osquery, UUID).await.and_then(|record| record.host_id).expect("a host");
    for named in ["WEB-7", UUID, agent.as_str(), host.as_str()] {
        assert_eq!(run(&server, &[named]).await.targets, 1, "{named}");
    }
    for unknown in ["web-8", OTHER, ""] {
        let refused = server.fleet.live_queries().create(&root(), new(&[unknown])).await;
        assert_eq!(refused.expect_err("as expected").code, "not_found", "{unknown}");
    }
    let elsewhere = root().in_space(SpaceId::trusted("other"));
    assert_eq!(server.fleet.live_queries().create(&elsewhere, new(&[])).await.expect("as expected").query.targets, 1);
    let empty = root().in_space(SpaceId::trusted("empty"));
    let refused = server.fleet.live_queries().create(&empty, new(&[])).await;
    assert_eq!(refused.expect_err("as expected").code, "no_host_matches");
    assert!(server.fleet.live_queries().list(&elsewhere).await.is_ok());
}
