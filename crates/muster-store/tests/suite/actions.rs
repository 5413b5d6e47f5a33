//! Actions: creation, what is due, results.

use muster_core::action::{Action, ActionResult, ActionType, Target, TargetState};
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::id::PolicyId;
use muster_core::time::Timestamp;
use muster_store::query::{ActionCursor, ActionFilter, ActionScope, AgentCondition, Page};
use muster_store::{ActionWrite, AgentWrite, PolicyWrite, Precondition, Store, Write};

use super::sample::*;

const ALL: Page = Page { offset: 0, limit: 100 };

fn ineligible(action: &str, agent: &str, n: i64) -> Write {
    let result = result(action, agent, n, Some("too old"));
    Write::Action(ActionWrite::Result { result: Box::new(result), addressed: false })
}

async fn due(store: &impl Store, agent: &str, after: i64, now: Timestamp) -> Vec<String> {
    let due = store.actions_due(&agent_id(agent), after, now, 100).await.unwrap();
    due.into_iter().map(|due| due.action.id.to_string()).collect()
}

async fn state(store: &impl Store, action: &str, agent: &str) -> Option<TargetState> {
    let target = store.action_target(&action_id(action), &agent_id(agent)).await.unwrap();
    target.map(|target| target.state)
}

pub async fn an_action_comes_back_with_its_place_in_the_order(store: &impl Store) {
    let (bare, full) = (action("bare"), full_action("full"));
    let committed = commit(store, vec![create(&bare, &[]), create(&full, &["a"])]).await;
    let [first, second] = committed.action_seqs[..] else { panic!("{committed:?}") };
    assert!(0 < first && first < second);
    let third = commit(store, vec![create(&action("third"), &[])]).await.action_seqs[0];
    assert!(second < third);
    for (written, seq) in [(bare, first), (full, second)] {
        let expected = Action { seq, ..written };
        assert_eq!(store.action(&expected.id).await.unwrap(), Some(expected));
    }
    assert_eq!(store.action(&action_id("none")).await.unwrap(), None);
    assert!(matches!(refused(store, vec![create(&action("bare"), &[])]).await, Precondition::Exists(_)));
}

pub async fn ea75_what_is_due_comes_in_order_after_the_position(store: &impl Store) {
    let seqs = commit(
        store,
        vec![
            create(&action("one"), &["b", "a"]),
            create(&action("other"), &["b"]),
            create(&action("two"), &["a"]),
            create(&action("three"), &["c", "b", "a"]),
        ],
    )
    .await
    .action_seqs;
    assert_eq!(due(store, "a", -1, at(0)).await, ["one", "two", "three"]);
    assert_eq!(due(store, "a", seqs[0], at(0)).await, ["two", "three"]);
    assert_eq!(due(store, "a", seqs[3], at(0)).await, Vec::<String>::new());
    let limited = store.actions_due(&agent_id("a"), -1, at(0), 2).await.unwrap();
    assert_eq!(limited.iter().map(|due| due.action.id.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(limited.iter().map(|due| due.position).collect::<Vec<_>>(), [1, 0], "places among the targets");
    assert_eq!(limited[0].action.seq, seqs[0]);
}

pub async fn ea76_an_expired_action_is_not_due(store: &impl Store) {
    let mut ends = action("ends");
    ends.expiration = Some(at(10));
    commit(store, vec![create(&ends, &["a"]), create(&action("stays"), &["a"])]).await;
    assert_eq!(due(store, "a", -1, at(9)).await, ["ends", "stays"]);
    assert_eq!(due(store, "a", -1, at(10)).await, ["stays"]);
}

pub async fn ea77_types_that_are_never_delivered_are_due_so_that_the_position_passes_them(store: &impl Store) {
    let mut tags = action("tags");
    tags.kind = ActionType::UpdateTags;
    commit(store, vec![create(&tags, &["a"])]).await;
    assert_eq!(due(store, "a", -1, at(0)).await, ["tags"]);
}

pub async fn d14_the_open_targets_of_an_agent_that_left_end_with_an_error(store: &impl Store) {
    commit(store, vec![create(&action("open"), &["a", "b"]), create(&action("done"), &["a"])]).await;
    commit(store, vec![answer(&result("done", "a", 1, None))]).await;
    commit(store, vec![Write::Agent(AgentWrite::EndActions { id: agent_id("a"), now: at(2) })]).await;
    assert_eq!(state(store, "open", "a").await, Some(TargetState::Failed));
    assert_eq!(state(store, "done", "a").await, Some(TargetState::Acked), "what was answered stays answered");
    assert_eq!(state(store, "open", "b").await, Some(TargetState::Queued), "others are not concerned");
    let ended = ActionResult { fields: None, ..result("open", "a", 2, Some("the agent was unenrolled")) };
    commit(store, vec![answer(&result("open", "a", 3, None))]).await;
    assert_eq!(store.action_results(&action_id("open"), true, 10).await.unwrap(), [ended], "the first result stays");
}

pub async fn a_target_that_the_server_ends_is_answered_once(store: &impl Store) {
    commit(store, vec![create(&action("x"), &["a", "b"]), answer(&result("x", "b", 1, None))]).await;
    let end = |agent: &str, error: Option<&str>, n| {
        let error = error.map(str::to_owned);
        Write::Action(ActionWrite::EndTarget { action: action_id("x"), agent: agent_id(agent), error, now: at(n) })
    };
    commit(store, vec![end("a", Some("gave up"), 4), end("b", Some("late"), 5), end("stranger", None, 6)]).await;
    commit(store, vec![end("a", None, 7), answer(&result("x", "a", 8, None))]).await;
    let results = store.action_results(&action_id("x"), false, 10).await.unwrap();
    let ended = ActionResult { fields: None, ..result("x", "a", 4, Some("gave up")) };
    assert_eq!(results, [ended, result("x", "b", 1, None)]);
    assert_eq!(store.action_results(&action_id("x"), true, 10).await.unwrap().len(), 1);
    assert_eq!(due(store, "a", -1, at(0)).await, Vec::<String>::new(), "it is not delivered any more");
    commit(
        store,
        vec![
            create(&action("y"), &["a"]),
            Write::Action(ActionWrite::EndTarget {
                action: action_id("y"),
                agent: agent_id("a"),
                error: None,
                now: at(9),
            }),
        ],
    )
    .await;
    assert_eq!(state(store, "y", "a").await, Some(TargetState::Acked));
}

pub async fn ea42_d14_a_new_life_starts_after_all_that_was_before_it(store: &impl Store) {
    commit(store, ["done", "failed", "open", "other"].map(|id| create(&action(id), &["a", "b"])).to_vec()).await;
    let answers = [result("done", "a", 1, None), result("failed", "a", 1, Some("no space"))];
    commit(store, answers.iter().map(answer).collect()).await;
    commit(store, vec![Write::Agent(AgentWrite::BeginLife { id: agent_id("a"), now: at(5) })]).await;
    assert_eq!(due(store, "a", -1, at(0)).await, Vec::<String>::new());
    assert_eq!(due(store, "b", -1, at(0)).await, ["done", "failed", "open", "other"], "others are not concerned");
    for (id, stands) in [("done", TargetState::Acked), ("failed", TargetState::Failed), ("open", TargetState::Failed)] {
        let target = store.action_target(&action_id(id), &agent_id("a")).await.unwrap();
        assert_eq!(target, Some(Target { state: stands, is_former: true }), "{id}");
    }
    commit(store, vec![create(&action("new"), &["a"])]).await;
    assert_eq!(due(store, "a", -1, at(0)).await, ["new"]);
    let target = store.action_target(&action_id("new"), &agent_id("a")).await.unwrap();
    assert_eq!(target, Some(Target { state: TargetState::Queued, is_former: false }));
}

pub async fn d14_a_reinstalled_agent_gets_only_what_it_has_not_acknowledged(store: &impl Store) {
    commit(store, ["done", "failed", "open"].map(|id| create(&action(id), &["a", "b"])).to_vec()).await;
    let answers = [result("done", "a", 1, None), result("failed", "a", 1, Some("no space"))];
    commit(store, answers.iter().map(answer).collect()).await;
    let leave = Action { kind: ActionType::Unenroll, ..action("leave") };
    commit(store, vec![create(&leave, &["a", "b"])]).await;
    commit(store, vec![Write::Agent(AgentWrite::Reinstalled { id: agent_id("a"), now: at(7) })]).await;
    assert_eq!(due(store, "a", -1, at(0)).await, ["open"]);
    assert_eq!(due(store, "b", -1, at(0)).await, ["done", "failed", "open", "leave"], "others are not concerned");
    assert_eq!(state(store, "leave", "a").await, Some(TargetState::Failed));
}

pub async fn ea119_the_first_result_stays(store: &impl Store) {
    commit(store, vec![create(&action("x"), &["a"])]).await;
    let first = result("x", "a", 1, Some("failed"));
    for later in [first.clone(), result("x", "a", 2, None), result("x", "a", 3, Some("again"))] {
        commit(store, vec![answer(&later), answer(&later)]).await;
        assert_eq!(store.action_results(&action_id("x"), false, 10).await.unwrap(), std::slice::from_ref(&first));
        assert_eq!(state(store, "x", "a").await, Some(TargetState::Failed));
    }
}

pub async fn ea120_results_come_newest_first_with_all_they_say(store: &impl Store) {
    commit(store, vec![create(&action("x"), &["a", "b", "c"])]).await;
    let results = [result("x", "a", 5, None), result("x", "b", 9, Some("no space")), result("x", "c", 7, Some(""))];
    commit(store, results.iter().map(answer).collect()).await;
    let [a, b, c] = results;
    let id = action_id("x");
    assert_eq!(store.action_results(&id, false, 10).await.unwrap(), [b.clone(), c.clone(), a]);
    assert_eq!(store.action_results(&id, true, 10).await.unwrap(), [b.clone(), c]);
    assert_eq!(store.action_results(&id, false, 1).await.unwrap(), [b]);
    assert_eq!(store.action_results(&action_id("none"), false, 1).await.unwrap(), []);
}

pub async fn d17_an_answer_of_an_agent_that_was_not_addressed_is_refused(store: &impl Store) {
    commit(store, vec![create(&action("x"), &["a"])]).await;
    for stranger in [result("x", "b", 1, None), result("none", "a", 1, None)] {
        let missing = refused(store, vec![answer(&stranger)]).await;
        assert!(matches!(missing, Precondition::Missing(_)), "{missing:?}");
    }
    assert_eq!(state(store, "x", "b").await, None);
}

pub async fn an_ineligible_agent_is_recorded_but_never_ordered(store: &impl Store) {
    let mut upgrade = action("x");
    upgrade.total = 3;
    commit(store, vec![create(&upgrade, &["a", "b"]), ineligible("x", "old", 4)]).await;
    commit(store, vec![ineligible("x", "old", 5), ineligible("x", "older", 5)]).await;
    assert_eq!(state(store, "x", "old").await, Some(TargetState::Failed));
    assert_eq!(due(store, "old", -1, at(0)).await, Vec::<String>::new());
    let stranger = refused(store, vec![answer(&result("x", "old", 6, None))]).await;
    assert!(matches!(stranger, Precondition::Missing(_)), "it is not a target: {stranger:?}");
    let (_, counts) = store.actions(&ActionFilter::default(), ALL).await.unwrap().items.remove(0);
    assert_eq!((counts.created, counts.acked, counts.failed), (2, 0, 2));
    let targets = store.action_targets(&action_id("x"), -1, 10).await.unwrap();
    let places: Vec<_> = targets.iter().map(|(place, agent, _)| (*place, agent.as_str())).collect();
    assert_eq!(places, [(0, "a"), (1, "b"), (2, "old"), (3, "older")]);
}

pub async fn targets_come_in_slices_that_meet(store: &impl Store) {
    commit(store, vec![create(&action("x"), &["c", "a", "b", "a"])]).await;
    commit(store, vec![answer(&result("x", "a", 1, None))]).await;
    let id = action_id("x");
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(-1, |(place, _, _)| *place);
        let slice = store.action_targets(&id, after, 2).await.unwrap();
        if slice.is_empty() {
            break;
        }
        all.extend(slice);
    }
    let all: Vec<_> = all.iter().map(|(_, agent, target)| (agent.as_str(), target.state)).collect();
    let expected = [("c", TargetState::Queued), ("a", TargetState::Acked), ("b", TargetState::Queued)];
    assert_eq!(all, expected, "one mention of an agent counts");
}

pub async fn counts_follow_the_results(store: &impl Store) {
    commit(store, vec![create(&action("x"), &["a", "b", "c", "d"])]).await;
    commit(store, vec![answer(&result("x", "a", 8, None)), answer(&result("x", "b", 3, Some("no")))]).await;
    commit(store, vec![Write::Agent(AgentWrite::EndActions { id: agent_id("c"), now: at(4) })]).await;
    let (_, counts) = store.actions(&ActionFilter::default(), ALL).await.unwrap().items.remove(0);
    assert_eq!((counts.created, counts.acked, counts.failed, counts.latest_result_at), (4, 1, 2, Some(at(8))));
}

pub async fn a_cancellation_keeps_its_first_time(store: &impl Store) {
    let cancel = |id: &str, n| vec![Write::Action(ActionWrite::Cancel { id: action_id(id), now: at(n) })];
    commit(store, vec![create(&action("x"), &["a"])]).await;
    commit(store, cancel("x", 5)).await;
    commit(store, cancel("x", 9)).await;
    assert_eq!(store.action(&action_id("x")).await.unwrap().unwrap().cancelled_at, Some(at(5)));
    // Who has not got it yet does not get it any more.
    assert!(store.actions_due(&agent_id("a"), -1, at(0), 10).await.unwrap().is_empty());
    assert!(matches!(refused(store, cancel("none", 1)).await, Precondition::Missing(_)));
}

pub async fn actions_are_listed_newest_first_by_filter(store: &impl Store) {
    for (n, (id, agents)) in [("one", vec!["a"]), ("two", vec!["b"]), ("three", vec!["a", "b"])].iter().enumerate() {
        let mut action = action(id);
        action.created_at = at(n as i64);
        action.kind = if *id == "two" { ActionType::Cancel } else { ActionType::Settings };
        commit(store, vec![create(&action, agents)]).await;
    }
    let check = async |filter: ActionFilter, expected: &[&str]| {
        let listed = store.actions(&filter, ALL).await.unwrap();
        let ids: Vec<_> = listed.items.iter().map(|(action, _)| action.id.as_str()).collect();
        assert_eq!((ids.as_slice(), listed.total), (expected, expected.len() as u64), "{filter:?}");
    };
    let none = ActionFilter::default;
    check(none(), &["three", "two", "one"]).await;
    check(ActionFilter { before: Some(at(2)), ..none() }, &["two", "one"]).await;
    check(ActionFilter { since: Some(at(1)), ..none() }, &["three", "two"]).await;
    check(ActionFilter { agent_id: Some(agent_id("a")), ..none() }, &["three", "one"]).await;
    check(ActionFilter { without_cancels: true, ..none() }, &["three", "one"]).await;
    let page = store.actions(&none(), Page { offset: 1, limit: 1 }).await.unwrap();
    assert_eq!((page.items[0].0.id.as_str(), page.total), ("two", 3));
}

pub async fn actions_within_a_scope_have_the_targets_of_it_only(store: &impl Store) {
    for (id, policy) in [("a", "p"), ("b", "p"), ("c", "q")] {
        let record = AgentRecord { policy_id: Some(PolicyId::trusted(policy)), ..bare_agent(id) };
        let documents = AgentDocuments::default();
        commit(store, vec![Write::Agent(AgentWrite::Insert { record: Box::new(record), documents })]).await;
    }
    for (id, agents) in [("of-p", vec!["a"]), ("of-q", vec!["c"]), ("of-both", vec!["a", "b", "c"])] {
        commit(store, vec![create(&action(id), &agents)]).await;
    }
    commit(store, vec![answer(&result("of-both", "a", 8, None)), answer(&result("of-both", "c", 9, Some("no")))]).await;
    let within = |policy: &str| ActionFilter {
        within: Some(ActionScope {
            agents: AgentCondition::Any(vec![AgentCondition::Policies(vec![PolicyId::trusted(policy)])]),
            policies: Vec::new(),
        }),
        ..ActionFilter::default()
    };
    for with_policy_changes in [false, true] {
        let listed = store.actions(&ActionFilter { with_policy_changes, ..within("p") }, ALL).await.unwrap();
        let ids: Vec<_> = listed.items.iter().map(|(action, _)| action.id.as_str()).collect();
        assert_eq!((ids.len(), listed.total), (2, 2), "{ids:?}");
        let (both, counts) = listed.items.iter().find(|(action, _)| action.id.as_str() == "of-both").unwrap();
        assert_eq!((both.total, counts.created, counts.acked, counts.failed), (2, 2, 1, 0));
        assert_eq!(counts.latest_result_at, Some(at(8)), "not of the agent of another policy");
        assert_eq!(store.actions(&within("r"), ALL).await.unwrap().total, 0);
    }
}

pub async fn old_actions_are_collected_with_all_their_own(store: &impl Store) {
    for (id, end) in [("old", Some(5)), ("older", Some(3)), ("now", Some(10)), ("endless", None)] {
        let mut action = action(id);
        action.expiration = end.map(at);
        commit(store, vec![create(&action, &["a"]), answer(&result(id, "a", 1, None))]).await;
    }
    assert_eq!(store.actions_collect(at(10), 1).await.unwrap(), 1);
    assert_eq!(store.action(&action_id("older")).await.unwrap(), None, "the oldest first");
    assert_eq!(store.actions_collect(at(10), 100).await.unwrap(), 1);
    assert_eq!(store.actions_collect(at(10), 100).await.unwrap(), 0);
    assert_eq!(state(store, "old", "a").await, None);
    assert_eq!(due(store, "a", -1, at(0)).await, ["now", "endless"]);
}

pub async fn orders_are_unfinished_until_they_are_finished_or_gone(store: &impl Store) {
    let begun = |id: &str| Write::Action(ActionWrite::Begin { id: action_id(id) });
    let finished = |id: &str| Write::Action(ActionWrite::Finish { id: action_id(id) });
    for id in ["b", "a", "plain", "old"] {
        let mut action = action(id);
        action.expiration = (id == "old").then(|| at(3));
        commit(store, vec![create(&action, &["x"])]).await;
    }
    commit(store, vec![begun("a"), begun("b"), begun("old"), begun("b")]).await;
    assert_eq!(store.unfinished_effects().await.unwrap(), ["b", "a", "old"].map(action_id), "in their order");
    store.actions_collect(at(10), 10).await.unwrap();
    commit(store, vec![finished("b"), finished("b"), finished("never begun")]).await;
    assert_eq!(store.unfinished_effects().await.unwrap(), ["a"].map(action_id));
}

pub async fn revisions_after_the_first_are_listed_among_actions(store: &impl Store) {
    let at_time = |number: i64, n: i64| {
        let mut revision = revision("p", number);
        revision.created_at = at(n);
        Write::Policy(PolicyWrite::InsertRevision(Box::new(revision)))
    };
    let mut first = action("first");
    first.created_at = at(4);
    let writes =
        vec![Write::Policy(PolicyWrite::Insert(Box::new(policy("p")))), at_time(1, 1), at_time(2, 3), at_time(3, 5)];
    commit(store, writes).await;
    commit(store, vec![create(&first, &["a"])]).await;
    for (id, running, revision, active) in
        [("a", "p", 3, true), ("b", "p", 2, true), ("c", "other", 9, true), ("gone", "p", 3, false)]
    {
        let mut record = bare_agent(id);
        record.policy_id = Some(PolicyId::trusted("p"));
        record.running_policy_id = Some(PolicyId::trusted(running));
        (record.policy_revision, record.active) = (revision, active);
        commit(store, vec![insert(&record)]).await;
    }
    // Pinned agents are targets of their revision only, and done when they run exactly that one.
    for (id, pinned, revision) in [("pinned-to-2", 2, 3), ("pinned-to-1", 1, 1)] {
        let mut record = bare_agent(id);
        record.policy_id = Some(PolicyId::trusted("p"));
        record.running_policy_id = record.policy_id.clone();
        (record.target_revision, record.policy_revision) = (Some(pinned), revision);
        commit(store, vec![insert(&record)]).await;
    }
    let with = |filter: ActionFilter| ActionFilter { with_policy_changes: true, ..filter };
    let listed = store.actions(&with(ActionFilter::default()), ALL).await.unwrap();
    let shown: Vec<_> = listed.items.iter().map(|(a, c)| (a.id.as_str(), a.total, c.created, c.acked)).collect();
    assert_eq!(shown[0], ("p:3", 3, 3, 1));
    assert_eq!((shown[1].0, shown[2], listed.total), ("first", ("p:2", 4, 4, 2), 3));
    let check = async |filter: ActionFilter, page: Page, expected: &[&str]| {
        let listed = store.actions(&with(filter), page).await.unwrap();
        assert_eq!(listed.items.iter().map(|(action, _)| action.id.as_str()).collect::<Vec<_>>(), expected);
    };
    check(ActionFilter { since: Some(at(4)), before: Some(at(5)), ..ActionFilter::default() }, ALL, &["first"]).await;
    check(ActionFilter { agent_id: Some(agent_id("a")), ..ActionFilter::default() }, ALL, &["first"]).await;
    check(ActionFilter::default(), Page { offset: 1, limit: 1 }, &["first"]).await;
    assert_eq!(store.actions(&ActionFilter::default(), ALL).await.unwrap().total, 1);

    // Several of one moment: each is shown once all the same.
    for policy_id in ["q", "r"] {
        let mut writes = vec![Write::Policy(PolicyWrite::Insert(Box::new(policy(policy_id))))];
        for number in 1..=3 {
            let mut revision = revision(policy_id, number);
            revision.created_at = at(4);
            writes.push(Write::Policy(PolicyWrite::InsertRevision(Box::new(revision))));
        }
        commit(store, writes).await;
    }
    let all = store.actions(&with(ActionFilter::default()), ALL).await.unwrap();
    for limit in [1, 2, 3] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let filter = with(ActionFilter { after: after.clone(), ..ActionFilter::default() });
            let listed = store.actions(&filter, Page { offset: 0, limit }).await.unwrap();
            assert_eq!(listed.total, all.total);
            let Some((last, _)) = listed.items.last() else { break };
            after = Some(ActionCursor::behind(last));
            seen.extend(listed.items);
        }
        assert_eq!(seen, all.items, "{limit}");
    }
}
