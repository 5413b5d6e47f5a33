//! Keys of agents at the clusters of their outputs.

use muster_core::id::{ClusterId, KeyId, PolicyId};
use muster_core::output_key::{
    ClusterFailure, FailureKind, IssuedKey, KeyCounts, KeyFailure, KeyState, OutputCluster, OutputKey, RetiredKey,
};
use muster_core::policy::bootstrap::{Fallback, Trial};
use muster_store::{AgentWrite, OutputKeyWrite, Precondition, Store, Write};

use super::sample::*;

fn cluster_id(id: &str) -> ClusterId {
    ClusterId::trusted(id)
}

fn cluster(id: &str) -> OutputCluster {
    OutputCluster {
        id: cluster_id(id),
        output: format!("output-of-{id}"),
        sealed: b"\0sealed".to_vec(),
        failure: None,
        trial: Trial::default(),
    }
}

/// A wanted key of the agent `a` for the output `o` at the cluster `c`.
fn wanted() -> OutputKey {
    OutputKey {
        agent_id: agent_id("a"),
        output: "o".into(),
        version: 1,
        cluster: cluster_id("c"),
        state: KeyState::Wanted,
        issued: None,
        permissions_hash: "hash".into(),
        policy_id: PolicyId::trusted("p"),
        revision: 7,
        is_withheld: false,
        since: at(5),
        failure: None,
    }
}

fn issued(key: &OutputKey, id: &str) -> OutputKey {
    let issued = IssuedKey { id: KeyId::trusted(id), sealed: b"\xffkey".to_vec() };
    OutputKey { version: key.version + 1, state: KeyState::Live, issued: Some(issued), ..key.clone() }
}

fn put(key: &OutputKey) -> Write {
    OutputKeyWrite::Put(Box::new(key.clone())).into()
}

fn settle(key: &OutputKey) -> Write {
    OutputKeyWrite::Settle(Box::new(key.clone())).into()
}

fn put_cluster(cluster: &OutputCluster) -> Write {
    OutputKeyWrite::PutCluster(Box::new(cluster.clone())).into()
}

fn retired(id: &str, after: Option<(&str, i64)>) -> RetiredKey {
    let after = after.map(|(policy, revision)| (PolicyId::trusted(policy), revision));
    RetiredKey { cluster: cluster_id("c"), id: KeyId::trusted(id), agent_id: agent_id("a"), after, at: at(9) }
}

async fn keys(store: &impl Store) -> Vec<OutputKey> {
    store.output_keys(&agent_id("a")).await.unwrap().0
}

/// Keys at the cluster `c` that are to be invalidated.
async fn due(store: &impl Store) -> Vec<String> {
    let ids = store.retired_output_keys_due(&cluster_id("c"), 100).await.unwrap();
    let mut ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids
}

pub async fn a_key_comes_back_and_changes_from_the_version_before(store: &impl Store) {
    assert!(!store.has_output_keys().await.unwrap());
    commit(store, vec![put(&wanted())]).await;
    assert!(store.has_output_keys().await.unwrap());
    assert_eq!(keys(store).await, [wanted()]);
    assert!(matches!(refused(store, vec![put(&wanted())]).await, Precondition::Changed(_)), "one for each output");
    let failure = Some(KeyFailure { reason: "no".into(), retry_at: at(60) });
    let after = OutputKey {
        cluster: cluster_id("d"),
        state: KeyState::Widened,
        permissions_hash: "other".into(),
        policy_id: PolicyId::trusted("q"),
        revision: 8,
        is_withheld: true,
        since: at(6),
        failure,
        ..issued(&wanted(), "k")
    };
    commit(store, vec![put(&after)]).await;
    assert_eq!(keys(store).await, std::slice::from_ref(&after));
    let stale = OutputKey { version: 2, ..wanted() };
    for write in [put(&stale), OutputKeyWrite::Remove(Box::new(wanted())).into()] {
        assert!(matches!(refused(store, vec![write]).await, Precondition::Changed(_)));
    }
    commit(store, vec![OutputKeyWrite::Remove(Box::new(after)).into()]).await;
    assert_eq!(keys(store).await, []);
}

pub async fn a_result_is_stored_if_the_key_is_still_wanted_in_that_form(store: &impl Store) {
    let agent = bare_agent("a");
    commit(store, vec![insert(&agent), put(&wanted())]).await;
    commit(store, vec![settle(&issued(&wanted(), "one"))]).await;
    assert_eq!(keys(store).await, [issued(&wanted(), "one")]);
    // The answer to a call that was made for the former version.
    commit(store, vec![settle(&issued(&wanted(), "two"))]).await;
    assert_eq!((keys(store).await, due(store).await), (vec![issued(&wanted(), "one")], vec!["two".to_owned()]));
    // The same key again is in use.
    commit(store, vec![settle(&issued(&wanted(), "one"))]).await;
    let now = issued(&wanted(), "one");
    for other in [
        OutputKey { permissions_hash: "other".into(), ..issued(&now, "three") },
        OutputKey { cluster: cluster_id("d"), ..issued(&now, "four") },
    ] {
        commit(store, vec![settle(&other)]).await;
    }
    assert_eq!((keys(store).await, due(store).await), (vec![now], vec!["three".to_owned(), "two".to_owned()]));
    let elsewhere = store.retired_output_keys_due(&cluster_id("d"), 9).await.unwrap();
    assert_eq!(elsewhere, [KeyId::trusted("four")]);
}

pub async fn a_result_for_an_agent_that_is_gone_is_retired(store: &impl Store) {
    let agent = bare_agent("a");
    // Added by a plan that did not see yet that the agent left.
    let left = next(&agent, |agent| agent.active = false);
    commit(store, vec![insert(&agent), update(&agent, &left), put(&wanted())]).await;
    commit(store, vec![settle(&issued(&wanted(), "late"))]).await;
    assert_eq!((keys(store).await, due(store).await), (vec![], vec!["late".to_owned()]));
}

pub async fn ea108_the_keys_of_an_agent_that_leaves_are_due_in_the_same_commit(store: &impl Store) {
    let agent = bare_agent("a");
    let other = OutputKey { output: "other".into(), ..wanted() };
    let waits = OutputKeyWrite::Retire(retired("former", Some(("p", 7)))).into();
    commit(store, vec![insert(&agent), put(&wanted()), put(&other), waits]).await;
    commit(store, vec![settle(&issued(&wanted(), "live"))]).await;
    assert_eq!(due(store).await, Vec::<String>::new());
    let left = next(&agent, |agent| agent.active = false);
    commit(store, vec![update(&agent, &left)]).await;
    assert_eq!((keys(store).await, due(store).await), (vec![], vec!["former".to_owned(), "live".to_owned()]));
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: agent_id("a"), now: at(9) })]).await;
    assert_eq!(due(store).await.len(), 2, "they outlive their agent");
}

pub async fn ea108_the_keys_of_a_deleted_agent_are_due(store: &impl Store) {
    commit(store, vec![insert(&bare_agent("a")), put(&wanted())]).await;
    commit(store, vec![settle(&issued(&wanted(), "live"))]).await;
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: agent_id("a"), now: at(9) })]).await;
    assert_eq!((keys(store).await, due(store).await), (vec![], vec!["live".to_owned()]));
    let ids = vec![KeyId::trusted("live"), KeyId::trusted("unknown")];
    commit(store, vec![OutputKeyWrite::Invalidated { cluster: cluster_id("c"), ids }.into()]).await;
    assert!(due(store).await.is_empty() && !store.has_output_keys().await.unwrap());
}

pub async fn a_retired_key_waits_for_a_confirmation(store: &impl Store) {
    let waiting = retired("k", Some(("p", 7)));
    commit(store, vec![OutputKeyWrite::Retire(waiting.clone()).into()]).await;
    assert_eq!(store.output_keys(&agent_id("a")).await.unwrap().1, [waiting]);
    assert_eq!(due(store).await, Vec::<String>::new());
    let known = [KeyId::trusted("k"), KeyId::trusted("x")];
    assert_eq!(store.known_output_keys(&cluster_id("c"), &known).await.unwrap(), [KeyId::trusted("k")]);
    commit(store, vec![OutputKeyWrite::Retire(retired("k", None)).into()]).await;
    assert_eq!(due(store).await, ["k"]);
    assert_eq!(store.output_keys(&agent_id("a")).await.unwrap().1, []);
}

pub async fn a_cluster_keeps_its_failure_until_it_is_put_again(store: &impl Store) {
    let failure = |kind| ClusterFailure { kind, reason: "r".into(), since: at(1), retry_at: at(50) };
    let set = |failure| OutputKeyWrite::ClusterFailure { id: cluster_id("c"), failure }.into();
    commit(store, vec![put_cluster(&cluster("c")), put_cluster(&cluster("b"))]).await;
    for kind in FailureKind::ALL {
        commit(store, vec![set(Some(failure(kind)))]).await;
        let found = store.output_cluster(&cluster_id("c")).await.unwrap();
        assert_eq!(found, Some(OutputCluster { failure: Some(failure(kind)), ..cluster("c") }));
    }
    let ids: Vec<String> = store.output_clusters().await.unwrap().iter().map(|one| one.id.to_string()).collect();
    assert_eq!(ids, ["b", "c"]);
    let changed = OutputCluster { sealed: b"other".to_vec(), ..cluster("c") };
    commit(store, vec![put_cluster(&changed)]).await;
    assert_eq!(store.output_cluster(&cluster_id("c")).await.unwrap(), Some(changed));
    let delete = |id| Write::from(OutputKeyWrite::DeleteCluster { id: cluster_id(id) });
    commit(store, vec![put(&wanted()), delete("b"), delete("c")]).await;
    assert!(store.output_cluster(&cluster_id("b")).await.unwrap().is_none());
    assert!(store.output_cluster(&cluster_id("c")).await.unwrap().is_some(), "it has keys");
}

pub async fn ag104_a_cluster_keeps_its_bootstrap_settings_in_use_until_it_has_none(store: &impl Store) {
    let fallback = Some(Fallback { reason: "r".into(), since: at(1) });
    let trial = Trial { next: Some(at(61)), fallback: fallback.clone() };
    let set = |trial: &Trial| OutputKeyWrite::Trial { id: cluster_id("c"), trial: trial.clone() }.into();
    let found = async || store.output_cluster(&cluster_id("c")).await.unwrap().unwrap().trial;
    let due = async |now| store.output_clusters_due(at(now)).await.unwrap().len();
    commit(store, vec![put_cluster(&cluster("c")), set(&trial)]).await;
    assert_eq!((found().await, due(60).await, due(61).await), (trial, 0, 1), "a test is due without any key");
    let tested = |next| OutputCluster { trial: Trial { next, fallback: None }, ..cluster("c") };
    commit(store, vec![put_cluster(&tested(Some(at(5))))]).await;
    assert_eq!(found().await, Trial { next: Some(at(5)), fallback });
    commit(store, vec![put_cluster(&tested(None))]).await;
    assert_eq!(found().await, Trial::default(), "the output has no bootstrap block any more");
}

pub async fn work_is_found_by_cluster_state_and_time(store: &impl Store) {
    let due_clusters = async |now| -> Vec<String> {
        store.output_clusters_due(at(now)).await.unwrap().iter().map(ToString::to_string).collect()
    };
    commit(store, vec![put_cluster(&cluster("c")), put_cluster(&cluster("d"))]).await;
    assert_eq!(due_clusters(0).await, Vec::<String>::new());
    let old = OutputKey { agent_id: agent_id("b"), since: at(2), ..wanted() };
    let failure = Some(KeyFailure { reason: "no".into(), retry_at: at(60) });
    let later = OutputKey { agent_id: agent_id("z"), failure, ..wanted() };
    commit(store, vec![put(&wanted()), put(&old), put(&later)]).await;
    assert_eq!(due_clusters(0).await, ["c"]);
    let found = async |now, limit| -> Vec<String> {
        let keys = store.output_keys_due(&cluster_id("c"), KeyState::Wanted, at(now), limit).await.unwrap();
        keys.iter().map(|key| key.agent_id.to_string()).collect()
    };
    assert_eq!(
        (found(59, 9).await, found(60, 9).await.len(), found(60, 1).await),
        (vec!["b".into(), "a".into()], 3, vec!["b".into()])
    );
    for state in [KeyState::Outdated, KeyState::Confirmed, KeyState::Widened, KeyState::Live] {
        assert_eq!(store.output_keys_due(&cluster_id("c"), state, at(99), 9).await.unwrap(), []);
    }
    let waiting = async |after: Option<&str>, limit| -> Vec<String> {
        let after = after.map(agent_id);
        let agents = store.agents_waiting_for_keys(&cluster_id("c"), after.as_ref(), limit).await.unwrap();
        agents.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        (waiting(None, 2).await, waiting(Some("b"), 9).await),
        (vec!["a".into(), "b".into()], vec!["z".to_owned()])
    );
    // A cluster that fails is left alone.
    let failure = ClusterFailure { kind: FailureKind::Refused, reason: "r".into(), since: at(1), retry_at: at(50) };
    commit(store, vec![OutputKeyWrite::ClusterFailure { id: cluster_id("c"), failure: Some(failure) }.into()]).await;
    let elsewhere = RetiredKey { cluster: cluster_id("d"), ..retired("k", None) };
    commit(store, vec![OutputKeyWrite::Retire(elsewhere).into()]).await;
    assert_eq!((due_clusters(49).await, due_clusters(50).await), (vec!["d".into()], vec!["c".to_owned(), "d".into()]));
}

pub async fn keys_are_counted(store: &impl Store) {
    let failure = Some(KeyFailure { reason: "rejected".into(), retry_at: at(60) });
    let of = |agent: &str, key: OutputKey| put(&OutputKey { agent_id: agent_id(agent), version: 1, ..key });
    let writes = vec![
        of("a", wanted()),
        of("b", issued(&wanted(), "k1")),
        of("c", OutputKey { failure, ..issued(&wanted(), "k2") }),
        of("d", OutputKey { state: KeyState::Outdated, ..issued(&wanted(), "k5") }),
        OutputKeyWrite::Retire(retired("k3", None)).into(),
        OutputKeyWrite::Retire(retired("k4", Some(("p", 1)))).into(),
    ];
    commit(store, writes).await;
    let counts = KeyCounts { issued: 3, wanted: 1, outdated: 1, failed: 1, to_invalidate: 1 };
    assert_eq!(store.output_key_counts(&cluster_id("c")).await.unwrap(), (counts, Some("rejected".into())));
    assert_eq!(store.output_key_counts(&cluster_id("d")).await.unwrap(), (KeyCounts::default(), None));
}
