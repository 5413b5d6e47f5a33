//! Live queries: created at one server, answered at another, watched at the first.

use std::time::Duration;

use muster_core::agent::{AgentDocuments, AgentRecord, Family};
use muster_core::id::AgentId;
use muster_core::live_query::HostAnswer;
use muster_core::testing::bare_agent;
use muster_fleet::live_queries::{Asked, NewLiveQuery, Outcome, QuerySource};
use muster_store::query::AgentFilter;

use super::cluster::{Database, eventually, root};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_any_server_reaches_the_watcher_of_another() {
    let database = Database::new().await;
    let (a, b) = database.two().await;
    for id in ["one", "two"] {
        let record = AgentRecord { family: Family::Osquery, ..bare_agent(id, a.now()) };
        a.add_agent(record, AgentDocuments::default()).await;
    }
    let new = NewLiveQuery {
        sql: QuerySource::Sql("SELECT 1".into()),
        hosts: Vec::new(),
        labels: Vec::new(),
        filter: AgentFilter::default(),
        timeout: Duration::from_secs(60),
    };
    let query = a.fleet.live_queries().create(&root(), new).await.unwrap().query;
    let one = b.fleet.entry(&AgentId::trusted("one")).await.unwrap();
    eventually("the query reaches the other server", async || !b.fleet.live_queries().due(&one).is_empty()).await;
    let answer = || HostAnswer { rows: "[]".into(), ..HostAnswer::default() };
    let id = query.id.as_str();
    assert_eq!(b.fleet.live_queries().answer(&one, id, answer()).await.unwrap(), Outcome::Stored);
    assert_eq!(b.fleet.live_queries().asked(&one, id).await.unwrap(), Asked::Late);
    // The first server has not learned of it, and asks again; the second answer is dropped.
    let there = a.fleet.entry(&AgentId::trusted("one")).await.unwrap();
    assert_eq!(a.fleet.live_queries().due(&there).len(), 1);
    assert_eq!(a.fleet.live_queries().answer(&there, id, answer()).await.unwrap(), Outcome::Dropped);
    assert!(a.fleet.live_queries().due(&there).is_empty());
    let found = a.fleet.live_queries().find(&root(), id).await.unwrap();
    let results = a.fleet.live_queries().results(&found, 0, 10).await.unwrap();
    assert_eq!((found.answered, results.len(), results[0].agent.as_str()), (1, 1, "one"));
    // A stop at the other server ends it here, too.
    let found = b.fleet.live_queries().find(&root(), id).await.unwrap();
    assert_eq!(b.fleet.live_queries().stop(&found).await.unwrap().state(), "stopped");
    let two = a.fleet.entry(&AgentId::trusted("two")).await.unwrap();
    eventually("the stop reaches the first server", async || a.fleet.live_queries().due(&two).is_empty()).await;
}
