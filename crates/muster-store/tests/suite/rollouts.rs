//! Staged rollouts, and the places of agents.

use std::time::Duration;

use muster_core::id::{AgentId, PolicyId, RolloutId, SpaceId};
use muster_core::rollout::{Baseline, Gate, Members, Place, Plan, Rollout, StartedWave, State, Subject, Wave};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentFilter, Page};
use muster_store::{Precondition, RolloutWrite, Store};

use super::sample::*;

const ALL: Page = Page { offset: 0, limit: 10 };

fn rollout(id: &str, policy: &str) -> Rollout {
    let wave =
        |percent| Wave { members: Members::Percent(percent), soak: Duration::from_secs(60), needs_approval: false };
    Rollout {
        id: RolloutId::trusted(id),
        space: SpaceId::default(),
        subject: Subject::Policy { policy: PolicyId::trusted(policy), revision: 2, last_good: 1 },
        plan: Plan { waves: vec![wave(10), wave(100)], gate: Gate::default() },
        started: Vec::new(),
        state: State::Created,
        version: 1,
        created_at: Timestamp::from_micros(5),
        created_by: "local:root".into(),
        updated_at: Timestamp::from_micros(5),
    }
}

fn insert(rollout: &Rollout) -> muster_store::Write {
    insert_for(rollout, &[])
}

fn insert_for(rollout: &Rollout, agents: &[AgentId]) -> muster_store::Write {
    RolloutWrite::Insert { rollout: Box::new(rollout.clone()), agents: agents.to_vec() }.into()
}

fn update(rollout: &Rollout) -> muster_store::Write {
    RolloutWrite::Update(Box::new(rollout.clone())).into()
}

pub async fn a_rollout_comes_back_and_changes_by_version(store: &impl Store) {
    let mut written = rollout("r", "p");
    commit(store, vec![insert(&written)]).await;
    assert_eq!(store.rollout_in(&written.space, &written.id).await.unwrap().as_ref(), Some(&written));
    assert_eq!(store.rollout_in(&SpaceId::trusted("other"), &written.id).await.unwrap(), None);
    let baseline = Baseline { agents: 3, unhealthy: 1 };
    written.start(StartedWave { at: Timestamp::from_micros(9), below: Some(Place::share(10)), baseline });
    written.version = 2;
    commit(store, vec![update(&written)]).await;
    assert_eq!(store.active_rollouts().await.unwrap(), [written.clone()]);
    assert!(matches!(refused(store, vec![update(&written)]).await, Precondition::Changed(_)), "not twice");
}

pub async fn a_policy_has_one_active_rollout(store: &impl Store) {
    let mut first = rollout("a", "p");
    commit(store, vec![insert(&first)]).await;
    assert!(matches!(refused(store, vec![insert(&rollout("b", "p"))]).await, Precondition::ActiveRollout(_)));
    let none_active = || vec![RolloutWrite::NoneActive(PolicyId::trusted("p")).into()];
    assert!(matches!(refused(store, none_active()).await, Precondition::ActiveRollout(_)));
    commit(store, vec![insert(&rollout("c", "q"))]).await;
    (first.state, first.version) = (State::Completed, 2);
    commit(store, vec![update(&first)]).await;
    commit(store, none_active()).await;
    assert_eq!(store.active_rollout_of(&PolicyId::trusted("p")).await.unwrap(), None);
    assert!(store.active_rollout_of(&PolicyId::trusted("q")).await.unwrap().is_some());
    commit(store, vec![insert(&Rollout { created_at: Timestamp::from_micros(7), ..rollout("b", "p") })]).await;
    let listed = store.rollouts(&SpaceId::default(), ALL).await.unwrap();
    let ids: Vec<&str> = listed.items.iter().map(|rollout| rollout.id.as_str()).collect();
    assert_eq!((ids, listed.total), (vec!["b", "c", "a"], 3));
    assert_eq!(store.active_rollouts().await.unwrap().len(), 2);
}

pub async fn a_dry_run_checks_preconditions_and_writes_nothing(store: &impl Store) {
    let first = rollout("a", "p");
    assert_eq!(refused(store, vec![insert(&first), muster_store::Write::DryRun]).await, Precondition::DryRun);
    assert_eq!(store.active_rollouts().await.unwrap(), []);
    commit(store, vec![insert(&first)]).await;
    let second = vec![insert(&rollout("b", "p")), muster_store::Write::DryRun];
    assert!(matches!(refused(store, second).await, Precondition::ActiveRollout(_)));
}

pub async fn agents_are_found_by_their_place(store: &impl Store) {
    let ids: Vec<AgentId> = (0..20).map(|n| AgentId::trusted(format!("agent-{n}"))).collect();
    for id in &ids {
        commit(store, vec![super::sample::insert(&bare_agent(id.as_str()))]).await;
    }
    let mut places: Vec<Place> = ids.iter().map(Place::of).collect();
    places.sort();
    let everybody = AgentFilter::default();
    assert_eq!(store.agent_place(&everybody, 0).await.unwrap(), Some(places[0]));
    assert_eq!(store.agent_place(&everybody, 19).await.unwrap(), Some(places[19]));
    assert_eq!(store.agent_place(&everybody, 20).await.unwrap(), None);
    let below = AgentFilter::all([AgentCondition::PlaceBelow(places[5])]);
    let found: u64 = store.agent_counts(&below).await.unwrap().iter().map(|(_, count)| count).sum();
    assert_eq!(found, 5);
    let rest = AgentFilter::all([!AgentCondition::PlaceBelow(places[5])]);
    let found: Vec<(Status, u64)> = store.agent_counts(&rest).await.unwrap();
    assert_eq!(found.iter().map(|(_, count)| count).sum::<u64>(), 15);
}

pub async fn the_agents_of_an_upgrade_are_found_by_its_rollout(store: &impl Store) {
    for id in ["a", "b", "c"] {
        commit(store, vec![super::sample::insert(&bare_agent(id))]).await;
    }
    let subject = Subject::Upgrade { version: "9.6.0".into(), source_uri: None, actions: Vec::new() };
    let upgrade = Rollout { subject, ..rollout("r", "-") };
    commit(store, vec![insert_for(&upgrade, &[agent_id("a"), agent_id("c")])]).await;
    let find =
        async |condition: AgentCondition| store.agent_ids(&AgentFilter::all([condition]), None, 10).await.unwrap();
    assert_eq!(find(AgentCondition::InRollout(upgrade.id.clone())).await, [agent_id("a"), agent_id("c")]);
    assert_eq!(find(AgentCondition::InRollout(RolloutId::trusted("other"))).await, []);
    let version = bare_agent("a").agent_version;
    assert_eq!(find(AgentCondition::Versions(vec![version, "0.0.1".into()])).await.len(), 3);
    assert_eq!(find(AgentCondition::Versions(vec!["0.0.1".into()])).await, []);
}
