//! Presence belongs to the server to which the agent is connected; one server evaluates all statuses.

use std::time::Duration;

use muster_core::status::Status;
use muster_fleet::testing::{TestFleet, steady};

use crate::cluster::{Agent, Database, ONLINE, root};

async fn status(server: &TestFleet, id: &str) -> Status {
    server.stored(id).await.status
}

/// Fails if the servers do not write the sightings of their agents in time.
#[tokio::test(flavor = "multi_thread")]
async fn agent_that_is_connected_to_one_server_is_never_marked_offline_by_another() {
    let (a, b) = Database::new().await.two().await;
    let (connected, gone) = (Agent::new(&a, "connected").await, Agent::new(&a, "gone").await);
    let held = connected.poll(&a, ONLINE).await;
    drop(gone.poll(&a, ONLINE).await);
    for _ in 0..3 {
        for _ in 0..30 {
            a.clock.advance(Duration::from_secs(10));
            a.fleet.statuses().renew_presence().await.expect("written");
        }
        b.fleet.statuses().transition_due().await.expect("evaluated");
        assert_eq!(status(&b, "connected").await, Status::Online);
    }
    a.clock.advance(Duration::from_secs(1));
    b.fleet.statuses().transition_due().await.expect("evaluated");
    assert_eq!(status(&b, "gone").await, Status::Offline);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_that_one_server_marked_offline_is_online_again_after_a_heartbeat_to_another() {
    let (a, b) = Database::new().await.two().await;
    let agent = Agent::new(&a, "a").await;
    drop(agent.poll(&a, ONLINE).await);
    a.clock.advance(Duration::from_secs(301));
    b.fleet.statuses().transition_due().await.expect("evaluated");
    assert_eq!(status(&b, "a").await, Status::Offline);
    crate::cluster::eventually("the news", async || agent.is_current_on(&a).await).await;
    drop(agent.poll(&a, ONLINE).await);
    assert_eq!(status(&b, "a").await, Status::Online);
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_evaluated_by_one_server_at_a_time() {
    let database = Database::new().await;
    let (a, b) = database.two().await;
    for id in ["a", "b"] {
        let agent = Agent::new(&a, id).await;
        drop(agent.poll(&a, ONLINE).await);
    }
    assert_eq!(a.fleet.statuses().transition_due().await.expect("evaluated"), 0, "it holds the lease now");
    a.clock.advance(Duration::from_secs(301));
    assert_eq!(b.fleet.statuses().transition_due().await.expect("no lease"), 0);
    database.expire(&a).await;
    assert_eq!(b.fleet.statuses().transition_due().await.expect("evaluated"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn absences_count_anew_when_a_server_leaves() {
    let database = Database::new().await;
    let (a, b) = database.two().await;
    a.fleet.nodes().describe("a".into(), "1.0.0".into(), vec!["192.0.2.1:8220".into()]).await.expect("described");
    let agent = Agent::new(&a, "a").await;
    b.fleet.statuses().watch_members().await.expect("readable");
    drop(agent.poll(&a, ONLINE).await);
    a.clock.advance(Duration::from_secs(3600));
    database.expire(&a).await;
    b.fleet.statuses().watch_members().await.expect("readable");
    b.fleet.statuses().transition_due().await.expect("evaluated");
    assert_eq!(status(&b, "a").await, Status::Online, "it had no chance to be seen");
    a.clock.advance(Duration::from_secs(15 * 60));
    b.fleet.statuses().transition_due().await.expect("evaluated");
    assert_eq!(status(&b, "a").await, Status::Offline);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_accepted_agents_does_not_keep_them_online() {
    let database = Database::new().await;
    let (a, b) = database.two().await;
    let agent = Agent::new(&b, "a").await;
    drop(agent.poll(&b, ONLINE).await);
    b.fleet.statuses().watch_members().await.expect("readable");
    b.clock.advance(Duration::from_secs(3600));
    database.expire(&a).await;
    b.fleet.statuses().watch_members().await.expect("readable");
    b.fleet.statuses().transition_due().await.expect("evaluated");
    assert_eq!(status(&b, "a").await, Status::Offline);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_came_back_is_not_listed_as_lost() {
    let database = Database::new().await;
    let a = TestFleet::over(database.open().await, steady());
    let lost = |id: &str| {
        format!(
            "INSERT INTO lost_nodes (id, name, lost_at) VALUES ('{id}', 'name of {id}', \
             CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT))"
        )
    };
    let listed = async || a.fleet.nodes().list(&root().grant().expect("granted")).await.expect("readable");
    let this = listed().await.this;
    for id in [this.as_str(), "gone"] {
        database.sql(&lost(id)).await;
    }
    let nodes = listed().await;
    let ids: Vec<_> = nodes.lost.iter().map(|node| node.id.as_str()).collect();
    assert_eq!((nodes.live.len(), ids), (1, vec!["gone"]));
}
