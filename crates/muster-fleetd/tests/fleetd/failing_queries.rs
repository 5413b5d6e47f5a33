//! Scheduled queries that do not work on hosts, and on how many.

use std::time::Duration;

use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::testing::at;
use muster_fleet::host_views::HostView;
use muster_fleet::packs::{PackDraft, ScopedPack};
use muster_store::query::{AgentCondition, AgentFilter};
use serde_json::{Value, json};

use crate::setting::{Server, UUID, agent_id, details};

const OTHER: &str = "5C4C4544-0042-3510-8052-B7C04F584433";
const SCHEDULE: &str = "fleet_detail_query_osquery_schedule";
const PORTS: &str = "pack/it/ports";

fn administrator() -> OpContext {
    OpContext::administrator(Actor::System)
}

async fn pack(server: &Server) -> ScopedPack {
    let document =
        "queries:\n  ports: {query: SELECT * FROM port, interval: 600}\n  users: {query: SELECT 1, interval: 60}\n";
    let draft = PackDraft { name: "it".into(), document: document.into(), ..PackDraft::default() };
    server.fleet.packs().save(&administrator(), draft).await.expect("a valid pack")
}

async fn failed(server: &Server, key: &str, name: &str, error: &str) {
    let message = format!("Error executing scheduled query {name}: {error}");
    let line =
        json!({"severity": "2", "filename": "scheduler.cpp", "line": "138", "unixTime": "1", "message": message});
    let got = server.osquery("log", &json!({"node_key": key, "log_type": "status", "data": [line]})).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
}

async fn denylisted(server: &Server, key: &str, names: &[&str]) {
    let mut write = details(key, "web-7");
    write["queries"][SCHEDULE] = names.iter().map(|name| json!({"name": name})).collect::<Value>();
    write["statuses"][SCHEDULE] = json!(0);
    assert_eq!(server.osquery("distributed/write", &write).await.status, 200);
}

async fn host(server: &Server, uuid: &str) -> HostView {
    let grant = administrator().grant().expect("an administrator");
    server.fleet.agents().host(&grant, uuid).await.expect("a host")
}

/// Returns the numbers of hosts on which a query of the pack fails, and on which it is denylisted.
async fn counts(server: &Server, pack: &ScopedPack, query: &str) -> Option<(u64, u64)> {
    let grant = administrator().grant().expect("an administrator");
    let all = server.fleet.query_failures().of_packs(&grant, std::slice::from_ref(pack)).await.expect("counts");
    all[0].get(query).map(|count| (count.failing, count.denylisted))
}

#[tokio::test]
async fn failing_and_denylisted_queries_of_packs_are_counted_over_the_hosts() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (one, other) = (server.osquery_key(&secret, UUID).await, server.osquery_key(&secret, OTHER).await);
    let pack = pack(&server).await;
    assert_eq!(counts(&server, &pack, "ports").await, None);
    failed(&server, &one, PORTS, "no such table: port").await;
    failed(&server, &other, PORTS, "no such table: port").await;
    failed(&server, &one, "unknown", "no such table: x").await;
    denylisted(&server, &other, &["pack/it/users"]).await;
    assert_eq!(counts(&server, &pack, "ports").await, Some((2, 0)));
    assert_eq!(counts(&server, &pack, "users").await, Some((0, 1)));
    let view = host(&server, UUID).await;
    let told: Vec<_> = view.failures.iter().map(|one| (one.name.as_str(), one.error.as_deref())).collect();
    assert_eq!(told, [(PORTS, Some("no such table: port")), ("unknown", Some("no such table: x"))]);
    assert_eq!(host(&server, OTHER).await.denylisted(), ["pack/it/users"]);
    // Both count, and a query that is given up does not fail any more.
    denylisted(&server, &one, &[PORTS]).await;
    failed(&server, &one, PORTS, "from before").await;
    assert_eq!(counts(&server, &pack, "ports").await, Some((1, 1)));
    let on = |names: &[&str]| {
        let names = names.iter().map(ToString::to_string).collect();
        AgentFilter::all([AgentCondition::FailsQueries(names, server.now())])
    };
    let matching = async |filter: AgentFilter| server.store().agent_ids(&filter, None, 10).await.expect("agents");
    assert_eq!(matching(on(&[PORTS])).await.len(), 2);
    assert_eq!(matching(on(&["unknown"])).await, [agent_id(Family::Osquery, UUID)]);
    assert!(matching(on(&["pack/it"])).await.is_empty());
}

#[tokio::test]
async fn a_query_that_fails_with_each_run_is_written_twice_an_hour_at_most_and_ends_when_it_works() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    let pack = pack(&server).await;
    failed(&server, &key, PORTS, "no such table: port").await;
    let (reads, commits) = (server.reads(), server.commits());
    for _ in 0..4 {
        server.clock.advance(Duration::from_secs(600));
        failed(&server, &key, PORTS, "no such table: port").await;
    }
    assert_eq!((server.reads(), server.commits()), (reads, commits));
    server.clock.advance(Duration::from_secs(600));
    failed(&server, &key, PORTS, "no such table: port").await;
    assert_eq!(server.commits(), commits + 1);
    let until = Duration::from_secs(2 * 600 + 3_600);
    server.clock.advance(until - Duration::from_secs(1));
    assert_eq!(counts(&server, &pack, "ports").await, Some((1, 0)));
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(counts(&server, &pack, "ports").await, None);
    assert!(host(&server, UUID).await.failures.is_empty());
    server.fleet.housekeeping().run().await;
    let known = server.store().query_failures(&[agent_id(Family::Osquery, UUID)], at(0)).await;
    assert_eq!(known.expect("a read"), []);
}

#[tokio::test]
async fn failures_stay_behind_when_their_host_moves_to_another_space() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    let pack = pack(&server).await;
    failed(&server, &key, PORTS, "no such table: port").await;
    let blue = server.secret_in("blue").await;
    let key = server.osquery_key(&blue, UUID).await;
    assert_eq!(counts(&server, &pack, "ports").await, None);
    // The same error is news to the other space.
    failed(&server, &key, PORTS, "no such table: port").await;
    assert_eq!(counts(&server, &pack, "ports").await, None, "of the former space");
    let known = server.store().query_failures(&[agent_id(Family::Osquery, UUID)], server.now()).await;
    assert_eq!(known.expect("a read").len(), 1);
}

#[tokio::test]
async fn lines_are_passed_on_while_their_errors_cannot_be_stored() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    assert_eq!(server.osquery("config", &json!({"node_key": key})).await.status, 200);
    server.switch_off(true);
    failed(&server, &key, PORTS, "no such table: port").await;
    server.switch_off(false);
    failed(&server, &key, PORTS, "no such table: port").await;
    assert_eq!(host(&server, UUID).await.failures.len(), 1, "told again");
}
