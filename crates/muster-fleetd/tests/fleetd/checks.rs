//! Host checks: what hosts are asked, and what becomes of their answers.

use std::time::Duration;

use http::Method;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::fleetd::check_history::{day_of, former};
use muster_core::fleetd::{details, inventory, software};
use muster_core::id::SpaceId;
use muster_core::time::Clock;
use muster_fleet::host_checks::{CheckDraft, CountedCheck};
use serde_json::{Value, json};

use crate::setting::{self, Server, UUID, agent_id};

fn administrator(space: &str) -> OpContext {
    OpContext::administrator(Actor::System).in_space(SpaceId::trusted(space))
}

/// Creates a check for hosts of a platform; returns the name of its query.
async fn check_in(server: &Server, space: &str, name: &str, platform: &str) -> String {
    let draft = CheckDraft {
        name: Some(name.into()),
        query: Some("SELECT 1 FROM disk_encryption WHERE encrypted = 1".into()),
        resolution: Some(format!("remedy of {name}")),
        platforms: Some(vec![platform.into()]),
        ..CheckDraft::default()
    };
    let grant = administrator(space).grant().expect("an administrator");
    server.fleet.host_checks().create(&grant, draft).await.expect("a valid check").query_name()
}

async fn counts(server: &Server) -> Vec<CountedCheck> {
    let grant = administrator("default").grant().expect("an administrator");
    server.fleet.host_checks().list(&grant).await.expect("a list")
}

/// Returns the names of the checks that a host is asked now.
async fn asked(server: &Server, key: &str) -> Vec<String> {
    let read = server.osquery("distributed/read", &json!({"node_key": key})).await.json();
    let queries = read["queries"].as_object().expect("queries");
    assert!(queries.keys().all(|name| read["discovery"][name].is_string()), "FL24");
    queries.keys().filter(|name| name.starts_with("fleet_policy_query_")).cloned().collect()
}

async fn answer(server: &Server, key: &str, name: &str, rows: Value, status: Value) {
    let body = json!({"node_key": key, "queries": {name: rows}, "statuses": {name: status}, "messages": {name: "why"}});
    let got = server.osquery("distributed/write", &body).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
}

#[tokio::test]
async fn fl26_fl31_fl34_checks_are_asked_every_hour_and_count_those_that_pass_and_fail() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    assert!(asked(&server, &key).await.is_empty());
    let name = check_in(&server, "default", "disk", "linux").await;
    check_in(&server, "default", "other platform", "windows").await;
    assert_eq!(asked(&server, &key).await, std::slice::from_ref(&name), "at once, although the details are not due");
    let passing = async |passing: u64, failing: u64| {
        let counted = counts(&server).await.remove(0);
        assert_eq!((counted.counts.passing, counted.counts.failing), (passing, failing));
    };
    answer(&server, &key, &name, json!([{"1": "1"}]), json!(0)).await;
    passing(1, 0).await;
    assert!(asked(&server, &key).await.is_empty());
    let commits = server.commits();
    answer(&server, &key, &name, json!([{"1": "1"}]), json!("0")).await;
    assert_eq!(server.commits(), commits, "an equal result writes nothing");
    answer(&server, &key, &name, json!([]), json!(1)).await;
    passing(1, 0).await;
    let result = server.store().check_results(&agent_id(Family::Osquery, UUID)).await.expect("results").remove(0);
    assert_eq!((result.passes, result.error.as_str()), (Some(true), "why"));
    let errors = async || {
        let counts = counts(&server).await.remove(0).counts;
        (counts.errors, counts.error)
    };
    assert_eq!(errors().await, (1, "why".to_owned()), "a check whose query fails is not one without hosts");
    let commits = server.commits();
    answer(&server, &key, &name, json!([]), json!(1)).await;
    assert_eq!(server.commits(), commits, "an equal error writes nothing");
    answer(&server, &key, &name, json!(""), json!(0)).await;
    passing(0, 1).await;
    assert_eq!(errors().await, (0, String::new()));
    server.clock.advance(Duration::from_secs(3600 + 360));
    assert_eq!(asked(&server, &key).await, [name]);
}

#[tokio::test]
async fn changes_of_answers_and_the_numbers_of_each_day_are_the_history_of_a_check() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    let name = check_in(&server, "default", "disk", "linux").await;
    let answered = async |passes: bool| {
        let rows = if passes { json!([{"1": "1"}]) } else { json!([]) };
        answer(&server, &key, &name, rows, json!(0)).await;
    };
    let passed_at = server.clock.now();
    answered(true).await;
    server.fleet.housekeeping().run().await;
    let day = Duration::from_secs(24 * 60 * 60);
    server.clock.advance(day);
    server.fleet.housekeeping().run().await;
    let commits = server.commits();
    answered(true).await;
    assert_eq!(server.commits(), commits, "an equal answer writes nothing");
    server.clock.advance(day);
    answered(false).await;
    server.fleet.housekeeping().run().await;
    let context = administrator("default");
    let host = server.record(Family::Osquery, UUID).await.and_then(|record| record.host_id).expect("on a host");
    let view = server.fleet.agents().host(&context.grant().expect("a grant"), host.as_str()).await.expect("a host");
    let history: Vec<_> = view.checks[0].history.iter().map(|change| (change.passes, change.since)).collect();
    assert_eq!(history, [(false, server.clock.now()), (true, passed_at)]);
    assert_eq!(former(&view.checks[0].history), Some((true, day * 2)));
    let id = &name["fleet_policy_query_".len()..];
    let grant = context.grant().expect("a grant");
    let (_, days) = server.fleet.host_checks().days(&grant, id).await.expect("days");
    let today = day_of(server.clock.now());
    let numbers: Vec<_> = days.iter().map(|one| (one.day, one.passing, one.failing)).collect();
    // The answer of the day before yesterday was still the same at its end; that of yesterday changed before it was recorded.
    assert_eq!(numbers, [(today - 2, 1, 0), (today, 0, 1)]);
    server.clock.advance(day * 91);
    server.fleet.housekeeping().run().await;
    let view = server.fleet.agents().host(&context.grant().expect("a grant"), host.as_str()).await.expect("a host");
    assert!(view.checks[0].history.is_empty() && view.checks[0].result.is_some(), "the present answer stays");
}

#[tokio::test]
async fn fl33_answers_to_checks_of_another_space_or_platform_are_never_stored() {
    let server = Server::start().await;
    let (secret, _) = (server.secret().await, server.secret_in("other").await);
    let key = server.osquery_key(&secret, UUID).await;
    let foreign = check_in(&server, "other", "disk", "linux").await;
    let windows = check_in(&server, "default", "disk", "windows").await;
    assert!(asked(&server, &key).await.is_empty());
    for name in [foreign.as_str(), &windows, "fleet_policy_query_", "fleet_policy_query_none"] {
        answer(&server, &key, name, json!([{"1": "1"}]), json!(0)).await;
    }
    let stored = server.store().check_results(&agent_id(Family::Osquery, UUID)).await.expect("results");
    assert!(stored.is_empty(), "{stored:?}");
}

#[tokio::test]
async fn a_deleted_check_is_asked_no_more_and_its_results_are_removed_with_the_next_answer() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let (one, two) =
        (check_in(&server, "default", "one", "linux").await, check_in(&server, "default", "two", "linux").await);
    for name in [&one, &two] {
        answer(&server, &key, name, json!([]), json!(0)).await;
    }
    let grant = administrator("default").grant().expect("an administrator");
    server.fleet.host_checks().delete(&grant, &one["fleet_policy_query_".len()..]).await.expect("deleted");
    assert_eq!(asked(&server, &key).await, std::slice::from_ref(&two));
    answer(&server, &key, &two, json!([]), json!(0)).await;
    let stored = server.store().check_results(&agent_id(Family::Osquery, UUID)).await.expect("results");
    assert_eq!(stored.len(), 1);
}

#[tokio::test]
async fn the_page_of_a_device_shows_what_failed_with_the_remedy() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (orbit, key) = (server.orbit_key(&secret, UUID).await, server.osquery_key(&secret, UUID).await);
    server.osquery("distributed/write", &setting::details(&key, "web-7")).await;
    let name = check_in(&server, "default", "<disk>", "linux").await;
    answer(&server, &key, &name, json!([]), json!(0)).await;
    let token = "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60";
    server.orbit("device_token", &json!({"orbit_node_key": orbit, "device_auth_token": token})).await;
    let page = server.raw(Method::GET, "/device", &[("cookie", &format!("muster_device={token}"))], "").await;
    assert!(page.text.contains("&lt;disk&gt;") && page.text.contains("remedy of &lt;disk&gt;"), "{page:?}");
    assert!(!page.text.contains("disk_encryption"), "no SQL");
    let path = |rest: &str| format!("/api/latest/fleet/device/{token}{rest}");
    let desktop = server.raw(Method::GET, &path("/desktop"), &[], "").await.json();
    assert_eq!(desktop["failing_policies_count"], 1);
    let data = server.raw(Method::GET, &path(""), &[], "").await.json();
    assert_eq!(data["host"]["policies"][0]["response"], "fail");
}

#[tokio::test]
async fn fl27_a_refetch_asks_for_everything_until_the_host_has_reported() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let name = check_in(&server, "default", "disk", "linux").await;
    let all = async || {
        let read = server.osquery("distributed/read", &json!({"node_key": key})).await.json();
        read["queries"].as_object().expect("queries").len()
    };
    let report = async || {
        let mut body = setting::details(&key, "web-7");
        body["queries"][&name] = json!([]);
        body["statuses"][&name] = json!(0);
        server.osquery("distributed/write", &body).await;
    };
    report().await;
    assert_eq!(all().await, 0);
    let record = server.record(Family::Osquery, UUID).await.expect("enrolled");
    let host = record.host_id.expect("on a host");
    let context = administrator("default");
    server.fleet.agents().refetch_host(&context.clone().trying(true), host.as_str()).await.expect("a host");
    assert_eq!(all().await, 0, "a dry run");
    server.fleet.agents().refetch_host(&context, host.as_str()).await.expect("a host");
    let everything = details::QUERIES.len() + inventory::QUERIES.len() + software::QUERIES.len() + 1;
    assert_eq!((all().await, all().await), (everything, everything));
    report().await;
    assert_eq!(all().await, 0);
    let missing = server.fleet.agents().refetch_host(&context, "nowhere").await.expect_err("no host");
    assert_eq!(missing.kind, muster_core::ErrorKind::NotFound);
}
