//! Scripts: runs, executions, results, saved scripts.

use muster_core::id::{SavedScriptId, ScriptRunId, SpaceId};
use muster_core::script::{Execution, ExecutionState, MAX_RUNNING, MAX_SAVED, SavedScript, ScriptResult, ScriptRun};
use muster_store::query::DueScript;
use muster_store::{AgentWrite, Precondition, ScriptWrite, Store, Write};

use super::sample::*;

pub fn run(id: &str, created: i64, targets: u64) -> ScriptRun {
    ScriptRun {
        id: ScriptRunId::trusted(id),
        space: SpaceId::default(),
        name: "clean.sh".into(),
        script: "exit 0".into(),
        sha256: "ab".into(),
        created_by: "local:root".into(),
        created_at: at(created),
        expires_at: at(90),
        timeout: 300,
        stopped_at: None,
        targets,
        finished: 0,
        failed: 0,
    }
}

pub fn insert_run(run: &ScriptRun, targets: &[&str]) -> Write {
    let targets = targets.iter().map(|id| agent_id(id)).collect();
    ScriptWrite::Insert { run: Box::new(run.clone()), targets }.into()
}

fn fetch(run: &ScriptRun, agent: &str) -> Write {
    ScriptWrite::Fetch { run: run.id.clone(), agent: agent_id(agent), now: at(6) }.into()
}

fn result(run: &ScriptRun, agent: &str, exit_code: i64) -> Write {
    let result = ScriptResult { exit_code, output: "out".into(), runtime: 2 };
    ScriptWrite::Result { run: run.id.clone(), agent: agent_id(agent), result: Box::new(result), now: at(7) }.into()
}

async fn begun(store: &impl Store, agents: &[&str]) -> ScriptRun {
    for agent in agents {
        let mut record = bare_agent(agent);
        record.credentials = one_key(&format!("key-of-{agent}"));
        commit(store, vec![insert(&record)]).await;
    }
    let run = run("r", 5, agents.len() as u64);
    commit(store, vec![insert_run(&run, agents)]).await;
    run
}

async fn due(store: &impl Store, agent: &str, now: i64) -> Vec<DueScript> {
    store.scripts_due(&agent_id(agent), &SpaceId::default(), at(now), 9).await.unwrap()
}

async fn stored(store: &impl Store, run: &ScriptRun) -> ScriptRun {
    store.script_run_in(&run.space, &run.id).await.unwrap().unwrap()
}

pub async fn a_script_is_due_until_its_result_comes(store: &impl Store) {
    let run = begun(store, &["a", "b"]).await;
    assert_eq!(stored(store, &run).await, run);
    assert_eq!(store.script_run_in(&SpaceId::trusted("other"), &run.id).await.unwrap(), None);
    assert_eq!(store.script_runs(&run.space).await.unwrap(), [ScriptRun { script: String::new(), ..run.clone() }]);
    let expected = [DueScript { run: run.id.clone(), timeout: 300 }];
    assert_eq!((due(store, "a", 89).await, due(store, "a", 90).await), (expected.to_vec(), vec![]));
    assert_eq!(store.scripts_due(&agent_id("a"), &SpaceId::trusted("other"), at(1), 9).await.unwrap(), []);
    commit(store, vec![fetch(&run, "a")]).await;
    assert_eq!(due(store, "a", 89).await.len(), 1, "orbit may have restarted");
    commit(store, vec![result(&run, "a", 3)]).await;
    assert_eq!(due(store, "a", 6).await, []);
    for again in [fetch(&run, "a"), result(&run, "a", 0), fetch(&run, "stranger"), result(&run, "stranger", 0)] {
        assert!(matches!(refused(store, vec![again]).await, Precondition::Missing(_)));
    }
    commit(store, vec![result(&run, "b", 0)]).await;
    let after = stored(store, &run).await;
    assert_eq!((after.finished, after.failed), (2, 1));
    let execution = store.script_execution(&run.id, &agent_id("a")).await.unwrap().unwrap();
    let told = ScriptResult { exit_code: 3, output: "out".into(), runtime: 2 };
    let expected = Execution {
        run: run.id.clone(),
        agent: agent_id("a"),
        host: None,
        hostname: execution.hostname.clone(),
        state: ExecutionState::Done,
        fetched_at: Some(at(6)),
        ended_at: Some(at(7)),
        result: Some(told),
    };
    assert_eq!(execution, expected);
    let of_host = store.script_executions_of(&agent_id("a"), &run.space, 9).await.unwrap();
    let listed = ScriptResult { output: String::new(), ..expected.result.clone().unwrap() };
    let after = ScriptRun { script: String::new(), ..after };
    assert_eq!(of_host, [(after, Execution { result: Some(listed), ..expected.clone() })]);
    assert_eq!(store.script_executions_of(&agent_id("a"), &SpaceId::trusted("other"), 9).await.unwrap(), []);
    let page = store.script_executions(&run.id, None, 1).await.unwrap();
    assert_eq!(page, [expected]);
    let rest = store.script_executions(&run.id, Some(&agent_id("a")), 9).await.unwrap();
    assert_eq!(rest.iter().map(|one| one.agent.as_str()).collect::<Vec<_>>(), ["b"]);
}

pub async fn agents_with_something_to_execute_are_found(store: &impl Store) {
    let run = begun(store, &["a", "b", "c"]).await;
    commit(store, vec![result(&run, "b", 0)]).await;
    let of = async |run: Option<&ScriptRunId>, now, after: Option<&str>| {
        let after = after.map(agent_id);
        let found = store.scripts_waiting(run, at(now), after.as_ref(), 9).await.unwrap();
        found.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(None, 5, None).await, ["a", "c"]);
    assert_eq!(of(None, 5, Some("a")).await, ["c"]);
    assert_eq!(of(Some(&run.id), 5, None).await, ["a", "c"]);
    assert!(of(None, 90, None).await.is_empty());
    assert!(of(Some(&run.id), 90, None).await.is_empty(), "expired");
}

pub async fn a_stopped_run_is_due_for_nobody_and_takes_results(store: &impl Store) {
    let run = begun(store, &["a"]).await;
    commit(store, vec![fetch(&run, "a")]).await;
    commit(store, vec![ScriptWrite::Stop { run: run.id.clone(), now: at(8) }.into()]).await;
    commit(store, vec![ScriptWrite::Stop { run: run.id.clone(), now: at(9) }.into()]).await;
    let after = stored(store, &run).await;
    assert_eq!((after.stopped_at, after.expires_at), (Some(at(8)), at(8)));
    assert_eq!(due(store, "a", 8).await, []);
    commit(store, vec![result(&run, "a", 0)]).await;
    assert_eq!(stored(store, &run).await.finished, 1);
    let late = super::scripts::run("late", 5, 1);
    commit(store, vec![insert_run(&late, &["a"])]).await;
    commit(store, vec![ScriptWrite::Stop { run: late.id.clone(), now: at(95) }.into()]).await;
    let after = stored(store, &late).await;
    assert_eq!((after.stopped_at, after.expires_at), (Some(at(95)), at(90)), "after the end of its deliveries");
}

pub async fn the_executions_of_a_deleted_host_end(store: &impl Store) {
    let run = begun(store, &["a", "b"]).await;
    commit(store, vec![AgentWrite::Delete { id: agent_id("a"), now: at(8) }.into()]).await;
    let execution = store.script_execution(&run.id, &agent_id("a")).await.unwrap().unwrap();
    assert_eq!((execution.state, execution.ended_at), (ExecutionState::Gone, Some(at(8))));
    let after = stored(store, &run).await;
    assert_eq!((after.finished, after.failed), (1, 1));
    assert!(matches!(refused(store, vec![result(&run, "a", 0)]).await, Precondition::Missing(_)));
}

pub async fn a_host_that_leaves_ends_only_what_it_could_still_run(store: &impl Store) {
    begun(store, &["a", "b"]).await;
    let (stopped, expired, fetched) = (run("stopped", 5, 1), run("expired", 5, 1), run("fetched", 5, 1));
    commit(store, [&stopped, &expired, &fetched].map(|run| insert_run(run, &["a"])).to_vec()).await;
    commit(store, vec![fetch(&fetched, "a"), ScriptWrite::Stop { run: stopped.id.clone(), now: at(7) }.into()]).await;
    // All have expired, but one result may still come.
    commit(store, vec![AgentWrite::Delete { id: agent_id("a"), now: at(100) }.into()]).await;
    for (run, state, failed) in [
        (&stopped, ExecutionState::Pending, 0),
        (&expired, ExecutionState::Pending, 0),
        (&fetched, ExecutionState::Gone, 1),
    ] {
        let one = store.script_execution(&run.id, &agent_id("a")).await.unwrap().unwrap();
        assert_eq!((one.state, stored(store, run).await.failed), (state, failed), "{}", run.id);
    }
    let late = run("late", 5, 1);
    commit(store, vec![insert_run(&late, &["b"]), fetch(&late, "b")]).await;
    commit(store, vec![AgentWrite::Delete { id: agent_id("b"), now: late.results_until() }.into()]).await;
    assert_eq!(stored(store, &late).await.failed, 0, "its time for a result was over");
}

pub async fn a_run_does_not_wait_for_hosts_that_left_its_space_before_it(store: &impl Store) {
    let mut elsewhere = bare_agent("b");
    elsewhere.credentials = one_key("key-of-b");
    elsewhere.space = SpaceId::trusted("red");
    commit(store, vec![insert(&bare_agent("a")), insert(&elsewhere)]).await;
    let run = run("r", 5, 3);
    commit(store, vec![insert_run(&run, &["a", "b", "deleted"])]).await;
    assert_eq!(stored(store, &run).await.targets, 1);
    assert_eq!(store.script_execution(&run.id, &agent_id("b")).await.unwrap(), None);
}

pub async fn runs_are_limited_and_old_ones_deleted_with_their_results(store: &impl Store) {
    let first = begun(store, &["a"]).await;
    for number in 1..MAX_RUNNING {
        commit(store, vec![insert_run(&run(&format!("r{number}"), 6, 1), &["a"])]).await;
    }
    assert!(matches!(refused(store, vec![insert_run(&run("more", 6, 1), &["a"])]).await, Precondition::TooMany(_)));
    commit(store, vec![result(&first, "a", 0)]).await;
    commit(store, vec![insert_run(&run("more", 6, 1), &["a"])]).await;
    assert_eq!(store.script_runs_prune(at(90), 9).await.unwrap(), 0);
    assert_eq!(store.script_runs_prune(at(91), 1000).await.unwrap(), MAX_RUNNING + 1);
    assert_eq!(store.script_execution(&first.id, &agent_id("a")).await.unwrap(), None);
}

pub async fn scripts_are_saved_replaced_and_deleted(store: &impl Store) {
    let script = |id: &str, name: &str| SavedScript {
        id: SavedScriptId::trusted(id),
        space: SpaceId::default(),
        name: name.into(),
        description: "d".into(),
        script: "exit 0".into(),
        sha256: "ab".into(),
        version: 1,
        updated_by: "local:root".into(),
        updated_at: at(4),
    };
    let save = |script: &SavedScript| -> Write { ScriptWrite::Save(Box::new(script.clone())).into() };
    let (one, other) = (script("1", "b"), script("2", "A"));
    let changed =
        async |script: &SavedScript| matches!(refused(store, vec![save(script)]).await, Precondition::Changed(_));
    commit(store, vec![save(&one), save(&other)]).await;
    let found = async |named: &str| store.saved_script(&SpaceId::default(), named).await.unwrap();
    assert_eq!((found("B").await, found("2").await), (Some(one.clone()), Some(other.clone())));
    assert_eq!(store.saved_script(&SpaceId::trusted("other"), "b").await.unwrap(), None);
    let accented = script("3", "Über");
    commit(store, vec![save(&accented)]).await;
    assert_eq!((found("ÜBER").await, found("4").await), (Some(accented), None));
    assert!(changed(&script("4", "über")).await, "the name is taken");
    commit(store, vec![ScriptWrite::DeleteSaved { id: SavedScriptId::trusted("3") }.into()]).await;
    let replaced = SavedScript { script: "exit 1".into(), name: "B".into(), version: 2, ..one.clone() };
    assert!(changed(&SavedScript { version: 3, ..replaced.clone() }).await, "version 2 was not seen");
    commit(store, vec![save(&replaced)]).await;
    assert!(changed(&replaced).await, "by somebody who has seen version 1");
    assert!(changed(&SavedScript { space: SpaceId::trusted("other"), version: 3, ..replaced.clone() }).await);
    let listed = store.saved_scripts(&SpaceId::default()).await.unwrap();
    let names: Vec<_> = listed.iter().map(|script| (script.name.as_str(), script.script.as_str())).collect();
    assert_eq!(names, [("A", ""), ("B", "")]);
    for number in 2..MAX_SAVED {
        commit(store, vec![save(&script(&format!("n{number}"), &format!("n{number}")))]).await;
    }
    assert!(matches!(refused(store, vec![save(&script("x", "x"))]).await, Precondition::TooMany(_)));
    commit(store, vec![save(&SavedScript { version: 3, ..replaced })]).await;
    let delete = || -> Write { ScriptWrite::DeleteSaved { id: one.id.clone() }.into() };
    commit(store, vec![delete()]).await;
    assert!(matches!(refused(store, vec![delete()]).await, Precondition::Missing(_)));
}
