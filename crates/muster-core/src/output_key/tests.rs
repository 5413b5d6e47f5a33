use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::at;

fn need(output: &str, cluster: &str, permissions: &str) -> KeyNeed {
    KeyNeed { output: output.into(), cluster: ClusterId::trusted(cluster), permissions_hash: permissions.into() }
}

fn key(output: &str, cluster: &str, permissions: &str, state: KeyState) -> OutputKey {
    let issued = IssuedKey { id: KeyId::trusted(format!("{output}-{cluster}")), sealed: vec![1] };
    OutputKey {
        agent_id: AgentId::trusted("a"),
        output: output.into(),
        version: 4,
        cluster: ClusterId::trusted(cluster),
        state,
        issued: (state != KeyState::Wanted).then_some(issued),
        permissions_hash: permissions.into(),
        policy_id: PolicyId::trusted("p"),
        revision: 7,
        is_withheld: false,
        since: at(0),
        failure: None,
    }
}

fn plan_for(policy: &str, revision: i64, needs: &[KeyNeed], held: &[OutputKey]) -> Plan {
    let (agent_id, policy_id) = (&AgentId::trusted("a"), &PolicyId::trusted(policy));
    plan(&Target { agent_id, policy_id, revision, needs }, held, at(60))
}

#[test]
fn ea101_a_key_is_wanted_for_each_output_that_has_none() {
    let plan = plan_for("p", 8, &[need("default", "c", "h1"), need("other", "d", "h2")], &[]);
    assert!(plan.remove.is_empty() && plan.retire.is_empty());
    let put: Vec<_> = plan.put.iter().map(|key| (key.output.as_str(), key.state, key.version, key.revision)).collect();
    assert_eq!(put, [("default", KeyState::Wanted, 1, 8), ("other", KeyState::Wanted, 1, 8)]);
    assert_eq!(plan.put[1].permissions_hash, "h2");
}

#[test]
fn ea101_a_key_with_the_right_permissions_is_kept() {
    for state in KeyState::ALL {
        let held = [key("default", "c", "h1", state)];
        assert!(plan_for("p", 8, &[need("default", "c", "h1")], &held).is_empty(), "{state:?}");
    }
}

#[test]
fn ea106_changed_permissions_change_the_same_key() {
    for state in [KeyState::Outdated, KeyState::Widened, KeyState::Confirmed, KeyState::Live] {
        let before = key("default", "c", "h1", state);
        let plan = plan_for("p", 8, &[need("default", "c", "h2")], std::slice::from_ref(&before));
        assert!(plan.retire.is_empty() && plan.remove.is_empty(), "it is not replaced");
        let after = OutputKey {
            version: 5,
            state: KeyState::Outdated,
            permissions_hash: "h2".into(),
            revision: 8,
            since: at(60),
            ..before
        };
        assert_eq!(plan.put, [after]);
    }
    let unissued = plan_for("p", 8, &[need("default", "c", "h2")], &[key("default", "c", "h1", KeyState::Wanted)]);
    assert_eq!((unissued.put[0].state, unissued.put[0].revision), (KeyState::Wanted, 8));
}

#[test]
fn ea106_a_key_of_another_cluster_is_replaced_and_retired_after_the_confirmation() {
    let held = [key("default", "old", "h1", KeyState::Live)];
    let plan = plan_for("p", 8, &[need("default", "new", "h1")], &held);
    assert_eq!((plan.put[0].state, plan.put[0].version, &plan.put[0].issued), (KeyState::Wanted, 5, &None));
    let retired = RetiredKey {
        cluster: ClusterId::trusted("old"),
        id: KeyId::trusted("default-old"),
        agent_id: AgentId::trusted("a"),
        after: Some((PolicyId::trusted("p"), 8)),
        at: at(60),
    };
    assert_eq!(plan.retire, [retired]);
}

#[test]
fn ea106_keys_of_all_removed_outputs_are_retired_at_once() {
    // The original handles one removed output for each delivery.
    let held = [
        key("one", "c", "h", KeyState::Live),
        key("two", "d", "h", KeyState::Widened),
        key("x", "c", "h", KeyState::Wanted),
    ];
    let plan = plan_for("p", 8, &[], &held);
    assert_eq!(plan.remove, held);
    let retired: Vec<&str> = plan.retire.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(retired, ["one-c", "two-d"], "one that was never created needs no invalidation");
}

#[test]
fn ea106_after_a_reassignment_the_new_policy_confirms() {
    let held = [key("default", "c", "h", KeyState::Widened)];
    let plan = plan_for("other", 1, &[need("default", "c", "h")], &held);
    assert_eq!((plan.put[0].policy_id.as_str(), plan.put[0].revision), ("other", 1));
    assert_eq!(plan.put[0].state, KeyState::Widened);
    let settled = [key("default", "c", "h", KeyState::Live)];
    assert!(plan_for("other", 1, &[need("default", "c", "h")], &settled).is_empty());
}

fn confirmed(policy: &str, revision: i64, acked: i64, held: &OutputKey) -> Option<OutputKey> {
    let policy_id = &PolicyId::trusted(policy);
    confirm(Confirmation { policy_id, revision, acked }, std::slice::from_ref(held), &[]).put.pop()
}

#[test]
fn ea106_former_permissions_stay_until_the_agent_confirms_the_policy() {
    let widened = key("default", "c", "h", KeyState::Widened);
    for (policy, revision) in [("p", 6), ("q", 9)] {
        assert_eq!(confirmed(policy, revision, 0, &widened), None, "{policy} {revision}");
    }
    for revision in [7, 9] {
        let after = confirmed("p", revision, 0, &widened).unwrap();
        assert_eq!((after.state, after.version), (KeyState::Confirmed, 5));
    }
    for state in [KeyState::Wanted, KeyState::Outdated, KeyState::Confirmed, KeyState::Live] {
        assert_eq!(confirmed("p", 9, 9, &key("default", "c", "h", state)), None, "{state:?}");
    }
}

#[test]
fn ea106_a_retired_key_lives_as_long_as_the_agent_may_use_it() {
    let retired = |policy: &str, revision| RetiredKey {
        cluster: ClusterId::trusted("old"),
        id: KeyId::trusted("k"),
        agent_id: AgentId::trusted("a"),
        after: Some((PolicyId::trusted(policy), revision)),
        at: at(0),
    };
    let due = |revision, held: &[OutputKey], retired: RetiredKey| {
        let confirmation = Confirmation { policy_id: &PolicyId::trusted("p"), revision, acked: 0 };
        confirm(confirmation, held, &[retired]).due.len()
    };
    let settled = [key("default", "c", "h", KeyState::Live)];
    assert_eq!((due(7, &settled, retired("p", 8)), due(8, &settled, retired("p", 8))), (0, 1));
    // It was retired for a policy that the agent never ran, and belongs to the one that it still runs.
    let mut replaced = [withheld(&key("default", "old", "h", KeyState::Wanted), &PolicyId::trusted("p"), 8).unwrap()];
    assert_eq!(due(8, &replaced, retired("q", 1)), 0);
    replaced[0].issued = key("default", "old", "h", KeyState::Live).issued;
    assert_eq!(due(8, &replaced, retired("q", 1)), 0, "issued, but not delivered");
    assert_eq!(due(9, &replaced, retired("q", 1)), 1);
}

#[test]
fn ea110_d18_a_withheld_key_is_delivered_until_that_is_acknowledged() {
    let wanted = withheld(&key("default", "c", "h", KeyState::Wanted), &PolicyId::trusted("p"), 8).unwrap();
    assert_eq!((wanted.is_withheld, wanted.revision, wanted.version), (true, 8, 5));
    assert_eq!(withheld(&wanted, &PolicyId::trusted("p"), 8), None, "once");
    // Whatever the agent says before the key exists says nothing about the key.
    assert_eq!(confirmed("p", 8, 8, &wanted), None);
    let issued = OutputKey { state: KeyState::Live, issued: key("o", "c", "h", KeyState::Live).issued, ..wanted };
    assert_eq!(confirmed("p", 8, 0, &issued), None, "a check-in reports the same revision before and after");
    assert!(!confirmed("p", 8, 8, &issued).unwrap().is_withheld, "the ack follows the delivery");
    assert!(!confirmed("p", 9, 0, &issued).unwrap().is_withheld, "a newer revision has the key");
}

#[test]
fn ea107_a_failing_cluster_delays_no_policy() {
    let failure = |kind| ClusterFailure { kind, reason: "x".into(), since: at(0), retry_at: at(9) };
    let down = failure(FailureKind::Unavailable);
    for (state, healthy, failing) in [
        (KeyState::Wanted, Stance::Wait(MAX_WAIT), Stance::Without),
        (KeyState::Outdated, Stance::Wait(MAX_WAIT), Stance::With),
        (KeyState::Widened, Stance::With, Stance::With),
        (KeyState::Confirmed, Stance::With, Stance::With),
        (KeyState::Live, Stance::With, Stance::With),
    ] {
        let key = key("default", "c", "h", state);
        assert_eq!(stance(&key, None, at(0)), healthy, "{state:?}");
        assert_eq!(stance(&key, Some(&down), at(0)), failing, "{state:?}");
        assert_eq!(stance(&key, Some(&failure(FailureKind::Overloaded)), at(0)), healthy, "{state:?}");
        // Nobody works on it.
        assert_eq!(stance(&key, None, at(300)), failing, "{state:?}");
    }
}

#[test]
fn ea109_keys_do_not_appear_in_debug_output() {
    let mut keys = AgentKeys::default();
    keys.insert("default", Zeroizing::new("id:secret".into()));
    assert_eq!(format!("{keys:?}"), r#"{"default"}"#);
    assert_eq!((keys.plain("default"), keys.plain("x")), (Some("id:secret"), None));
    assert_eq!(keys.encoded("default").unwrap().as_str(), "aWQ6c2VjcmV0");
}

#[test]
fn a_cluster_is_an_output_with_its_hosts() {
    let id = |output: &str, hosts: &[&str]| cluster_id(output, hosts.iter().copied());
    assert_eq!(id("o", &["https://a:1", "https://b:1"]), id("o", &["https://b:1/", "https://a:1", "https://a:1"]));
    assert_eq!(id("o", &["https://a:1/b"]), id("o", &["https://user:p@ss@a:1/b"]), "the same one for every user");
    assert_ne!(id("o", &["https://a:1"]), id("o", &["https://a:2"]));
    assert_ne!(id("o", &["https://a:1"]), id("p", &["https://a:1"]));
    assert_eq!(permissions_hash(&json!({"b": 1, "a": 2})), permissions_hash(&json!({"a": 2, "b": 1})));
    assert_eq!(permissions_hash(&json!({})).len(), 64);
}

/// A cluster and an agent, for histories of policies: which keys exist there, and which one the agent uses.
#[derive(Default)]
struct World {
    held: Vec<OutputKey>,
    retired: Vec<RetiredKey>,
    created: u32,
}

impl World {
    fn apply(&mut self, plan: Plan) {
        self.held.retain(|key| !plan.remove.iter().chain(&plan.put).any(|changed| changed.output == key.output));
        self.held.extend(plan.put);
        self.retired.extend(plan.retire);
    }

    /// What the background work does.
    fn work(&mut self) {
        for key in &mut self.held {
            if key.issued.is_none() {
                self.created += 1;
                let id = KeyId::trusted(format!("key-{}", self.created));
                key.issued = Some(IssuedKey { id, sealed: Vec::new() });
            }
            key.state = match key.state {
                KeyState::Outdated => KeyState::Widened,
                KeyState::Wanted | KeyState::Confirmed => KeyState::Live,
                other => other,
            };
        }
    }

    fn confirm(&mut self, policy_id: &PolicyId, revision: i64) {
        let confirmed = confirm(Confirmation { policy_id, revision, acked: revision }, &self.held, &self.retired);
        self.held.retain(|key| confirmed.put.iter().all(|after| after.output != key.output));
        self.held.extend(confirmed.put);
        self.retired.retain(|key| confirmed.due.iter().all(|due| due.id != key.id));
    }
}

fn needs() -> impl Strategy<Value = Vec<KeyNeed>> {
    let one =
        |output: &'static str| {
            prop::option::of((0..2_u8, 0..3_u8).prop_map(move |(cluster, permissions)| {
                need(output, &format!("c{cluster}"), &format!("h{permissions}"))
            }))
        };
    (one("one"), one("two")).prop_map(|(one, two)| one.into_iter().chain(two).collect())
}

proptest! {
    #[test]
    fn ea101_ea106_once_confirmed_an_agent_has_the_needed_keys_and_no_other(
        history in prop::collection::vec((needs(), 0..2_u8, any::<bool>()), 1..8)
    ) {
        let mut world = World::default();
        for (index, (needs, policy, is_confirmed)) in history.iter().enumerate() {
            let (agent_id, policy_id) = (AgentId::trusted("a"), PolicyId::trusted(format!("p{policy}")));
            let revision = i64::try_from(index).unwrap() + 1;
            let before = world.held.clone();
            world.apply(plan(&Target { agent_id: &agent_id, policy_id: &policy_id, revision, needs }, &before, at(0)));
            // No key that the agent may still use is forgotten: it is held or retired.
            for key in before.iter().filter_map(|key| key.issued.as_ref()) {
                let is_held = world.held.iter().any(|held| held.issued.as_ref() == Some(key));
                prop_assert!(is_held || world.retired.iter().any(|retired| retired.id == key.id));
            }
            let again = plan(&Target { agent_id: &agent_id, policy_id: &policy_id, revision, needs }, &world.held, at(0));
            prop_assert!(again.is_empty(), "a plan is complete: {again:?}");
            world.work();
            let mut have: Vec<KeyNeed> = world.held.iter().map(|key| KeyNeed {
                output: key.output.clone(), cluster: key.cluster.clone(), permissions_hash: key.permissions_hash.clone(),
            }).collect();
            have.sort_by(|a, b| a.output.cmp(&b.output));
            prop_assert_eq!(&have, needs);
            if *is_confirmed {
                world.confirm(&policy_id, revision);
                world.work();
                prop_assert!(world.held.iter().all(|key| key.state == KeyState::Live));
                prop_assert_eq!(&world.retired, &[]);
            }
        }
    }
}
