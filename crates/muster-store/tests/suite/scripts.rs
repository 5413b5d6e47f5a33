//! Scripts: runs, executions, results, saved scripts.

use muster_core::host::Host;
use muster_core::host_run::{MAX_RUNNING, OnHostState};
use muster_core::id::{HostId, HostRunId, SavedScriptId, SpaceId};
use muster_core::script::{MAX_SAVED, SavedScript, ScriptOnHost, ScriptResult, ScriptRun, ScriptWork};
use muster_store::{AgentWrite, HostRunStore, HostRunWrite, Precondition, ScriptWrite, Store, Write};

use super::sample::*;

pub fn run(id: &str, created: i64, targets: u64) -> ScriptRun {
    ScriptRun {
        id: HostRunId::trusted(id),
        space: SpaceId::default(),
        name: "clean.sh".into(),
        created_by: "local:root".into(),
        created_at: at(created),
        expires_at: at(90),
        stopped_at: None,
        targets,
        finished: 0,
        failed: 0,
        work: ScriptWork { script: "exit 0".into(), sha256: "ab".into(), timeout: 300 },
    }
}

/// A run as it is in lists.
fn listed(run: &ScriptRun) -> ScriptRun {
    let mut run = run.clone();
    run.work.script.clear();
    run
}

fn runs(store: &impl Store) -> &impl HostRunStore<ScriptWork> {
    store
}

fn stop(run: &ScriptRun, now: i64) -> Write {
    HostRunWrite::<ScriptWork>::Stop { run: run.id.clone(), now: at(now) }.into()
}

pub fn insert_run(run: &ScriptRun, targets: &[&str]) -> Write {
    let targets = targets.iter().map(|id| agent_id(id)).collect();
    HostRunWrite::Insert { run: Box::new(run.clone()), targets, max_ended_bytes: 12 }.into()
}

fn begin(run: &ScriptRun, agent: &str) -> Write {
    HostRunWrite::<ScriptWork>::Begin { run: run.id.clone(), agent: agent_id(agent), now: at(6) }.into()
}

fn result(run: &ScriptRun, agent: &str, exit_code: i64) -> Write {
    let result = ScriptResult { exit_code, output: "out".into(), runtime: 2 };
    HostRunWrite::<ScriptWork>::Result {
        run: run.id.clone(),
        agent: agent_id(agent),
        result: Box::new(result),
        now: at(7),
    }
    .into()
}

fn host_of(agent: &str) -> HostId {
    HostId::trusted(format!("host-of-{agent}"))
}

async fn begun(store: &impl Store, agents: &[&str]) -> ScriptRun {
    for agent in agents {
        let mut record = bare_agent(agent);
        record.credentials = one_key(&format!("key-of-{agent}"));
        let (id, space) = (host_of(agent), SpaceId::default());
        record.host_id = Some(id.clone());
        let host = Host { id, space, machine_id: None, hostname: "h".into(), created_at: at(0), system_id: None };
        commit(store, vec![Write::Agent(AgentWrite::PutHost(host)), insert(&record)]).await;
    }
    let run = run("r", 5, agents.len() as u64);
    commit(store, vec![insert_run(&run, agents)]).await;
    run
}

async fn due(store: &impl Store, agent: &str, now: i64) -> Vec<ScriptRun> {
    runs(store).runs_due(&agent_id(agent), &SpaceId::default(), at(now), 9).await.unwrap()
}

async fn stored(store: &impl Store, run: &ScriptRun) -> ScriptRun {
    runs(store).run_in(&run.space, &run.id).await.unwrap().unwrap()
}

pub async fn a_script_is_due_until_its_result_comes(store: &impl Store) {
    let run = begun(store, &["a", "b"]).await;
    assert_eq!(stored(store, &run).await, run);
    assert_eq!(runs(store).run_in(&SpaceId::trusted("other"), &run.id).await.unwrap(), None);
    assert_eq!(runs(store).runs(&run.space).await.unwrap(), [listed(&run)]);
    let expected = [listed(&run)];
    assert_eq!((due(store, "a", 89).await, due(store, "a", 90).await), (expected.to_vec(), vec![]));
    assert_eq!(runs(store).runs_due(&agent_id("a"), &SpaceId::trusted("other"), at(1), 9).await.unwrap(), []);
    commit(store, vec![begin(&run, "a")]).await;
    assert_eq!(due(store, "a", 89).await.len(), 1, "orbit may have restarted");
    commit(store, vec![result(&run, "a", 3)]).await;
    assert_eq!(due(store, "a", 6).await, []);
    for again in [begin(&run, "a"), result(&run, "a", 0), begin(&run, "stranger"), result(&run, "stranger", 0)] {
        assert!(matches!(refused(store, vec![again]).await, Precondition::Missing(_)));
    }
    commit(store, vec![result(&run, "b", 0)]).await;
    let after = stored(store, &run).await;
    assert_eq!((after.finished, after.failed), (2, 1));
    let execution = runs(store).run_host(&run.id, &agent_id("a")).await.unwrap().unwrap();
    let told = ScriptResult { exit_code: 3, output: "out".into(), runtime: 2 };
    let expected = ScriptOnHost {
        run: run.id.clone(),
        agent: agent_id("a"),
        host: Some(host_of("a")),
        hostname: execution.hostname.clone(),
        state: OnHostState::Done,
        begun_at: Some(at(6)),
        ended_at: Some(at(7)),
        attempts: 1,
        result: Some(told),
    };
    assert_eq!(execution, expected);
    let of_host = runs(store).runs_of_host(&run.space, &host_of("a"), 9).await.unwrap();
    let without_output = ScriptResult { output: String::new(), ..expected.result.clone().unwrap() };
    assert_eq!(of_host, [(listed(&after), ScriptOnHost { result: Some(without_output), ..expected.clone() })]);
    assert_eq!(runs(store).runs_of_host(&SpaceId::trusted("other"), &host_of("a"), 9).await.unwrap(), []);
    let page = runs(store).run_hosts(&run.id, None, 1).await.unwrap();
    assert_eq!(page, [expected]);
    let rest = runs(store).run_hosts(&run.id, Some(&agent_id("a")), 9).await.unwrap();
    assert_eq!(rest.iter().map(|one| one.agent.as_str()).collect::<Vec<_>>(), ["b"]);
}

pub async fn agents_with_something_to_execute_are_found(store: &impl Store) {
    let run = begun(store, &["a", "b", "c"]).await;
    commit(store, vec![result(&run, "b", 0)]).await;
    let of = async |run: Option<&HostRunId>, now, after: Option<&str>| {
        let after = after.map(agent_id);
        let found = runs(store).runs_waiting(run, at(now), after.as_ref(), 9).await.unwrap();
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
    commit(store, vec![begin(&run, "a")]).await;
    commit(store, vec![stop(&run, 8)]).await;
    commit(store, vec![stop(&run, 9)]).await;
    let after = stored(store, &run).await;
    assert_eq!((after.stopped_at, after.expires_at), (Some(at(8)), at(8)));
    assert_eq!(due(store, "a", 8).await, []);
    commit(store, vec![result(&run, "a", 0)]).await;
    assert_eq!(stored(store, &run).await.finished, 1);
    let late = super::scripts::run("late", 5, 1);
    commit(store, vec![insert_run(&late, &["a"])]).await;
    commit(store, vec![stop(&late, 95)]).await;
    let after = stored(store, &late).await;
    assert_eq!((after.stopped_at, after.expires_at), (Some(at(95)), at(90)), "after the end of its deliveries");
}

pub async fn the_executions_of_a_deleted_host_end(store: &impl Store) {
    let run = begun(store, &["a", "b"]).await;
    commit(store, vec![AgentWrite::Delete { id: agent_id("a"), now: at(8) }.into()]).await;
    let execution = runs(store).run_host(&run.id, &agent_id("a")).await.unwrap().unwrap();
    assert_eq!((execution.state, execution.ended_at), (OnHostState::Gone, Some(at(8))));
    let after = stored(store, &run).await;
    assert_eq!((after.finished, after.failed), (1, 1));
    assert!(matches!(refused(store, vec![result(&run, "a", 0)]).await, Precondition::Missing(_)));
}

pub async fn a_host_that_leaves_ends_only_what_it_could_still_run(store: &impl Store) {
    begun(store, &["a", "b"]).await;
    let (stopped, expired, fetched) = (run("stopped", 5, 1), run("expired", 5, 1), run("fetched", 5, 1));
    commit(store, [&stopped, &expired, &fetched].map(|run| insert_run(run, &["a"])).to_vec()).await;
    commit(store, vec![begin(&fetched, "a"), stop(&stopped, 7)]).await;
    // All have expired, but one result may still come.
    commit(store, vec![AgentWrite::Delete { id: agent_id("a"), now: at(100) }.into()]).await;
    for (run, state, failed) in
        [(&stopped, OnHostState::Pending, 0), (&expired, OnHostState::Pending, 0), (&fetched, OnHostState::Gone, 1)]
    {
        let one = runs(store).run_host(&run.id, &agent_id("a")).await.unwrap().unwrap();
        assert_eq!((one.state, stored(store, run).await.failed), (state, failed), "{}", run.id);
    }
    let late = run("late", 5, 1);
    commit(store, vec![insert_run(&late, &["b"]), begin(&late, "b")]).await;
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
    assert_eq!(runs(store).run_host(&run.id, &agent_id("b")).await.unwrap(), None);
}

pub async fn runs_are_limited_and_old_ones_deleted_with_their_results(store: &impl Store) {
    let first = begun(store, &["a"]).await;
    for number in 1..MAX_RUNNING {
        commit(store, vec![insert_run(&run(&format!("r{number}"), 6, 1), &["a"])]).await;
    }
    assert!(matches!(refused(store, vec![insert_run(&run("more", 6, 1), &["a"])]).await, Precondition::TooMany(_)));
    commit(store, vec![result(&first, "a", 0)]).await;
    commit(store, vec![insert_run(&run("more", 6, 1), &["a"])]).await;
    assert_eq!(runs(store).runs_prune(at(90), 9).await.unwrap(), 0);
    assert_eq!(runs(store).runs_prune(at(91), 1000).await.unwrap(), MAX_RUNNING + 1);
    assert_eq!(runs(store).run_host(&first.id, &agent_id("a")).await.unwrap(), None);
}

pub async fn ended_runs_are_limited_by_the_bytes_of_their_results(store: &impl Store) {
    let first = begun(store, &["a"]).await;
    commit(store, vec![result(&first, "a", 0)]).await;
    let more = |number: i64| run(&format!("r{number}"), 5 + number, 1);
    for number in 1..=4 {
        commit(store, vec![insert_run(&more(number), &["a"]), result(&more(number), "a", 0)]).await;
    }
    let kept = async |run: &ScriptRun| runs(store).run_in(&run.space, &run.id).await.unwrap().is_some();
    assert!(kept(&first).await, "before a new run, the results had 12 bytes");
    commit(store, vec![insert_run(&more(5), &["a"])]).await;
    assert!(!kept(&first).await && kept(&more(1)).await, "the oldest one is over the limit");
    assert_eq!(runs(store).run_host(&first.id, &agent_id("a")).await.unwrap(), None);
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
