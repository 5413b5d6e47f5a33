//! Spaces: what belongs to one is not there for the other.

use muster_core::id::{ActionId, AgentId, EnrollmentKeyId, FileId, OutputId, PolicyId, SpaceId};
use muster_store::query::{ActionFilter, AgentCondition, AgentFilter, AgentSort, Page};
use muster_store::{ActionWrite, EnrollmentKeyWrite, FileWrite, OutputWrite, PolicyWrite, Precondition, Store, Write};

use super::sample::*;

const ALL: Page = Page { offset: 0, limit: 100 };

fn red() -> SpaceId {
    SpaceId::trusted("red")
}

fn blue() -> SpaceId {
    SpaceId::trusted("blue")
}

/// One object of each kind, of the space, with ids that begin with its name; all are called `same`.
async fn fill(store: &impl Store, space: &SpaceId) {
    let id = |what: &str| format!("{space}-{what}");
    let mut agent = bare_agent(&id("agent"));
    (agent.space, agent.tags) = (space.clone(), vec![id("tag")]);
    let mut key = enrollment_key(&id("key"));
    (key.space, key.name, key.policy_id) = (space.clone(), "same".into(), None);
    let mut policy = policy(&id("policy"));
    (policy.space, policy.name) = (space.clone(), "same".into());
    let mut output = output(&id("output"));
    (output.space, output.name, output.is_default) = (space.clone(), "same".into(), true);
    let mut action = action(&id("action"));
    action.space = space.clone();
    let upload = upload(&id("upload"), &id("action"), &id("agent"));
    commit(
        store,
        vec![
            insert(&agent),
            Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(key))),
            Write::Policy(PolicyWrite::Insert(Box::new(policy))),
            Write::Policy(PolicyWrite::InsertRevision(Box::new(revision(&id("policy"), 2)))),
            Write::Output(OutputWrite::Put(Box::new(output))),
            Write::Action(ActionWrite::Insert {
                action: Box::new(action),
                targets: vec![AgentId::trusted(id("agent"))],
            }),
            Write::File(FileWrite::InsertUpload(Box::new(upload))),
        ],
    )
    .await;
}

/// Whether the objects of `of` are found by their ids in `space`.
async fn found(store: &impl Store, space: &SpaceId, of: &SpaceId) -> [bool; 6] {
    let id = |what: &str| format!("{of}-{what}");
    [
        store.agent_in(space, &AgentId::trusted(id("agent"))).await.unwrap().is_some(),
        store.enrollment_key_in(space, &EnrollmentKeyId::trusted(id("key"))).await.unwrap().is_some(),
        store.policy_in(space, &PolicyId::trusted(id("policy"))).await.unwrap().is_some(),
        store.output_in(space, &OutputId::trusted(id("output"))).await.unwrap().is_some(),
        store.action_in(space, &ActionId::trusted(id("action"))).await.unwrap().is_some(),
        store.upload_in(space, &FileId::trusted(id("upload"))).await.unwrap().is_some(),
    ]
}

pub async fn an_object_is_found_in_its_own_space_only(store: &impl Store) {
    fill(store, &red()).await;
    fill(store, &blue()).await;
    assert_eq!(found(store, &red(), &red()).await, [true; 6]);
    assert_eq!(found(store, &red(), &blue()).await, [false; 6]);
}

pub async fn lists_and_counts_are_of_one_space(store: &impl Store) {
    fill(store, &red()).await;
    fill(store, &blue()).await;
    let agents = AgentFilter { space: Some(red()), ..AgentFilter::default() };
    let page = store.agent_list(&agents, AgentSort::EnrolledAt, false, ALL).await.unwrap();
    assert_eq!((page.total, page.items[0].record.id.as_str()), (1, "red-agent"));
    assert_eq!(store.agent_ids(&agents, None, 9).await.unwrap(), [AgentId::trusted("red-agent")]);
    assert_eq!(store.agent_counts(&agents).await.unwrap().iter().map(|(_, count)| count).sum::<u64>(), 1);
    assert_eq!(store.agent_tags(&agents).await.unwrap(), ["red-tag"]);
    let by_id = AgentFilter { conditions: vec![AgentCondition::Ids(vec![AgentId::trusted("blue-agent")])], ..agents };
    assert_eq!(store.agent_ids(&by_id, None, 9).await.unwrap(), []);

    let keys = store.enrollment_keys(&red(), None, ALL).await.unwrap();
    assert_eq!((keys.total, keys.items[0].id.as_str()), (1, "red-key"));
    let policies = store.policies(Some(&red()), ALL).await.unwrap();
    assert_eq!((policies.total, policies.items[0].id.as_str()), (1, "red-policy"));
    assert_eq!(store.policies(None, ALL).await.unwrap().total, 2, "the server itself sees all");
    let outputs = store.outputs(&red()).await.unwrap();
    assert_eq!(outputs.iter().map(|output| output.id.as_str()).collect::<Vec<_>>(), ["red-output"]);

    for with_policy_changes in [false, true] {
        let actions = ActionFilter { space: Some(red()), with_policy_changes, ..ActionFilter::default() };
        let page = store.actions(&actions, ALL).await.unwrap();
        let mut ids: Vec<&str> = page.items.iter().map(|(action, _)| action.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, if with_policy_changes { vec!["red-action", "red-policy:2"] } else { vec!["red-action"] });
        assert_eq!(page.total, ids.len() as u64);
        assert!(page.items.iter().all(|(action, _)| action.space == red()));
    }
}

pub async fn names_are_unique_within_a_space(store: &impl Store) {
    fill(store, &red()).await;
    fill(store, &blue()).await;
    assert_eq!(store.policy_by_name(&blue(), "same").await.unwrap().unwrap().id.as_str(), "blue-policy");
    let mut again = policy("other");
    (again.space, again.name) = (red(), "same".into());
    let put = Write::Policy(PolicyWrite::Insert(Box::new(again)));
    assert_eq!(refused(store, vec![put]).await, Precondition::NameTaken("same".into()));
    let mut again = output("other");
    (again.space, again.name) = (red(), "same".into());
    let put = Write::Output(OutputWrite::Put(Box::new(again)));
    assert_eq!(refused(store, vec![put]).await, Precondition::NameTaken("same".into()));
    let mut again = enrollment_key("other");
    (again.space, again.name, again.policy_id) = (red(), "same".into(), None);
    let put = Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(again)));
    assert_eq!(refused(store, vec![put]).await, Precondition::NameTaken("same".into()));
}

pub async fn each_space_has_a_default_output_of_its_own(store: &impl Store) {
    fill(store, &red()).await;
    fill(store, &blue()).await;
    for space in [red(), blue()] {
        assert!(store.outputs(&space).await.unwrap()[0].is_default, "{space}");
    }
}

pub async fn an_agent_that_leaves_a_space_leaves_its_actions_behind(store: &impl Store) {
    fill(store, &red()).await;
    let id = AgentId::trusted("red-agent");
    let before = store.agent(&id).await.unwrap().unwrap();
    assert_eq!(store.actions_due(&id, -1, at(0), 9).await.unwrap().len(), 1);
    let moved = next(&before, |record| record.space = blue());
    commit(store, vec![update(&before, &moved)]).await;
    assert_eq!(store.actions_due(&id, -1, at(0), 9).await.unwrap(), []);
    let results = store.action_results(&ActionId::trusted("red-action"), true, 9).await.unwrap();
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].outcome.message(), Some(muster_core::action::LEFT_SPACE));
}
