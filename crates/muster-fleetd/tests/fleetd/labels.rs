//! Labels: what hosts are asked, which labels they get, and what is for hosts with a label.

use std::time::Duration;

use muster_core::ErrorKind;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::id::SpaceId;
use muster_fleet::host_checks::CheckDraft;
use muster_fleet::labels::{LabelDraft, LabelView, condition};
use muster_fleet::live_queries::{NewLiveQuery, QuerySource};
use muster_store::query::{AgentFilter, HostRows, Page};
use serde_json::{Value, json};

use crate::setting::{Server, UUID};

const OTHER: &str = "5C4C4544-0042-3510-8052-B7C04F584433";

fn administrator(space: &str) -> OpContext {
    OpContext::administrator(Actor::System).in_space(SpaceId::trusted(space))
}

/// Creates a label; a dynamic one for Linux, or a manual one with hosts.
async fn label_in(server: &Server, space: &str, name: &str, hosts: Option<&[&str]>) -> LabelView {
    let draft = LabelDraft {
        name: Some(name.into()),
        query: hosts.is_none().then(|| "SELECT 1 FROM processes WHERE name = 'dockerd'".into()),
        platforms: hosts.is_none().then(|| vec!["linux".into()]),
        ..LabelDraft::default()
    };
    let grant = administrator(space).grant().expect("an administrator");
    let hosts: Vec<String> = hosts.unwrap_or_default().iter().map(ToString::to_string).collect();
    server.fleet.labels().create(&grant, draft, &hosts).await.expect("a valid label")
}

/// Returns the number of hosts of a label.
async fn hosts(server: &Server, label: &LabelView) -> u64 {
    let grant = administrator("default").grant().expect("an administrator");
    server.fleet.labels().find(&grant, &label.label.name).await.expect("a label").hosts
}

async fn asked(server: &Server, key: &str, prefix: &str) -> Vec<String> {
    let read = server.osquery("distributed/read", &json!({"node_key": key})).await.json();
    let queries = read["queries"].as_object().expect("queries");
    assert!(queries.keys().all(|name| read["discovery"][name].is_string()), "FL24");
    queries.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
}

async fn answer(server: &Server, key: &str, name: &str, rows: Value, status: u8) {
    let body = json!({"node_key": key, "queries": {name: rows}, "statuses": {name: status}, "messages": {name: "why"}});
    let got = server.osquery("distributed/write", &body).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
}

#[tokio::test]
async fn fl26_fl32_labels_are_asked_every_hour_and_an_error_leaves_them_as_they_were() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    assert!(asked(&server, &key, "fleet_label_query_").await.is_empty());
    let docker = label_in(&server, "default", "docker", None).await;
    let name = docker.label.query_name();
    assert_eq!(asked(&server, &key, "fleet_label_query_").await, std::slice::from_ref(&name), "at once");
    answer(&server, &key, &name, json!([{"1": "1"}]), 0).await;
    assert_eq!(hosts(&server, &docker).await, 1);
    assert!(asked(&server, &key, "fleet_label_query_").await.is_empty());
    let commits = server.commits();
    answer(&server, &key, &name, json!([{"1": "1"}]), 0).await;
    assert_eq!(server.commits(), commits, "an equal result writes nothing");
    answer(&server, &key, &name, json!([]), 1).await;
    assert_eq!(hosts(&server, &docker).await, 1, "an error");
    let failing = async || {
        let grant = administrator("default").grant().expect("an administrator");
        let found = server.fleet.labels().find(&grant, "docker").await.expect("a label");
        (found.failing, found.error)
    };
    assert_eq!(failing().await, (1, "why".to_owned()));
    let commits = server.commits();
    answer(&server, &key, &name, json!([]), 1).await;
    assert_eq!(server.commits(), commits, "an equal error writes nothing");
    answer(&server, &key, &name, json!(""), 0).await;
    assert_eq!((hosts(&server, &docker).await, failing().await), (0, (0, String::new())));
    server.clock.advance(Duration::from_secs(3600 + 360));
    assert_eq!(asked(&server, &key, "fleet_label_query_").await, [name]);
}

#[tokio::test]
async fn fl33_answers_to_labels_of_another_space_or_to_manual_ones_are_never_stored() {
    let server = Server::start().await;
    let (secret, _) = (server.secret().await, server.secret_in("other").await);
    let key = server.osquery_key(&secret, UUID).await;
    let foreign = label_in(&server, "other", "docker", None).await;
    let manual = label_in(&server, "default", "chosen", Some(&[])).await;
    for name in [foreign.label.query_name(), manual.label.query_name(), "fleet_label_query_none".into()] {
        answer(&server, &key, &name, json!([{"1": "1"}]), 0).await;
    }
    let record = server.record(Family::Osquery, UUID).await.expect("enrolled");
    let labels = server.store().labels_of_host(&record.host_id.expect("on a host")).await.expect("labels");
    assert!(labels.is_empty(), "{labels:?}");
}

#[tokio::test]
async fn labels_select_hosts_of_lists_and_live_queries() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let other = server.osquery_key(&secret, OTHER).await;
    label_in(&server, "default", "Chosen", Some(&[UUID])).await;
    let context = administrator("default");
    let grant = context.grant().expect("an administrator");
    let listed = async |name: &str| {
        let page = Page { offset: 0, limit: 10 };
        let filter = AgentFilter::all([condition(name)]);
        server.fleet.agents().hosts(&grant, &filter, &HostRows::Page(page)).await.expect("hosts").total
    };
    assert_eq!((listed("chosen").await, listed("nothing").await, listed("All Linux").await), (1, 0, 2));
    assert_eq!((listed("ubuntu linux").await, listed("macOS").await, listed("All Hosts").await), (2, 0, 2));
    let run = async |label: &str| {
        let new = NewLiveQuery {
            sql: QuerySource::Sql("SELECT 1".into()),
            hosts: Vec::new(),
            labels: vec![label.into()],
            filter: AgentFilter::default(),
            timeout: Duration::from_secs(60),
        };
        server.fleet.live_queries().create(&context, new).await
    };
    assert_eq!(run("CHOSEN").await.expect("a host matches").query.targets, 1);
    let live = [asked(&server, &key, "fleet_distributed").await, asked(&server, &other, "fleet_distributed").await];
    assert_eq!([live[0].len(), live[1].len()], [1, 0]);
    assert_eq!(run("unknown").await.expect_err("no label").kind, ErrorKind::NotFound);
    let view = server.fleet.agents().host(&grant, UUID).await.expect("a host");
    assert_eq!(view.labels, ["All Hosts", "All Linux", "Ubuntu Linux", "Chosen"]);
}

#[tokio::test]
async fn a_host_check_for_a_label_is_asked_when_the_host_gets_the_label() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let docker = label_in(&server, "default", "docker", None).await;
    let grant = administrator("default").grant().expect("an administrator");
    let draft = CheckDraft {
        name: Some("socket".into()),
        query: Some("SELECT 1".into()),
        labels: Some(vec!["Docker".into(), "macOS".into()]),
        ..CheckDraft::default()
    };
    let check = server.fleet.host_checks().create(&grant, draft.clone()).await.expect("a valid check").query_name();
    let unknown = CheckDraft { name: Some("x".into()), labels: Some(vec!["none".into()]), ..draft };
    let error = server.fleet.host_checks().create(&grant, unknown).await.expect_err("no label");
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert_eq!(asked(&server, &key, "fleet_policy_query_").await, [""; 0]);
    answer(&server, &key, &check, json!([{"1": "1"}]), 0).await;
    answer(&server, &key, &docker.label.query_name(), json!([{"1": "1"}]), 0).await;
    assert_eq!(asked(&server, &key, "fleet_policy_query_").await, std::slice::from_ref(&check));
    answer(&server, &key, &check, json!([]), 0).await;
    let failing = server
        .fleet
        .host_checks()
        .list(&administrator("default").grant().expect("an administrator"))
        .await
        .expect("checks")
        .remove(0)
        .counts
        .failing;
    assert_eq!(failing, 1);
    let in_use = server.fleet.labels().delete(&grant, docker.label.id.as_str()).await.expect_err("in use");
    assert_eq!(in_use.code, "label_in_use");
    answer(&server, &key, &docker.label.query_name(), json!([]), 0).await;
    assert_eq!(asked(&server, &key, "fleet_policy_query_").await, [""; 0]);
}

#[tokio::test]
async fn fl29_a_host_without_checks_gets_the_query_in_their_place() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let wildcard = "fleet_no_policies_wildcard";
    assert_eq!(asked(&server, &key, "fleet_no_").await, [wildcard]);
    let commits = server.commits();
    answer(&server, &key, wildcard, json!([{"1": "1"}]), 0).await;
    assert_eq!(server.commits(), commits);
    assert_eq!(asked(&server, &key, "fleet_no_").await, [""; 0], "the time has moved");
    server.clock.advance(Duration::from_secs(3600 + 360));
    assert_eq!(asked(&server, &key, "fleet_no_").await, [wildcard]);
}
