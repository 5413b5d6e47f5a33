//! Live queries: targets, answers, ends, limits.

use muster_core::id::{HostId, LiveQueryId, SpaceId};
use muster_core::live_query::{
    EndReason, Ended, HostAnswer, LiveQuery, LiveResult, MAX_BYTES, MAX_ENDED, MAX_RUNNING, MAX_RUNNING_OF_USER,
};
use muster_core::status::Status;
use muster_store::{AgentWrite, LiveQueryWrite, Precondition, Store, Write};

use super::sample::*;

pub fn query(id: &str, targets: u64) -> LiveQuery {
    LiveQuery {
        id: LiveQueryId::trusted(id),
        space: SpaceId::default(),
        sql: "SELECT 1".into(),
        created_by: "local:root".into(),
        created_at: at(5),
        expires_at: at(90),
        targets,
        answered: 0,
        failed: 0,
        gone: 0,
        rows: 0,
        bytes: 0,
        ended: None,
    }
}

fn insert(query: &LiveQuery, targets: &[&str]) -> Write {
    let targets = targets.iter().map(|id| agent_id(id)).collect();
    LiveQueryWrite::Insert { query: Box::new(query.clone()), targets }.into()
}

fn answer(query: &LiveQuery, agent: &str, answer: HostAnswer) -> Write {
    let (agent, host) = (agent_id(agent), Some(HostId::trusted("h")));
    let result = LiveResult { seq: 0, agent, host, hostname: "web-7".into(), at: at(7), answer };
    LiveQueryWrite::Answer { query: query.id.clone(), result: Box::new(result) }.into()
}

fn row() -> HostAnswer {
    HostAnswer { error: None, rows: r#"[{"a":"1"}]"#.into(), row_count: 1, is_truncated: true, missing_rows: 7 }
}

fn failure() -> HostAnswer {
    HostAnswer { error: Some("no such table".into()), rows: "[]".into(), ..HostAnswer::default() }
}

fn end(query: &LiveQuery, reason: EndReason) -> Write {
    LiveQueryWrite::End { id: query.id.clone(), reason, now: at(9) }.into()
}

/// Inserts agents and a live query for them.
async fn begun(store: &impl Store, id: &str, agents: &[&str]) -> LiveQuery {
    for agent in agents {
        let mut record = bare_agent(agent);
        record.credentials = one_key(&format!("key-of-{agent}"));
        let insert = AgentWrite::Insert { record: Box::new(record), documents: Default::default() };
        commit(store, vec![insert.into()]).await;
    }
    let query = query(id, agents.len() as u64);
    commit(store, vec![insert(&query, agents)]).await;
    query
}

async fn stored(store: &impl Store, query: &LiveQuery) -> LiveQuery {
    store.live_query_in(&query.space, &query.id).await.unwrap().unwrap()
}

pub async fn a_live_query_ends_with_its_last_answer(store: &impl Store) {
    let query = begun(store, "q", &["a", "b"]).await;
    assert_eq!(stored(store, &query).await, query);
    assert_eq!(store.live_query_in(&SpaceId::trusted("other"), &query.id).await.unwrap(), None);
    assert_eq!(store.live_query_pending(&query.id, None, 9).await.unwrap(), [agent_id("a"), agent_id("b")]);
    commit(store, vec![answer(&query, "b", row())]).await;
    assert_eq!(store.live_query_pending(&query.id, None, 9).await.unwrap(), [agent_id("a")]);
    assert_eq!(store.live_queries_running().await.unwrap().len(), 1);
    commit(store, vec![answer(&query, "a", failure())]).await;
    let ended = Some(Ended { at: at(7), reason: EndReason::Complete });
    let expected = LiveQuery { answered: 2, failed: 1, rows: 1, bytes: 11 + 15, ended, ..query.clone() };
    assert_eq!(stored(store, &query).await, expected);
    assert_eq!(store.live_queries_running().await.unwrap(), []);
    commit(store, vec![end(&query, EndReason::TimedOut)]).await;
    assert_eq!(stored(store, &query).await, expected, "an end stays");
}

pub async fn answers_are_numbered_and_come_in_pages_of_a_size(store: &impl Store) {
    let query = begun(store, "q", &["a", "b", "c"]).await;
    for (agent, given) in [("b", row()), ("c", failure()), ("a", row())] {
        commit(store, vec![answer(&query, agent, given)]).await;
    }
    let page = async |after, bytes, limit| store.live_query_results(&query.id, after, bytes, limit).await.unwrap();
    let all = page(0, 1000, 9).await;
    let told: Vec<_> = all.iter().map(|result| (result.seq, result.agent.as_str(), result.hostname.as_str())).collect();
    assert_eq!(told, [(1, "b", "web-7"), (2, "c", "web-7"), (3, "a", "web-7")]);
    assert_eq!((&all[0].answer, &all[1].answer), (&row(), &failure()));
    assert_eq!((all[0].at, all[0].host.clone()), (at(7), Some(HostId::trusted("h"))));
    assert_eq!((page(0, 1, 9).await.len(), page(0, 26, 9).await.len(), page(1, 26, 9).await.len()), (1, 2, 2));
    assert_eq!((page(0, 1000, 2).await.len(), page(3, 1000, 9).await.len()), (2, 0));
}

pub async fn fl34_fl35_only_the_first_answer_of_a_target_counts_and_none_after_the_end(store: &impl Store) {
    let query = begun(store, "q", &["a", "b"]).await;
    commit(store, vec![answer(&query, "a", row())]).await;
    for refusal in [answer(&query, "a", failure()), answer(&query, "stranger", row())] {
        assert!(matches!(refused(store, vec![refusal]).await, Precondition::Missing(_)));
    }
    commit(store, vec![end(&query, EndReason::Stopped)]).await;
    assert!(matches!(refused(store, vec![answer(&query, "b", row())]).await, Precondition::Missing(_)));
    let after = stored(store, &query).await;
    assert_eq!((after.answered, after.failed, after.state()), (1, 0, "stopped"));
    assert_eq!(
        store.live_query_pending(&query.id, None, 9).await.unwrap(),
        [agent_id("b")],
        "the answer was rolled back"
    );
}

pub async fn a_live_query_ends_when_its_results_reach_the_limit(store: &impl Store) {
    let query = begun(store, "q", &["a", "b"]).await;
    let large = HostAnswer { rows: " ".repeat(usize::try_from(MAX_BYTES).unwrap()), ..row() };
    commit(store, vec![answer(&query, "a", large)]).await;
    assert_eq!(stored(store, &query).await.state(), "full");
}

pub async fn targets_that_cannot_answer_are_counted(store: &impl Store) {
    let query = begun(store, "q", &["a", "b", "c"]).await;
    let before = store.agent(&agent_id("a")).await.unwrap().unwrap();
    let mut after = before.clone();
    (after.status, after.version) = (Status::Offline, before.version + 1);
    let update = AgentWrite::Update { before: before.into(), after: after.into() };
    commit(store, vec![update.into()]).await;
    assert_eq!(store.live_query_absent(&query.id).await.unwrap(), 1);
    commit(store, vec![answer(&query, "a", row())]).await;
    assert_eq!(store.live_query_absent(&query.id).await.unwrap(), 0);
}

pub async fn a_live_query_does_not_wait_for_targets_that_leave_its_space(store: &impl Store) {
    let query = begun(store, "q", &["a", "b", "c"]).await;
    let other = begun(store, "r", &["d", "e"]).await;
    commit(store, vec![answer(&query, "a", row())]).await;
    let delete = |id: &str| vec![AgentWrite::Delete { id: agent_id(id), now: at(8) }.into()];
    commit(store, delete("a")).await;
    let left = async |query: &LiveQuery| {
        let stored = stored(store, query).await;
        (stored.answered, stored.gone, stored.state())
    };
    assert_eq!(left(&query).await, (1, 0, "running"), "it has answered");
    let before = store.agent(&agent_id("b")).await.unwrap().unwrap();
    let mut after = before.clone();
    (after.space, after.version) = (SpaceId::trusted("red"), before.version + 1);
    commit(store, vec![AgentWrite::Update { before: before.into(), after: after.into() }.into()]).await;
    assert_eq!(left(&query).await, (1, 1, "running"));
    assert_eq!(store.live_query_pending(&query.id, None, 9).await.unwrap(), [agent_id("c")]);
    assert!(matches!(refused(store, vec![answer(&query, "b", row())]).await, Precondition::Missing(_)));
    commit(store, delete("c")).await;
    assert_eq!(stored(store, &query).await.ended, Some(Ended { at: at(8), reason: EndReason::Complete }));
    assert_eq!(left(&query).await, (1, 2, "complete"));
    // The last answer ends it as well, and what has ended does not change.
    commit(store, delete("d")).await;
    commit(store, vec![answer(&other, "e", row())]).await;
    commit(store, delete("e")).await;
    assert_eq!(left(&other).await, (1, 1, "complete"));
    commit(store, vec![insert(&super::live_queries::query("s", 2), &["b", "nobody"])]).await;
    assert_eq!(left(&super::live_queries::query("s", 2)).await, (0, 2, "complete"), "they left before it began");
}

pub async fn the_number_of_live_queries_is_limited(store: &impl Store) {
    commit(store, vec![super::sample::insert(&bare_agent("a"))]).await;
    let by = |number: u64| format!("user:{} token:t{number}", number / MAX_RUNNING_OF_USER);
    for number in 0..MAX_RUNNING {
        let one = LiveQuery { created_by: by(number), ..query(&format!("q{number}"), 1) };
        commit(store, vec![insert(&one, &["a"])]).await;
        if number + 1 == MAX_RUNNING_OF_USER {
            let same = LiveQuery { created_by: "user:0".into(), ..query("same", 1) };
            assert!(matches!(refused(store, vec![insert(&same, &["a"])]).await, Precondition::TooMany(_)));
            let longer = LiveQuery { created_by: "user:01".into(), ..query("longer", 1) };
            commit(store, vec![insert(&longer, &["a"]), end(&longer, EndReason::Stopped)]).await;
        }
    }
    let more = |id: &str| vec![insert(&query(id, 1), &["a"])];
    assert!(matches!(refused(store, more("more")).await, Precondition::TooMany(_)));
    let other = LiveQuery { space: SpaceId::trusted("other"), ..query("other", 1) };
    commit(store, vec![insert(&other, &[])]).await;
    commit(store, vec![end(&query("q0", 1), EndReason::Stopped)]).await;
    commit(store, more("more")).await;
    for number in 0..=MAX_ENDED {
        let one = LiveQuery { created_at: at(100), ..query(&format!("e{number:03}"), 1) };
        commit(store, vec![end(&query("more", 1), EndReason::Stopped)]).await;
        commit(store, vec![insert(&one, &[]), end(&one, EndReason::Stopped)]).await;
    }
    let kept = store.live_queries(&SpaceId::default()).await.unwrap();
    let ended = kept.iter().filter(|query| query.ended.is_some()).count() as u64;
    assert!((MAX_ENDED..=MAX_ENDED + 1).contains(&ended), "{ended}");
    assert!(kept.iter().all(|query| query.id.as_str() != "q0"), "the oldest is deleted");
}

pub async fn a_live_query_can_be_prolonged(store: &impl Store) {
    let query = begun(store, "q", &["a"]).await;
    let time_out = |seconds| {
        vec![LiveQueryWrite::End { id: query.id.clone(), reason: EndReason::TimedOut, now: at(seconds) }.into()]
    };
    let prolong = |seconds| vec![LiveQueryWrite::Prolong { id: query.id.clone(), until: at(seconds) }.into()];
    commit(store, prolong(200)).await;
    commit(store, prolong(100)).await;
    // A server that does not know of it yet would end it.
    commit(store, time_out(91)).await;
    assert_eq!((stored(store, &query).await.expires_at, stored(store, &query).await.ended), (at(200), None));
    commit(store, time_out(200)).await;
    commit(store, prolong(300)).await;
    let ended = stored(store, &query).await;
    assert_eq!((ended.expires_at, ended.ended.map(|ended| ended.reason)), (at(200), Some(EndReason::TimedOut)));
}

pub async fn old_live_queries_are_deleted_with_their_results(store: &impl Store) {
    let query = begun(store, "q", &["a"]).await;
    assert_eq!(store.live_queries_prune(at(1000), 9).await.unwrap(), 0, "it runs");
    commit(store, vec![answer(&query, "a", row())]).await;
    assert_eq!(store.live_queries_prune(at(7), 9).await.unwrap(), 0, "it has just ended");
    assert_eq!(store.live_queries_prune(at(8), 9).await.unwrap(), 1);
    assert_eq!(store.live_query_in(&query.space, &query.id).await.unwrap(), None);
    assert_eq!(store.live_query_results(&query.id, 0, 1000, 9).await.unwrap(), []);
}
