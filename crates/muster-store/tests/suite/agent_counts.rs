//! Maintained numbers of agents, compared with a recount after random histories.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::id::{AgentId, PolicyId, SpaceId};
use muster_core::status::Status;
use muster_store::query::AgentCondition::{self, All, Any, HasPolicy, Policies, Statuses, Tags};
use muster_store::query::{AgentFilter, AgentSort, Page};
use muster_store::{AgentWrite, Store, Write};

use super::sample::*;

const STATUSES: [Status; 4] = [Status::Online, Status::Offline, Status::Unenrolled, Status::Error];
const AGENTS: u64 = 25;
const ROUNDS: usize = 40;
/// Commits that are submitted at once, so that transactions contain several.
const AT_ONCE: usize = 6;

/// A generator of the same numbers in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[usize::try_from(self.below(values.len() as u64)).unwrap()].clone()
    }

    fn change(&mut self, record: &mut AgentRecord) {
        match self.below(5) {
            0 => record.policy_id = self.of(&[None, Some("p"), Some("q")]).map(PolicyId::trusted),
            1 => {
                let tags = self.of(&[&[][..], &["x"], &["x", "y"], &["y", "=", "it's"]]);
                record.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            }
            2 => record.space = SpaceId::trusted(self.of(&["default", "other"])),
            3 => record.health.message = format!("message {}", self.below(9)),
            _ => record.status = self.of(&STATUSES),
        }
    }
}

/// Agents as the commits leave them. What a commit does is decided from a copy, which may be stale.
type Fleet = BTreeMap<AgentId, AgentRecord>;

/// Returns the writes of a random commit, and the state of its agent after it. Some commits fail: the agent exists or not, the
/// record is stale, or the last write fails after the others.
fn random(numbers: &mut Numbers, fleet: &Fleet) -> (Vec<Write>, AgentId, Option<AgentRecord>) {
    let id = agent_id(&format!("a{}", numbers.below(AGENTS)));
    let known = fleet.get(&id);
    let (mut writes, after) = match (known, numbers.below(8)) {
        (_, 0) => (vec![Write::Agent(AgentWrite::Delete { id: id.clone(), now: at(9) })], None),
        (Some(before), 1..) => {
            let mut after = before.clone();
            after.version += 1;
            (0..=numbers.below(2)).for_each(|_| numbers.change(&mut after));
            let update = AgentWrite::Update { before: Arc::new(before.clone()), after: Arc::new(after.clone()) };
            (vec![Write::Agent(update)], Some(after))
        }
        (None, _) => {
            let mut record = bare_agent(id.as_str());
            (0..4).for_each(|_| numbers.change(&mut record));
            (vec![insert(&record)], Some(record))
        }
    };
    if numbers.below(10) == 0 {
        let documents = AgentDocuments { local_metadata: Some("{}".into()), components: None };
        writes.push(Write::Agent(AgentWrite::Documents { id: agent_id("nobody"), documents }));
    }
    (writes, id, after)
}

fn filters() -> Vec<AgentFilter> {
    let on = |id: &str| Policies(vec![PolicyId::trusted(id)]);
    let tag = |tag: &str| Tags(vec![tag.to_owned()]);
    let is = |status| Statuses(vec![status]);
    let conditions: Vec<Vec<AgentCondition>> = vec![
        vec![],
        vec![is(Status::Online)],
        vec![!is(Status::Unenrolled), on("p")],
        vec![!HasPolicy],
        vec![tag("x")],
        vec![tag("="), !is(Status::Offline)],
        vec![!tag("y"), HasPolicy],
        vec![Any(vec![tag("x"), on("q")])],
        vec![!All(vec![tag("x"), on("p")]), !is(Status::Error)],
        vec![tag("it's"), !tag("it's")],
        vec![tag("nobody has it")],
        // Counted from the rows.
        vec![tag("x"), tag("y")],
        vec![Tags(vec!["x".into(), "y".into()])],
    ];
    let spaces = [None, Some("default"), Some("other")].map(|space| space.map(SpaceId::trusted));
    let of = |space: &Option<SpaceId>| {
        let space = space.clone();
        conditions.clone().into_iter().map(move |conditions| AgentFilter {
            space: space.clone(),
            conditions,
            ..AgentFilter::default()
        })
    };
    spaces.iter().flat_map(of).collect()
}

/// Compares every number with the agents that the filter finds.
async fn check(store: &impl Store, seed: u64) {
    for filter in filters() {
        let mut statuses: BTreeMap<Status, u64> = BTreeMap::new();
        let mut tags: Vec<String> = Vec::new();
        let found = store.agent_ids(&filter, None, 1000).await.unwrap();
        for agent in store.agents_named(&found).await.unwrap() {
            *statuses.entry(agent.record.status).or_default() += 1;
            tags.extend(agent.record.tags);
        }
        let mut counted = store.agent_counts(&filter).await.unwrap();
        counted.sort();
        assert_eq!(counted, statuses.into_iter().collect::<Vec<_>>(), "seed {seed}: {filter:?}");
        let page = Page { offset: 0, limit: 1 };
        let listed = store.agent_list(&filter, AgentSort::EnrolledAt, false, page).await.unwrap();
        assert_eq!(listed.total, found.len() as u64, "seed {seed}: {filter:?}");
        tags.sort();
        tags.dedup();
        assert_eq!(store.agent_tags(&filter).await.unwrap(), tags, "seed {seed}: {filter:?}");
    }
}

pub async fn maintained_numbers_equal_a_recount_after_random_histories(store: &impl Store) {
    let mut fleet = Fleet::new();
    for seed in [1, 2, 3] {
        let mut numbers = Numbers(seed);
        for round in 0..ROUNDS {
            let commits: Vec<_> = (0..AT_ONCE).map(|_| random(&mut numbers, &fleet)).collect();
            let outcomes = join_all(commits.iter().map(|(writes, ..)| store.commit(writes.clone()))).await;
            for ((_, id, after), outcome) in commits.into_iter().zip(outcomes) {
                match (outcome, after) {
                    (Ok(_), Some(after)) => drop(fleet.insert(id, after)),
                    (Ok(_), None) => drop(fleet.remove(&id)),
                    (Err(_), _) => {}
                }
            }
            // An agent may have been deleted and inserted by commits of one round, in another order than here.
            for id in fleet.keys().cloned().collect::<Vec<_>>() {
                match store.agent(&id).await.unwrap() {
                    Some(record) => drop(fleet.insert(id, record)),
                    None => drop(fleet.remove(&id)),
                }
            }
            if round % 10 == 9 {
                check(store, seed).await;
            }
        }
        store.agent_counts_fold().await.unwrap();
        check(store, seed).await;
    }
    for id in fleet.into_keys() {
        commit(store, vec![Write::Agent(AgentWrite::Delete { id, now: at(10) })]).await;
    }
    store.agent_counts_fold().await.unwrap();
    check(store, 0).await;
    assert_eq!(store.agent_counts_fold().await.unwrap(), 0, "nothing is left to fold");
}

pub async fn numbers_of_an_hour_are_recorded_once_and_old_ones_deleted(store: &impl Store) {
    let in_space = |id: &str, space: &str, status| {
        let mut record = bare_agent(id);
        (record.space, record.status) = (SpaceId::trusted(space), status);
        insert(&record)
    };
    let agents = [("a", "default", Status::Online), ("b", "default", Status::Online), ("c", "other", Status::Error)];
    commit(store, agents.map(|(id, space, status)| in_space(id, space, status)).to_vec()).await;
    assert_eq!(store.agent_history_record(7, 0).await.unwrap(), 2);
    commit(store, vec![in_space("d", "default", Status::Offline), in_space("e", "default", Status::Unenrolled)]).await;
    assert_eq!(
        store.agent_history_record(7, 0).await.unwrap(),
        1,
        "the numbers of the hour stay, a new status is added"
    );
    assert_eq!(store.agent_history_record(8, 0).await.unwrap(), 3);
    let history = async |space: &str, since| store.agent_history(&SpaceId::trusted(space), since).await.unwrap();
    let (online, offline) = (Status::Online, Status::Offline);
    assert_eq!(history("default", 0).await, [(7, offline, 1), (7, online, 2), (8, offline, 1), (8, online, 2)]);
    assert_eq!(history("default", 8).await.len(), 2);
    store.agent_history_record(9, 9).await.unwrap();
    assert!(history("other", 0).await.iter().all(|(hour, _, _)| *hour == 9));
}
