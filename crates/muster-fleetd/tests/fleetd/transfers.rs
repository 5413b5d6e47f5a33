//! Transfers of hosts between spaces: what moves, what stays, and who may do it.

use std::sync::Arc;
use std::time::Duration;

use muster_core::ErrorKind;
use muster_core::agent::{AgentDocuments, AgentRecord, Family};
use muster_core::authorization::{
    Actor, AgentsForceUnenroll, AgentsTag, BindingScope, Entitlement, OpContext, PrivilegeName as Name, PrivilegeSet,
    Selector,
};
use muster_core::event::EventKind;
use muster_core::host_run::DEFAULT_EXPIRY;
use muster_core::id::SpaceId;
use muster_core::testing::online_agent;
use muster_core::transfer::Refusal;
use muster_fleet::force::Force;
use muster_fleet::host_checks::CheckDraft;
use muster_fleet::host_views::HostView;
use muster_fleet::labels::LabelDraft;
use muster_fleet::live_queries::{NewLiveQuery, QuerySource};
use muster_fleet::membership::AgentNote;
use muster_fleet::scripts::{NewScriptRun, ScriptSource};
use muster_fleet::selection::Selected;
use muster_fleet::tags::TagChange;
use muster_fleet::transfers::{HostTransfer, HostsToMove};
use muster_listen::testing::within;
use muster_store::query::{AgentFilter, HostRows, Page};
use serde_json::{Value, json};

use crate::installs;
use crate::setting::{Server, UUID, agent_id, details, orbit_enroll};

fn in_space(space: &str) -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 }).in_space(SpaceId::trusted(space))
}

/// A caller with these privileges in each of two spaces.
fn with(here: &[Name], there: &[Name]) -> OpContext {
    let entitled = |names: &[Name], space: &str| Entitlement {
        privileges: names.iter().copied().collect::<PrivilegeSet>(),
        scope: BindingScope::Space(SpaceId::trusted(space)),
    };
    OpContext::entitled(Actor::Local { uid: 7 }, [entitled(here, "default"), entitled(there, "red")])
}

/// A server with a space `red` and a host in the default space; the keys of its orbit and its osqueryd.
async fn server() -> (Server, String, String) {
    let server = Server::start().await;
    let grant = in_space("default").grant().expect("an administrator");
    server.fleet.spaces().create(&grant, "red", "Red", "").await.expect("a space");
    let secret = server.secret().await;
    let (orbit, osquery) = (server.orbit_key(&secret, UUID).await, server.osquery_key(&secret, UUID).await);
    assert_eq!(server.osquery("distributed/write", &details(&osquery, "web-7")).await.status, 200);
    (server, orbit, osquery)
}

async fn transfer(server: &Server, context: &OpContext, to: &str) -> Result<HostTransfer, muster_core::Error> {
    let named = HostsToMove::Named(vec![UUID.to_owned()]);
    let mut done = server.fleet.transfers().transfer(context, &named, to).await?;
    assert_eq!(done.len(), 1);
    Ok(done.remove(0))
}

async fn host(server: &Server, space: &str) -> Result<HostView, muster_core::Error> {
    server.fleet.agents().host(&in_space(space).grant().expect("an administrator"), UUID).await
}

async fn check(server: &Server, space: &str) -> String {
    let grant = in_space(space).grant().expect("an administrator");
    let draft = CheckDraft { name: Some("disk".into()), query: Some("SELECT 1".into()), ..CheckDraft::default() };
    server.fleet.host_checks().create(&grant, draft).await.expect("a check").query_name()
}

async fn options(server: &Server, space: &str, period: u64) {
    let grant = in_space(space).grant().expect("an administrator");
    let text = format!("config: {{options: {{logger_tls_period: {period}}}}}");
    server.fleet.fleetd_options().update(&grant, Some(text), None).await.expect("valid options");
}

async fn store_key(server: &Server, orbit: &str) {
    let body = json!({"orbit_node_key": orbit, "encryption_key": "MTIzNDU2", "client_error": ""});
    assert_eq!(server.orbit("disk_encryption_key", &body).await.status, 204);
}

/// Returns the names of the queries that a host reads.
async fn asked(server: &Server, key: &str) -> Vec<String> {
    let read = server.osquery("distributed/read", &json!({"node_key": key})).await;
    assert_eq!(read.status, 200, "{read:?}");
    read.json()["queries"].as_object().expect("queries").keys().cloned().collect()
}

#[tokio::test]
async fn a_host_keeps_its_keys_and_follows_the_other_space_on_every_server_within_a_second() {
    let (server, orbit, osquery) = server().await;
    let other = server.restarted();
    let (here, there) = (check(&server, "default").await, check(&server, "red").await);
    options(&server, "default", 7).await;
    options(&server, "red", 8).await;
    let period = async |server: &Server| {
        let config = server.osquery("config", &json!({"node_key": osquery})).await;
        assert_eq!(config.status, 200, "{config:?}");
        config.json()["options"]["logger_tls_period"].as_u64()
    };
    for server in [&server, &other] {
        assert_eq!(period(server).await, Some(7));
        assert!(asked(server, &osquery).await.contains(&here));
    }
    let before = host(&server, "default").await.expect("a host").host.id;
    let done = transfer(&server, &in_space("default"), "red").await.expect("moved");
    let moved = done.outcome.expect("moved");
    assert_eq!((done.host, done.hostname.as_str(), moved.agents), (before.clone(), "web-7", 2));
    assert_eq!(period(&server).await, Some(8), "at once on the server that moved it");
    within(async {
        while period(&other).await != Some(8) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for server in [&server, &other] {
        let asked = asked(server, &osquery).await;
        assert!(asked.contains(&there) && !asked.contains(&here), "{asked:?}");
        assert_eq!(server.orbit("config", &json!({"orbit_node_key": orbit})).await.status, 200);
    }
    let view = host(&server, "red").await.expect("the same machine");
    assert_eq!((Some(view.host.id), view.agents.len()), (moved.host, 2));
    assert_eq!(host(&server, "default").await.expect_err("it has left").kind, ErrorKind::NotFound);
    assert_eq!(server.store().host(&before).await.expect("a read"), None);
}

#[tokio::test]
async fn what_the_former_space_has_open_on_a_host_ends_and_its_manual_labels_are_dropped() {
    let (server, orbit, osquery) = server().await;
    let context = in_space("default");
    let grant = context.grant().expect("an administrator");
    let label = LabelDraft { name: Some("chosen".into()), ..LabelDraft::default() };
    server.fleet.labels().create(&grant, label, &[UUID.to_owned()]).await.expect("a label");
    let script = NewScriptRun {
        source: ScriptSource::Text { name: None, script: "echo".into() },
        hosts: vec![UUID.into()],
        filter: AgentFilter::default(),
        expiry: DEFAULT_EXPIRY,
        timeout: 60,
    };
    let run = server.fleet.scripts().create(&context.grant().expect("an administrator"), script).await.expect("a run");
    let (_, install) = installs::installed(&server).await;
    let query = NewLiveQuery {
        sql: QuerySource::Sql("SELECT 1".into()),
        hosts: Vec::new(),
        labels: Vec::new(),
        filter: AgentFilter::default(),
        timeout: Duration::from_secs(60),
    };
    let query = server.fleet.live_queries().create(&context, query).await.expect("a live query").query;
    let block = json!({"node_key": osquery, "block_count": 1, "block_size": 3, "carve_size": 3, "carve_id": "c", "request_id": "r"});
    assert_eq!(server.osquery("carve/begin", &block).await.status, 200);
    let pending = async || {
        let config = server.orbit("config", &json!({"orbit_node_key": orbit})).await.json();
        let of = |name: &str| config["notifications"][name].clone();
        (of("pending_script_execution_ids"), of("pending_software_installer_ids"))
    };
    assert_eq!(pending().await, (json!([run.id]), json!([install.id])));
    let named = format!("fleet_distributed_query_{}", query.id);
    assert!(asked(&server, &osquery).await.contains(&named));

    transfer(&server, &context, "red").await.expect("moved").outcome.expect("moved");
    assert_eq!(pending().await, (Value::Null, Value::Null));
    let (ended, outcome) = installs::only(&server, &install).await;
    assert_eq!((outcome, ended.ended_at.is_some()), ("host_deleted", true), "{ended:?}");
    assert!(!asked(&server, &osquery).await.contains(&named));
    let scripts = server.fleet.scripts();
    let seen = scripts.find(&context, run.id.as_str()).await.expect("the run stays");
    let execution = scripts.hosts(&seen, None, 10).await.expect("executions").remove(0);
    assert_eq!((seen.run().finished, execution.outcome(seen.run(), server.now())), (1, "host_deleted"));
    let live = server.fleet.live_queries();
    let view = live.view(&live.find(&context, query.id.as_str()).await.expect("it stays")).await.expect("a view");
    assert_eq!((view.query.answered, view.query.gone, view.offline), (0, 1, 0));
    assert_eq!(view.query.state(), "complete", "nobody is left to answer");
    let carves = server.fleet.carves().list(&context.grant().expect("an administrator")).await.expect("carves");
    assert_eq!(carves[0].error.as_deref(), Some("the host has moved to another space"));
    let there = server.fleet.carves().list(&in_space("red").grant().expect("an administrator")).await.expect("carves");
    assert!(there.is_empty(), "a carve stays with the space that wanted it");
    let labels = host(&server, "red").await.expect("a host").labels;
    assert!(!labels.contains(&"chosen".to_owned()), "{labels:?}");
}

#[tokio::test]
async fn a_disk_key_goes_with_its_host_if_the_caller_may_reveal_it() {
    let (server, orbit, _) = server().await;
    store_key(&server, &orbit).await;
    let may = with(&[Name::AgentsPurge], &[Name::EnrollmentCreate]);
    let refused = transfer(&server, &may, "red").await.expect("an outcome").outcome;
    assert_eq!(refused, Err(Refusal::DiskKey));
    let may = with(&[Name::AgentsPurge, Name::DiskKeysReveal], &[Name::EnrollmentCreate]);
    let moved = transfer(&server, &may, "red").await.expect("an outcome").outcome.expect("moved");
    assert!(moved.has_disk_key);
    let id = moved.host.expect("a host").to_string();
    let key = server.fleet.disk_keys().find(&in_space("red"), &id).await.expect("a key");
    assert_eq!(server.fleet.disk_keys().reveal(&key).await.expect("revealed").key, "123456");
    // With an enroll secret, whoever has it moves the host: the key must not follow.
    server.orbit_key(&server.secret().await, UUID).await;
    let orbit = agent_id(Family::Orbit, UUID);
    assert_eq!(server.store().disk_key(&orbit, &SpaceId::default()).await.expect("a read"), None);
}

#[tokio::test]
async fn a_secret_of_another_space_takes_neither_the_disk_key_of_a_host_nor_its_traces() {
    let (server, orbit, _) = server().await;
    store_key(&server, &orbit).await;
    let mut enroll = orbit_enroll(&server.secret_in("red").await, UUID);
    enroll["hostname"] = json!("attacker");
    assert_eq!(server.orbit("enroll", &enroll).await.status, 200);
    let (here, there) = (in_space("default"), in_space("red"));
    let keys = server.fleet.disk_keys();
    let key = keys.find(&here, UUID).await.expect("the key stays where it was reported");
    assert_eq!(keys.reveal(&key).await.expect("revealed").key, "123456");
    // As the command line does, which finds the host by its name: osqueryd is left of it.
    let rest = host(&server, "default").await.expect("a host").host.id;
    let key = keys.find(&here, rest.as_str()).await.expect("the key of the host");
    assert_eq!(keys.reveal(&key).await.expect("revealed").key, "123456");
    let status = keys.find(&there, UUID).await.expect("the host");
    assert_eq!(status.key.sealed, None, "people of the other space have no key");
    assert_eq!(keys.escrow(&key).await.expect_err("the host has left").kind, ErrorKind::NotFound);

    let left = server.events("agent.leave_space").await;
    assert_eq!((left.len(), &left[0]["space"], &left[0]["detail"]["to"]), (1, &json!("default"), &json!("red")));
    let detail = &left[0]["detail"];
    assert_eq!((&detail["hostname"], &detail["former"]["hostname"]), (&json!("attacker"), &json!("web-7")), "{detail}");
    assert_eq!((&detail["address"], &left[0]["address"]), (&json!("192.0.2.7"), &json!("192.0.2.7")));
    let events: Vec<_> =
        server.store().events_after(0, 100).await.expect("events").into_iter().map(|(_, event)| event).collect();
    let told: Vec<_> = events.iter().filter(|event| event.kind == EventKind::AgentLeftSpace).collect();
    assert_eq!((told.len(), told[0].space.as_ref().map(SpaceId::as_str)), (1, Some("default")));
    assert_eq!((told[0].subject.name.as_str(), &told[0].detail["to"]), ("web-7", &json!("red")));
    let entered = server.events("agent.enroll").await;
    let entered: Vec<&Value> = entered.iter().filter(|event| event["space"] == "red").collect();
    assert_eq!((entered.len(), &entered[0]["detail"]["former"]), (1, &Value::Null), "nothing of the other space");

    let id = host(&server, "red").await.expect("a host").host.id;
    server.fleet.agents().delete_host(&there, id.as_str()).await.expect("deleted");
    let key = keys.find(&here, UUID).await.expect("it is not deleted with the host of the other space");
    assert_eq!(keys.reveal(&key).await.expect("revealed").key, "123456");
    assert_eq!(keys.find(&there, UUID).await.expect_err("deleted").kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_host_moves_only_with_privileges_in_both_spaces_and_a_dry_run_moves_nothing() {
    let (server, _, _) = server().await;
    let kind = async |context: OpContext, to: &str| {
        transfer(&server, &context, to).await.map(drop).map_err(|error| (error.kind, error.code))
    };
    let root = in_space("default");
    assert_eq!(kind(root.clone(), "nowhere").await, Err((ErrorKind::NotFound, "not_found")));
    assert_eq!(kind(root.clone(), "default").await, Err((ErrorKind::Invalid, "invalid")));
    let forbidden = Err((ErrorKind::Forbidden, "forbidden"));
    assert_eq!(kind(with(&[Name::AgentsRead], &[Name::EnrollmentCreate]), "red").await, forbidden);
    assert_eq!(kind(with(&[Name::AgentsPurge], &[Name::AgentsPurge]), "red").await, forbidden);
    let only_here =
        Entitlement { privileges: PrivilegeSet::all(), scope: BindingScope::Space(SpaceId::trusted("default")) };
    let only_here = OpContext::entitled(Actor::Local { uid: 7 }, [only_here]);
    assert_eq!(kind(only_here, "red").await, Err((ErrorKind::NotFound, "not_found")), "as if it did not exist");
    let part = Entitlement {
        privileges: PrivilegeSet::all(),
        scope: BindingScope::Part {
            space: SpaceId::trusted("default"),
            selector: Selector::Tags(vec!["laptops".into()]),
        },
    };
    let part = OpContext::entitled(Actor::Local { uid: 7 }, [part]);
    assert_eq!(kind(part, "red").await, Err((ErrorKind::Forbidden, "limited_scope")));

    let commits = server.audited().await.len();
    let tried = transfer(&server, &root.clone().trying(true), "red").await.expect("an outcome").outcome;
    assert_eq!(tried.map(|moved| (moved.host, moved.agents)), Ok((None, 2)));
    assert_eq!(server.audited().await.len(), commits);
    let record = server.record(Family::Orbit, UUID).await.expect("a record");
    assert_eq!(record.space, SpaceId::default());
    let unknown = HostsToMove::Named(vec![UUID.into(), "no-such-host".into()]);
    let refused = server.fleet.transfers().transfer(&root, &unknown, "red").await.expect_err("one is unknown");
    assert_eq!(refused.kind, ErrorKind::NotFound);
    let many = HostsToMove::Named(vec![UUID.into(); 1_001]);
    let refused = server.fleet.transfers().transfer(&root, &many, "red").await.expect_err("too many");
    assert_eq!(refused.kind, ErrorKind::Invalid);
    assert_eq!(server.record(Family::Orbit, UUID).await.expect("a record").space, SpaceId::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_moves_before_its_deletion_is_committed_is_not_deleted() {
    let (server, orbit, _) = server().await;
    let id = host(&server, "default").await.expect("a host").host.id;
    let (has_come, go) = server.hold_deletion();
    let fleet = Arc::clone(&server.fleet);
    let deletion = tokio::spawn(async move {
        let may = with(&[Name::AgentsPurge, Name::AgentsRead], &[]);
        fleet.agents().delete_host(&may, id.as_str()).await
    });
    tokio::task::spawn_blocking(move || has_come.recv()).await.expect("a task").expect("the deletion came");
    transfer(&server, &in_space("default"), "red").await.expect("an outcome").outcome.expect("moved");
    go.send(()).expect("the deletion waits");
    assert_eq!(deletion.await.expect("a task").expect_err("it has left").kind, ErrorKind::NotFound);
    assert_eq!(host(&server, "red").await.expect("the host").agents.len(), 2);
    assert_eq!(server.orbit("config", &json!({"orbit_node_key": orbit})).await.status, 200);
    assert!(server.events("agent.delete").await.is_empty());
}

#[tokio::test]
async fn nothing_is_done_to_an_agent_that_has_moved_since_it_was_found() {
    let (server, orbit, _) = server().await;
    store_key(&server, &orbit).await;
    let (context, fleet, id) = (in_space("default"), &server.fleet, agent_id(Family::Orbit, UUID));
    let found = host(&server, "default").await.expect("a host").host.id;
    let key = fleet.disk_keys().find(&context, found.as_str()).await.expect("a key");
    let agent = fleet.agents().find::<AgentsTag>(&context, id.as_str()).await.expect("an agent");
    let one = Selected::One(id.clone());
    let forced = fleet.agents().select::<AgentsForceUnenroll>(&context, &one).await.expect("an agent");
    let many = Selected::Ids(vec![id.clone()]);
    let tagged = fleet.agents().select::<AgentsTag>(&context, &many).await.expect("an agent");
    transfer(&server, &context, "red").await.expect("an outcome").outcome.expect("moved");
    let before = server.record(Family::Orbit, UUID).await.expect("a record");

    let kind = |error: muster_core::Error| error.kind;
    assert_eq!(fleet.disk_keys().reveal(&key).await.map(drop).map_err(kind), Err(ErrorKind::NotFound));
    assert_eq!(fleet.disk_keys().escrow(&key).await.map_err(kind), Err(ErrorKind::NotFound));
    let note = AgentNote { tags: Some(vec!["mine".into()]), user_metadata: None };
    assert_eq!(fleet.agents().note(&agent, &note).await.map_err(kind), Err(ErrorKind::NotFound));
    let refused = fleet.actions().force_unenroll(&forced, Force::Yes).await.map(drop).map_err(kind);
    assert_eq!(refused, Err(ErrorKind::NotFound));
    let change = TagChange { add: vec!["mine".into()], remove: Vec::new() };
    let action = fleet.actions().change_tags(&tagged, &change).await.expect("an action");
    assert_eq!((action.targets, action.refused), (0, vec![(id.clone(), "agent not found".to_owned())]));
    assert_eq!(fleet.agents().refetch_host(&context, found.as_str()).await.map_err(kind), Err(ErrorKind::NotFound));

    let after = server.record(Family::Orbit, UUID).await.expect("a record");
    assert_eq!((after.version, after.active), (before.version, true));
    assert!(server.events("disk_key.reveal").await.is_empty());
    let there = host(&server, "red").await.expect("a host").host.id;
    let key = fleet.disk_keys().find(&in_space("red"), there.as_str()).await.expect("a key");
    assert_eq!(fleet.disk_keys().reveal(&key).await.expect("revealed").key, "123456");
}

#[tokio::test]
async fn the_audit_log_tells_which_machine_was_deleted() {
    let (server, _, _) = server().await;
    let id = host(&server, "default").await.expect("a host").host.id;
    server.fleet.agents().delete_host(&in_space("default"), id.as_str()).await.expect("deleted");
    let deleted = server.events("agent.delete").await;
    let expected =
        |family: &str| json!({"family": family, "hostname": "web-7", "host": id, "machine_id": UUID.to_lowercase()});
    let mut details: Vec<&Value> = deleted.iter().map(|event| &event["detail"]).collect();
    details.sort_by_key(|detail| detail["family"].as_str().map(str::to_owned));
    assert_eq!(details, [&expected("orbit"), &expected("osquery")]);
}

#[tokio::test]
async fn a_host_with_an_agent_that_runs_a_policy_stays_whole_where_it_is() {
    let (server, _, _) = server().await;
    let record = server.record(Family::Orbit, UUID).await.expect("a record");
    let elastic = AgentRecord { host_id: record.host_id, ..online_agent("elastic", None, server.now()) };
    server.add_agent(elastic, AgentDocuments::default()).await;
    let everything = HostsToMove::Matching(AgentFilter::default());
    let done = server.fleet.transfers().transfer(&in_space("default"), &everything, "red").await.expect("outcomes");
    assert_eq!(done[0].outcome, Err(Refusal::OtherFamily(Family::Elastic)));
    for family in [Family::Orbit, Family::Osquery] {
        assert_eq!(server.record(family, UUID).await.expect("a record").space, SpaceId::default());
    }
}

#[tokio::test]
async fn a_program_that_was_left_behind_joins_the_host_that_its_machine_has_in_the_other_space() {
    let (server, _, osquery) = server().await;
    // Only orbit has enrolled with a secret of the other space.
    server.orbit_key(&server.secret_in("red").await, UUID).await;
    let there = host(&server, "red").await.expect("a host").host.id;
    let moved = transfer(&server, &in_space("default"), "red").await.expect("an outcome").outcome.expect("moved");
    assert_eq!((moved.host, moved.agents), (Some(there), 1));
    assert_eq!(host(&server, "red").await.expect("a host").agents.len(), 2);
    asked(&server, &osquery).await;
    let rows = HostRows::Page(Page { offset: 0, limit: 10 });
    let grant = in_space("default").grant().expect("an administrator");
    let left = server.fleet.agents().hosts(&grant, &AgentFilter::default(), &rows).await.expect("a list");
    assert_eq!(left.total, 0);
}

#[tokio::test]
async fn both_spaces_learn_of_a_transfer_from_their_audit_log_and_their_changes() {
    let (server, _, _) = server().await;
    let newest = *server.fleet.change_log().newest().borrow();
    transfer(&server, &in_space("default"), "red").await.expect("an outcome").outcome.expect("moved");
    let moved = server.events("host.transfer").await;
    let spaces: Vec<&Value> = moved.iter().map(|event| &event["space"]).collect();
    assert_eq!(spaces, [&json!("default"), &json!("red")]);
    assert_eq!(moved[0]["detail"]["agents"].as_array().map(Vec::len), Some(2), "{moved:?}");
    let orbit = agent_id(Family::Orbit, UUID);
    let seen = async |space: &str| {
        let page = server.fleet.change_log().after(&in_space(space), Some(newest), 100).await.expect("changes");
        let of_orbit = page.changes.into_iter().filter(|change| change.id == orbit.as_str());
        of_orbit.map(|change| change.is_deleted).collect::<Vec<_>>()
    };
    assert_eq!((seen("default").await, seen("red").await), (vec![true], vec![false]));
}
