//! Isolation of spaces: objects can't be read, changed or deleted from another space.

use muster_core::action::ActionType;
use muster_core::agent::AgentDocuments;
use muster_core::authorization::{
    Actor, AgentsForceUnenroll, AgentsRead, AgentsTag, AgentsUpgrade, BindingScope, BuiltIn, Entitlement, OpContext,
    PoliciesCreate, PoliciesUpdate, PrivilegeName, Selector,
};
use muster_core::id::{AgentId, PolicyId, SpaceId};
use muster_core::testing::online_agent;
use muster_core::{Error, ErrorKind};
use muster_fleet::action_views::ActionListQuery;
use muster_fleet::agent_views::{AgentListQuery, Rows};
use muster_fleet::force::Force;
use muster_fleet::keys::NewEnrollmentKey;
use muster_fleet::policies::PolicyDraft;
use muster_fleet::selection::Selected;
use muster_fleet::testing::TestFleet;
use muster_store::query::{AgentFilter, AgentSort, Page};
use serde_json::json;

const ALL: Page = Page { offset: 0, limit: 100 };

fn person_in(space: &str) -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 }).in_space(SpaceId::trusted(space))
}

/// A fleet with an agent `red` in the space red, and one `blue` in the space blue.
async fn two_spaces() -> TestFleet {
    let test = TestFleet::default();
    for space in ["red", "blue"] {
        let record =
            muster_core::agent::AgentRecord { space: SpaceId::trusted(space), ..online_agent(space, None, test.now()) };
        test.add_agent(record, AgentDocuments::default()).await;
    }
    test
}

fn is_not_found<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(error) if error.kind == ErrorKind::NotFound)
}

#[tokio::test]
async fn agent_of_another_space_is_not_found_listed_or_counted() {
    let test = two_spaces().await;
    let (agents, red) = (test.fleet.agents(), person_in("red"));
    assert!(agents.find::<AgentsRead>(&red, "red").await.is_ok());
    assert!(is_not_found(agents.find::<AgentsRead>(&red, "blue").await));
    let question = AgentListQuery {
        filter: AgentFilter::default(),
        sort: AgentSort::EnrolledAt,
        descending: false,
        rows: Rows::Page(ALL),
    };
    let listed = agents.list(&red.grant().unwrap(), &question).await.unwrap();
    let ids: Vec<&str> = listed.items.iter().map(|view| view.details.record.id.as_str()).collect();
    assert_eq!((ids, listed.total), (vec!["red"], 1));
    let counts = agents.count(&red.grant().unwrap(), &AgentFilter::default()).await.unwrap();
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 1);
}

#[tokio::test]
async fn selection_contains_no_agents_of_another_space() {
    let test = two_spaces().await;
    let (fleet, red) = (&test.fleet, person_in("red"));
    let one = Selected::one("blue").unwrap();
    let selection = fleet.agents().select::<AgentsForceUnenroll>(&red, &one).await.unwrap();
    assert!(is_not_found(fleet.actions().force_unenroll(&selection, Force::Yes).await));
    for selected in [one, Selected::Matching(Box::default())] {
        let selection = fleet.agents().select(&red, &selected).await.unwrap();
        fleet.agents().delete_many(&selection).await.unwrap();
    }
    assert!(test.stored("blue").await.active, "untouched");
    assert!(is_not_found(fleet.agents().find::<AgentsRead>(&red, "red").await), "deleted with all that match");
}

#[tokio::test]
async fn actions_keys_and_policies_stay_in_their_space() {
    let test = two_spaces().await;
    let (fleet, red, blue) = (&test.fleet, person_in("red"), person_in("blue"));
    let selection = fleet.agents().select(&red, &Selected::one("red").unwrap()).await.unwrap();
    let action = fleet.actions().request_diagnostics(&selection, &[]).await.unwrap().action;
    assert!(fleet.actions().find_listed(&red, action.id.as_str()).await.is_ok());
    assert!(is_not_found(fleet.actions().find_listed(&blue, action.id.as_str()).await));
    assert!(is_not_found(fleet.actions().find::<AgentsUpgrade>(&blue, action.id.as_str()).await));

    let new = NewEnrollmentKey { name: Some("same".into()), ..NewEnrollmentKey::default() };
    let (key, _) = fleet.enrollment_keys().create(&red.grant().unwrap(), &new).await.unwrap();
    fleet.enrollment_keys().create(&blue.grant().unwrap(), &new).await.expect("the name is free in the other space");
    assert!(is_not_found(
        fleet.enrollment_keys().find::<muster_core::authorization::EnrollmentRevoke>(&blue, key.id.as_str()).await
    ));

    let draft = || PolicyDraft { name: Some("same".into()), ..PolicyDraft::default() };
    let policy = fleet.policies().create(&red.grant().unwrap(), draft()).await.unwrap().policy;
    fleet.policies().create(&blue.grant().unwrap(), draft()).await.expect("the name is free in the other space");
    let found = fleet.policies().find_by_name::<muster_core::authorization::PoliciesRead>(&red, "same").await.unwrap();
    assert_eq!(found.id, policy.id);
    let selection = fleet.agents().select(&blue, &Selected::one("blue").unwrap()).await.unwrap();
    let moved = fleet.actions().reassign(&selection, Some(policy.id.as_str()), None, Force::No).await;
    assert!(is_not_found(moved), "a policy of another space is no target");
}

/// A policy at revision 2 in the space red, with the agents `red` and `blue`, although `blue` is in another space.
async fn shared_policy(test: &TestFleet) -> String {
    let (policies, red) = (test.fleet.policies(), person_in("red"));
    let draft = PolicyDraft { name: Some("shared".into()), ..PolicyDraft::default() };
    let policy = policies.create(&red.grant().expect("it is made"), draft).await.expect("it is made").policy;
    let config = json!({"outputs": {"own": {"type": "elasticsearch", "hosts": ["https://es:9200"]}}});
    let draft = PolicyDraft { config: Some(config), ..PolicyDraft::default() };
    let found = policies.find(&red, policy.id.as_str()).await.expect("it is made");
    assert_eq!(policies.update(&found, draft).await.expect("it is made").policy.revision, 2);
    for space in ["red", "blue"] {
        let mut record = online_agent(&format!("{space}-2"), Some(policy.id.as_str()), test.now());
        (record.space, record.last_checkin) = (SpaceId::trusted(space), Some(test.now()));
        record.health.unhealthy_reason = if space == "blue" { vec!["output".into()] } else { Vec::new() };
        test.add_agent(record, AgentDocuments::default()).await;
    }
    policy.id.to_string()
}

#[tokio::test]
async fn agents_of_policies_are_counted_in_the_callers_space() {
    let test = two_spaces().await;
    let policy = shared_policy(&test).await;
    let counted = async |space: &str| {
        let grant = person_in(space).grant().unwrap();
        test.fleet.policies().agent_counts(&grant).await.unwrap()
    };
    assert!(counted("red").await.iter().any(|(id, _)| id.as_str() == policy));
    assert_eq!(counted("blue").await, []);
}

#[tokio::test]
async fn policy_change_lists_only_agents_of_the_callers_space() {
    let test = two_spaces().await;
    let change = format!("{}:2", shared_policy(&test).await);
    let concerned = async |space: &str| {
        let ids = test.fleet.actions().agents_of(&person_in(space), std::slice::from_ref(&change)).await.unwrap();
        ids.into_iter().map(|id| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(concerned("red").await, ["red-2"]);
    assert_eq!(concerned("blue").await, [] as [String; 0], "it is no policy of blue's");
    let listed = test.fleet.actions().find_listed(&person_in("red"), &change).await.unwrap();
    let targets = test.fleet.actions().results(&listed, -1, 10).await.unwrap();
    assert_eq!(targets.iter().map(|target| target.agent.as_str()).collect::<Vec<_>>(), ["red-2"]);
}

#[tokio::test]
async fn output_health_uses_only_agents_of_the_callers_space() {
    let test = two_spaces().await;
    shared_policy(&test).await;
    let health = test.fleet.outputs().health(&person_in("red").grant().unwrap(), "own").await.unwrap();
    assert_eq!((health.state, health.message.as_str()), ("HEALTHY", "no errors from 1 agent"));
    assert!(is_not_found(test.fleet.outputs().health(&person_in("blue").grant().unwrap(), "own").await));
}

#[tokio::test]
async fn caller_without_the_privilege_is_rejected_before_any_read() {
    let test = two_spaces().await;
    let reader = OpContext::with_only::<AgentsRead>(Actor::Local { uid: 5 }).in_space(SpaceId::trusted("red"));
    assert!(test.fleet.agents().find::<AgentsRead>(&reader, "red").await.is_ok());
    let refused = test.fleet.agents().find::<AgentsTag>(&reader, "nobody").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Forbidden);
}

/// A caller with a built-in role for a part of the space red.
fn limited(role: BuiltIn, selector: Selector) -> OpContext {
    let red = SpaceId::trusted("red");
    let scope = BindingScope::Part { space: red.clone(), selector };
    let part = Entitlement { privileges: role.privileges(), scope };
    OpContext::entitled(Actor::Local { uid: 5 }, [part]).in_space(red)
}

fn only(policy: &str) -> Selector {
    Selector::Policies(vec![PolicyId::trusted(policy)])
}

/// The ids of all agents that a caller sees.
async fn visible(test: &TestFleet, caller: &OpContext) -> Vec<String> {
    let question = AgentListQuery {
        filter: AgentFilter::default(),
        sort: AgentSort::Hostname,
        descending: false,
        rows: Rows::Page(ALL),
    };
    let grant = caller.grant::<AgentsRead>().expect("the role reads agents");
    let listed = test.fleet.agents().list(&grant, &question).await.expect("it is read");
    let counts = test.fleet.agents().count(&grant, &AgentFilter::default()).await.expect("they are counted");
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), listed.total, "counts and lists agree");
    listed.items.iter().map(|view| view.details.record.id.to_string()).collect()
}

#[tokio::test]
async fn mg160_bulk_selection_is_limited_to_the_callers_scope() {
    let test = two_spaces().await;
    let policy = shared_policy(&test).await;
    let operator = limited(BuiltIn::FleetOperator, only(&policy));
    assert_eq!(visible(&test, &operator).await, ["red-2"], "`red` is on no policy, `blue-2` in another space");
    assert!(is_not_found(test.fleet.agents().find::<AgentsTag>(&operator, "red").await));
    let everything = Selected::Matching(Box::default());
    let selection = test.fleet.agents().select::<AgentsTag>(&operator, &everything).await.expect("it is read");
    let change = muster_fleet::tags::TagChange { add: vec!["seen".into()], remove: Vec::new() };
    assert_eq!(test.fleet.actions().change_tags(&selection, &change).await.expect("it is made").targets, 1);
    assert_eq!(visible(&test, &limited(BuiltIn::Helpdesk, Selector::Tags(vec!["seen".into()]))).await, ["red-2"]);
}

#[tokio::test]
async fn mg160_the_agents_are_counted_that_a_caller_may_read_but_not_act_on() {
    let test = two_spaces().await;
    let policy = shared_policy(&test).await;
    let operator = limited(BuiltIn::FleetOperator, only(&policy));
    let reads = Entitlement {
        privileges: [PrivilegeName::AgentsRead].into_iter().collect(),
        scope: BindingScope::Space(SpaceId::trusted("red")),
    };
    let both = OpContext::entitled(Actor::Local { uid: 6 }, [operator.entitlements()[0].clone(), reads]);
    let both = both.in_space(SpaceId::trusted("red"));
    let excluded = async |caller: &OpContext, selected: Selected| {
        test.fleet.agents().select::<AgentsTag>(caller, &selected).await.unwrap().excluded()
    };
    let named = || Selected::Ids(["red", "red-2", "blue", "none"].map(AgentId::trusted).to_vec());
    assert_eq!(excluded(&both, Selected::Matching(Box::default())).await, 1);
    assert_eq!(excluded(&both, named()).await, 1);
    assert_eq!(excluded(&operator, Selected::Matching(Box::default())).await, 0, "it must not learn of `red`");
    assert_eq!(excluded(&person_in("red"), named()).await, 0);
}

#[tokio::test]
async fn a_caller_with_a_limited_scope_sees_the_part_of_an_action_within_it() {
    let test = two_spaces().await;
    let policy = shared_policy(&test).await;
    let (actions, agents) = (test.fleet.actions(), test.fleet.agents());
    let ask = async |selected: Selected| {
        let selection = agents.select(&person_in("red"), &selected).await.unwrap();
        actions.request_diagnostics(&selection, &[]).await.unwrap().action
    };
    let (wide, own) = (ask(Selected::Matching(Box::default())).await, ask(Selected::one("red-2").unwrap()).await);
    let foreign = ask(Selected::one("red").unwrap()).await;
    assert_eq!(wide.total, 2);
    let operator = limited(BuiltIn::UpgradeOperator, only(&policy));
    let question = ActionListQuery::default();
    let listed = actions.list(&operator.grant().unwrap(), &question, ALL).await.unwrap();
    // Without the revisions of the caller's policy, which are listed too.
    let actions_only = listed.items.iter().filter(|view| view.action.kind == ActionType::RequestDiagnostics);
    let shown: Vec<_> = actions_only.map(|view| (&view.action.id, view.action.total, view.created)).collect();
    assert_eq!(shown, [(&own.id, 1, 1), (&wide.id, 1, 1)], "no action for others only, and no other targets");
    assert!(is_not_found(actions.find_listed(&operator, foreign.id.as_str()).await));
    let found = actions.find_listed(&operator, wide.id.as_str()).await.unwrap();
    let targets = actions.results(&found, -1, 10).await.unwrap();
    assert_eq!(targets.iter().map(|target| target.agent.as_str()).collect::<Vec<_>>(), ["red-2"]);
    let ids = [wide.id.to_string()];
    assert_eq!(actions.agents_of(&operator, &ids).await.unwrap().len(), 1);

    let cancel = async |id: &str| actions.cancel(&actions.find(&operator, id).await?).await;
    let refused = cancel(wide.id.as_str()).await.err().unwrap();
    assert_eq!((refused.kind, refused.code), (ErrorKind::Forbidden, "targets_out_of_scope"));
    let within = cancel(own.id.as_str()).await.err().unwrap();
    assert_eq!(within.kind, ErrorKind::Invalid, "not for its targets, but because diagnostics cannot be cancelled");
    assert!(is_not_found(cancel(foreign.id.as_str()).await));
}

#[tokio::test]
async fn policies_and_keys_outside_the_callers_scope_do_not_exist_for_it() {
    let test = two_spaces().await;
    let policy = shared_policy(&test).await;
    let red = person_in("red");
    let draft = PolicyDraft { name: Some("other".into()), ..PolicyDraft::default() };
    let other = test.fleet.policies().create(&red.grant().unwrap(), draft).await.unwrap().policy;
    let author = limited(BuiltIn::PolicyAuthor, only(&policy));
    let names = async |caller: &OpContext| {
        let listed = test.fleet.policies().list(&caller.grant().unwrap(), ALL).await.unwrap();
        listed.items.into_iter().map(|policy| policy.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&author).await, ["shared"]);
    assert_eq!(names(&limited(BuiltIn::TokenIssuer, only("none"))).await, [] as [String; 0]);
    let found = test.fleet.policies().find::<PoliciesUpdate>(&author, other.id.as_str());
    assert!(is_not_found(found.await));
    let refused = author.grant::<PoliciesCreate>().unwrap_err();
    assert_eq!(refused.to_string(), "the privilege policies.create is required", "a new policy is in nobody's scope");

    let keys = test.fleet.enrollment_keys();
    let issuer = limited(BuiltIn::TokenIssuer, only(&policy));
    let listed = keys.list(&issuer.grant().unwrap(), None, ALL).await.unwrap();
    assert_eq!(listed.items.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["shared"]);
    let of =
        |policy: Option<&str>| NewEnrollmentKey { policy_id: policy.map(Into::into), ..NewEnrollmentKey::default() };
    let create = async |policy: Option<&str>| keys.create(&issuer.grant().unwrap(), &of(policy)).await;
    assert_eq!(create(None).await.unwrap_err().kind, ErrorKind::Forbidden, "its agents would belong to no policy");
    assert!(create(Some(&policy)).await.is_ok());
    assert!(create(Some(other.id.as_str())).await.is_err());
}
