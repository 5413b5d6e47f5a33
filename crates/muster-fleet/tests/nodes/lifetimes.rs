//! Servers whose lease has expired, and servers that drain.

use std::time::Duration;

use muster_core::action::ActionType;
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::authorization::NodesWrite;
use muster_core::documents::bytes_digest;
use muster_core::id::ActionId;
use muster_core::testing::online_agent;
use muster_fleet::check_in::{Delivery, Poll};
use muster_fleet::testing::TestFleet;
use muster_store::{LeaseName, NodeLease};
use serde_json::json;

use crate::cluster::{Agent, Database, ONLINE, ended, root};

fn id(server: &TestFleet) -> String {
    server.store().this_node().borrow().node.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_was_taken_for_dead_ends_its_polls_and_starts_with_empty_caches() {
    let database = Database::new().await;
    let (a, b) = database.two().await;
    let agent = Agent::new(&a, "a").await;
    let entry = agent.entry(&a).await;
    let held = tokio::spawn(agent.poll(&a, ONLINE).await.wait());
    let before = a.store().this_node().borrow().epoch.clone();
    database.expire(&a).await;
    let answer = ended_patiently(held).await;
    assert!(matches!(answer, Delivery::Nothing), "its agent polls again");
    let standing = a.store().this_node().borrow().clone();
    assert!(standing.epoch != before && standing.lease == NodeLease::Held);
    assert!(a.fleet.registry().is_empty());
    // A request that was authenticated before must not be held on an entry that nobody refreshes.
    let digest = bytes_digest(&[ONLINE.as_bytes()]);
    if let Some(Poll::Held(orphan)) = a.fleet.check_ins().check_in_unchanged(&entry, &digest).await.expect("accepted") {
        assert!(matches!(ended(tokio::spawn(orphan.wait())).await, Ok(Delivery::Nothing)));
    }
    let held = tokio::spawn(agent.poll(&a, ONLINE).await.wait());
    agent.revoke(&b).await;
    ended(held).await.err().expect("the revocation reaches it");
}

/// A server notices within seconds that its lease is gone.
async fn ended_patiently(held: tokio::task::JoinHandle<Result<Delivery, muster_core::Error>>) -> Delivery {
    tokio::time::timeout(Duration::from_secs(20), held).await.expect("it ends").expect("no panic").expect("no error")
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_server_ends_its_polls_and_holds_new_ones_briefly_until_it_is_resumed() {
    let (a, b) = Database::new().await.two().await;
    let agent = Agent::new(&a, "a").await;
    let held = tokio::spawn(agent.poll(&a, ONLINE).await.wait());
    let find = async || b.fleet.nodes().find::<NodesWrite>(&root(), &id(&a)).await.expect("it is there");
    b.fleet.nodes().drain(&find().await).await.expect("the other one accepts agents");
    a.fleet.statuses().watch_members().await.expect("readable");
    b.fleet.statuses().watch_members().await.expect("readable");
    assert!(a.fleet.is_draining() && !b.fleet.is_draining());
    assert!(matches!(ended(held).await, Ok(Delivery::Nothing)));
    // Held for some seconds, so that an agent does not poll in a loop until the balancer sends it elsewhere.
    let poll = agent.poll(&a, ONLINE).await;
    let (soon, late) = (Duration::from_secs(4), Duration::from_secs(11));
    assert!(tokio::time::timeout(soon, poll.wait()).await.is_err(), "it is held for five seconds at least");
    let poll = agent.poll(&a, ONLINE).await;
    assert!(matches!(tokio::time::timeout(late, poll.wait()).await, Ok(Ok(Delivery::Nothing))));
    b.fleet.nodes().resume(&find().await).await.expect("it is there");
    a.fleet.statuses().watch_members().await.expect("readable");
    assert!(!a.fleet.is_draining());
}

#[tokio::test(flavor = "multi_thread")]
async fn last_server_that_accepts_agents_is_not_drained() {
    let database = Database::new().await;
    let (a, b) = database.two().await;
    let drain = async |server: &TestFleet| {
        let found = a.fleet.nodes().find::<NodesWrite>(&root(), &id(server)).await.expect("it is there");
        a.fleet.nodes().drain(&found).await
    };
    drain(&a).await.expect("the other one accepts agents");
    assert_eq!(drain(&b).await.err().map(|error| error.code), Some("last_node"));
    database.expire(&a).await;
    assert_eq!(drain(&b).await.err().map(|error| error.code), Some("last_node"));
}

/// Adds an agent that its policy wants to be upgraded.
async fn upgradeable(server: &TestFleet) {
    let versions = json!({"required_versions": [{"version": "9.6.0", "percentage": 100}]});
    server.add_policy("upgrading", |policy| policy.fields = versions).await;
    let record = AgentRecord {
        agent_version: "9.5.0".into(),
        last_checkin: Some(server.now()),
        ..online_agent("old", Some("upgrading"), server.now())
    };
    let metadata = json!({"elastic": {"agent": {"upgradeable": true}}}).to_string();
    server.add_agent(record, AgentDocuments { local_metadata: Some(metadata.into()), components: None }).await;
}

/// Fails if a server works without asking for the lease: both then find the expired action.
#[tokio::test(flavor = "multi_thread")]
async fn mg157_work_is_done_by_one_server_at_a_time() {
    let database = Database::new().await;
    let (a, b) = database.two_that_stand_still().await;
    for lease in LeaseName::ALL {
        let (first, second) = tokio::join!(a.store().take_lease(lease), b.store().take_lease(lease));
        let (first, second) = (first.expect("readable"), second.expect("readable"));
        assert_eq!(usize::from(first.is_some()) + usize::from(second.is_some()), 1, "{lease:?}");
        if let Some(token) = second {
            b.store().release_lease(token).await.expect("it is held");
            a.store().take_lease(lease).await.expect("readable").expect("it is free");
        }
    }
    let agent = Agent::new(&a, "a").await;
    let long_over = a.now().minus(Duration::from_secs(60 * 86_400));
    a.add_action("old", ActionType::Settings, agent.id.as_str(), |action| action.expiration = Some(long_over)).await;
    let is_there = async || a.store().action(&ActionId::trusted("old")).await.expect("readable").is_some();
    b.fleet.housekeeping().run().await;
    assert!(is_there().await, "the other server has the lease");
    upgradeable(&a).await;
    assert_eq!(b.fleet.auto_upgrades().advance().await.expect("it looks"), 0, "the other server has the lease");
    database.expire(&a).await;
    b.fleet.housekeeping().run().await;
    assert!(!is_there().await, "its holder is gone");
    assert_eq!(b.fleet.auto_upgrades().advance().await.expect("it looks"), 1);
}
