//! Installers and their packages; runs that install and uninstall software.

use muster_core::file::ChunkInfo;
use muster_core::fleetd::platform::Platform;
use muster_core::host::Host;
use muster_core::host_run::{MAX_RUNNING, OnHostState, Work as _};
use muster_core::id::{HostId, HostRunId, InstallerId, SpaceId};
use muster_core::install::{InstallKind, InstallResult, InstallRun, InstallWork, StepResult};
use muster_core::installer::{Format, Installer, MAX_BYTES, MAX_TOTAL};
use muster_store::{AgentWrite, FileWrite, HostRunStore, HostRunWrite, InstallerWrite, Precondition, Store, Write};

use super::sample::*;

pub fn installer(id: &str, version: &str) -> Installer {
    Installer {
        id: InstallerId::trusted(id),
        space: SpaceId::default(),
        name: "Zsh".into(),
        version: version.into(),
        format: Format::Deb,
        platform: Platform::Linux,
        file_name: "zsh.deb".into(),
        size: 3,
        sha256: String::new(),
        condition: "SELECT 1".into(),
        install_script: "install".into(),
        post_install_script: "after".into(),
        uninstall_script: "uninstall".into(),
        created_by: "local:root".into(),
        created_at: at(1),
        uploaded_at: None,
    }
}

pub fn insert_installer(installer: &Installer) -> Write {
    InstallerWrite::Insert(Box::new(installer.clone())).into()
}

fn block(id: &str) -> Vec<Write> {
    let id = InstallerId::trusted(id);
    let file = installer(id.as_str(), "1").content();
    let put = FileWrite::PutChunk { file, number: 0, sha256: [7; 32], data: b"deb".to_vec() };
    vec![InstallerWrite::IsUploading(id).into(), put.into()]
}

fn complete(id: &str, length: i64) -> Write {
    let blocks = vec![ChunkInfo { number: 0, length, sha256: [7; 32] }];
    InstallerWrite::Complete { id: InstallerId::trusted(id), blocks, sha256: "ab".into(), now: at(2) }.into()
}

fn delete(id: &str) -> Write {
    InstallerWrite::Delete { id: InstallerId::trusted(id), now: at(8) }.into()
}

pub fn run(id: &str, kind: InstallKind, created: i64, targets: u64) -> InstallRun {
    InstallRun {
        id: HostRunId::trusted(id),
        space: SpaceId::default(),
        name: "Zsh".into(),
        created_by: "local:root".into(),
        created_at: at(created),
        expires_at: at(90),
        stopped_at: None,
        targets,
        finished: 0,
        failed: 0,
        work: InstallWork { kind, installer: InstallerId::trusted("i"), version: "1".into(), max_retries: 2 },
    }
}

fn runs(store: &impl Store) -> &impl HostRunStore<InstallWork> {
    store
}

fn stop(run: &InstallRun, now: i64) -> Write {
    HostRunWrite::<InstallWork>::Stop { run: run.id.clone(), now: at(now) }.into()
}

pub fn insert_run(run: &InstallRun, targets: &[&str]) -> Write {
    let targets = targets.iter().map(|id| agent_id(id)).collect();
    HostRunWrite::Insert { run: Box::new(run.clone()), targets, max_ended_bytes: 12 }.into()
}

fn begin(run: &InstallRun, agent: &str) -> Write {
    HostRunWrite::<InstallWork>::Begin { run: run.id.clone(), agent: agent_id(agent), now: at(6) }.into()
}

fn result_of(exit_code: Option<i64>, retries_remaining: u64) -> InstallResult {
    let script = StepResult::new(exit_code, "out");
    InstallResult { condition: Some("[{}]".into()), script, post_install: None, retries_remaining }
}

fn result(run: &InstallRun, agent: &str, result: InstallResult) -> Write {
    HostRunWrite::<InstallWork>::Result {
        run: run.id.clone(),
        agent: agent_id(agent),
        result: Box::new(result),
        now: at(7),
    }
    .into()
}

async fn uploaded(store: &impl Store) {
    commit(store, vec![insert_installer(&installer("i", "1"))]).await;
    commit(store, block("i")).await;
    commit(store, vec![complete("i", 3)]).await;
}

async fn begun(store: &impl Store, agents: &[&str]) -> InstallRun {
    uploaded(store).await;
    for agent in agents {
        let mut record = bare_agent(agent);
        record.credentials = one_key(&format!("key-of-{agent}"));
        commit(store, vec![insert(&record)]).await;
    }
    let run = run("r", InstallKind::Install, 5, agents.len() as u64);
    commit(store, vec![insert_run(&run, agents)]).await;
    run
}

async fn due(store: &impl Store, agent: &str, now: i64) -> Vec<InstallRun> {
    runs(store).runs_due(&agent_id(agent), &SpaceId::default(), at(now), 9).await.unwrap()
}

async fn stored(store: &impl Store, run: &InstallRun) -> InstallRun {
    runs(store).run_in(&run.space, &run.id).await.unwrap().unwrap()
}

async fn found(store: &impl Store, id: &str) -> Option<Installer> {
    store.installer_in(&SpaceId::default(), &InstallerId::trusted(id)).await.unwrap()
}

pub async fn a_package_is_complete_with_the_blocks_that_were_verified(store: &impl Store) {
    let one = installer("i", "1");
    commit(store, vec![insert_installer(&one)]).await;
    assert_eq!(found(store, "i").await, Some(one.clone()));
    assert_eq!(store.installer_in(&SpaceId::trusted("other"), &one.id).await.unwrap(), None);
    let run = insert_run(&run("r", InstallKind::Install, 5, 0), &[]);
    assert!(matches!(refused(store, vec![run]).await, Precondition::Missing(_)), "not complete");
    commit(store, block("i")).await;
    assert!(matches!(refused(store, vec![complete("i", 4)]).await, Precondition::Changed(_)), "another block");
    commit(store, vec![complete("i", 3)]).await;
    for again in [block("i"), vec![complete("i", 3)]] {
        assert!(matches!(refused(store, again).await, Precondition::Changed(_)));
    }
    let whole = Installer { sha256: "ab".into(), uploaded_at: Some(at(2)), ..one.clone() };
    assert_eq!(found(store, "i").await, Some(whole));
    let listed = store.installers(&SpaceId::default()).await.unwrap();
    assert_eq!((listed.len(), listed[0].install_script.as_str(), listed[0].condition.as_str()), (1, "", ""));
}

pub async fn installers_are_unique_limited_and_deleted_with_their_blocks(store: &impl Store) {
    commit(store, vec![insert_installer(&installer("i", "1")), insert_installer(&installer("j", "2"))]).await;
    let same = Installer { name: "zSH".into(), ..installer("k", "1") };
    assert!(matches!(refused(store, vec![insert_installer(&same)]).await, Precondition::NameTaken(_)));
    let other = Installer { platform: Platform::Darwin, format: Format::TarGz, ..same };
    commit(store, vec![insert_installer(&other)]).await;
    for number in 0..MAX_TOTAL / MAX_BYTES - 1 {
        let large = Installer { size: MAX_BYTES, ..installer(&format!("l{number}"), &format!("l{number}")) };
        commit(store, vec![insert_installer(&large)]).await;
    }
    let more = Installer { size: MAX_BYTES, ..installer("more", "more") };
    assert!(matches!(refused(store, vec![insert_installer(&more)]).await, Precondition::TooMany(_)));
    commit(store, block("i")).await;
    commit(store, vec![complete("i", 3)]).await;
    let run = run("r", InstallKind::Uninstall, 5, 1);
    commit(store, vec![insert(&bare_agent("a")), insert_run(&run, &["a"])]).await;
    assert!(matches!(refused(store, vec![delete("i")]).await, Precondition::InUse(_)));
    commit(store, vec![stop(&run, 7)]).await;
    commit(store, vec![delete("i")]).await;
    assert!(matches!(refused(store, vec![delete("i")]).await, Precondition::Missing(_)));
    assert_eq!(found(store, "i").await, None);
    assert_eq!(stored(store, &run).await.name, "Zsh", "outlives its installer");
    assert_eq!(store.installers_prune(at(1), 9).await.unwrap(), 0);
    assert_eq!(store.installers_prune(at(2), 1).await.unwrap(), 1);
}

pub async fn the_blocks_of_deleted_packages_are_removed_in_batches(store: &impl Store) {
    commit(store, vec![insert_installer(&Installer { size: 5, ..installer("i", "1") })]).await;
    commit(store, vec![insert_installer(&installer("kept", "2"))]).await;
    let put = |id: &str, number| -> Write {
        let file = installer(id, "1").content();
        FileWrite::PutChunk { file, number, sha256: [7; 32], data: b"d".to_vec() }.into()
    };
    commit(store, (0..5).map(|number| put("i", number)).chain([put("kept", 0)]).collect()).await;
    let left = async |id: &str| store.chunks(&installer(id, "1").content()).await.unwrap().len();
    assert_eq!(store.removed_chunks_prune(9).await.unwrap(), 0);
    commit(store, vec![delete("i")]).await;
    // The name is free at once, and nobody finds the package or its blocks, which are removed later.
    commit(store, vec![insert_installer(&installer("again", "1"))]).await;
    assert_eq!((found(store, "i").await, left("i").await), (None, 0));
    assert!(matches!(refused(store, block("i")).await, Precondition::Changed(_)), "an upload is over");
    for expected in [2, 2, 1] {
        assert_eq!(store.removed_chunks_prune(2).await.unwrap(), expected);
    }
    assert_eq!((left("i").await, left("kept").await, store.removed_chunks_prune(2).await.unwrap()), (0, 1, 0));
}

pub async fn fl63_an_install_is_due_until_its_last_result_comes(store: &impl Store) {
    let run = begun(store, &["a", "b"]).await;
    assert_eq!(stored(store, &run).await, run);
    assert_eq!(runs(store).runs(&run.space).await.unwrap(), std::slice::from_ref(&run));
    assert_eq!((due(store, "a", 89).await, due(store, "a", 90).await), (vec![run.clone()], vec![]));
    assert_eq!(runs(store).runs_due(&agent_id("a"), &SpaceId::trusted("other"), at(1), 9).await.unwrap(), []);
    commit(store, vec![begin(&run, "a")]).await;
    commit(store, vec![result(&run, "a", result_of(Some(1), 1))]).await;
    assert_eq!(due(store, "a", 89).await.len(), 1, "orbit tries again");
    let host = async || runs(store).run_host(&run.id, &agent_id("a")).await.unwrap().unwrap();
    let during = host().await;
    assert_eq!((during.state, during.attempts, during.result), (OnHostState::Begun, 1, Some(result_of(Some(1), 1))));
    assert_eq!(stored(store, &run).await.finished, 0);
    commit(store, vec![result(&run, "a", result_of(None, 0))]).await;
    assert_eq!(due(store, "a", 6).await, []);
    let after = host().await;
    assert_eq!((after.state, after.attempts, after.begun_at), (OnHostState::Done, 2, Some(at(6))));
    assert_eq!(after.result, Some(result_of(None, 0)), "the script did not run");
    let again = [begin(&run, "a"), result(&run, "a", result_of(Some(0), 0)), begin(&run, "stranger")];
    for again in again {
        assert!(matches!(refused(store, vec![again]).await, Precondition::Missing(_)));
    }
    commit(store, vec![result(&run, "b", result_of(Some(0), 0))]).await;
    let ended = stored(store, &run).await;
    assert_eq!((ended.finished, ended.failed), (2, 1));
    let page = runs(store).run_hosts(&run.id, Some(&agent_id("a")), 9).await.unwrap();
    assert_eq!(page.iter().map(|one| one.agent.as_str()).collect::<Vec<_>>(), ["b"]);
}

pub async fn only_the_newest_result_of_a_host_counts_in_bytes(store: &impl Store) {
    let one = begun(store, &["a"]).await;
    let of = |length: usize, retries| {
        let script = Some(StepResult { exit_code: 1, output: "x".repeat(length) });
        result(&one, "a", InstallResult { script, retries_remaining: retries, ..InstallResult::default() })
    };
    let inserted = async |id: &str| {
        commit(store, vec![insert_run(&run(id, InstallKind::Install, 6, 1), &["a"])]).await;
        runs(store).run_in(&one.space, &one.id).await.unwrap()
    };
    // Together more than the limit of 12 bytes, but each one replaces the one before.
    for (length, retries) in [(13, 3), (4, 2), (13, 1), (12, 0)] {
        commit(store, vec![of(length, retries)]).await;
    }
    assert_eq!(inserted("next").await.map(|run| run.failed), Some(1), "it is kept");
    let other = run("next", InstallKind::Install, 6, 1);
    commit(store, vec![result(&other, "a", InstallResult { condition: Some("x".into()), ..result_of(None, 0) })]).await;
    assert_eq!(inserted("last").await, None, "the conditions and outputs of both have 13 bytes");
}

pub async fn agents_with_something_to_install_are_found(store: &impl Store) {
    let one = begun(store, &["a", "b", "c"]).await;
    let other = run("other", InstallKind::Uninstall, 6, 1);
    commit(store, vec![insert_run(&other, &["c"])]).await;
    let waiting = async |run: Option<&HostRunId>, now, after: &str, limit| {
        let after = Some(agent_id(after)).filter(|id| !id.as_str().is_empty());
        let found = runs(store).runs_waiting(run, at(now), after.as_ref(), limit).await.unwrap();
        found.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(waiting(None, 1, "", 2).await, ["a", "b"]);
    assert_eq!(waiting(None, 1, "b", 9).await, ["c"]);
    assert!(waiting(None, 90, "", 9).await.is_empty());
    assert_eq!(waiting(Some(&other.id), 1, "", 9).await, ["c"]);
    let due = due(store, "c", 1).await;
    assert_eq!(due.iter().map(|run| run.work.kind).collect::<Vec<_>>(), [InstallKind::Install, InstallKind::Uninstall]);
    commit(store, vec![stop(&one, 7)]).await;
    assert_eq!(waiting(None, 7, "", 9).await, ["c"]);
    assert!(waiting(Some(&one.id), 7, "", 9).await.is_empty(), "stopped");
    assert!(waiting(Some(&other.id), 90, "", 9).await.is_empty(), "expired");
    assert_eq!(stored(store, &one).await.stopped_at, Some(at(7)));
}

pub async fn installs_of_a_host_are_newest_first_and_end_with_it(store: &impl Store) {
    let run_of = |id: &str, created| run(id, InstallKind::Install, created, 1);
    uploaded(store).await;
    let host = HostId::trusted("host-1");
    let mut record = bare_agent("a");
    record.host_id = Some(host.clone());
    let machine = Host {
        id: host.clone(),
        space: SpaceId::default(),
        machine_id: None,
        hostname: "h".into(),
        created_at: at(0),
        system_id: None,
    };
    commit(store, vec![Write::Agent(AgentWrite::PutHost(machine)), insert(&record)]).await;
    commit(store, vec![insert_run(&run_of("r1", 5), &["a"]), insert_run(&run_of("r2", 6), &["a"])]).await;
    let of = async |space: SpaceId| {
        let found = runs(store).runs_of_host(&space, &host, 9).await.unwrap();
        found.iter().map(|(run, on)| (run.id.as_str().to_owned(), on.state)).collect::<Vec<_>>()
    };
    let expected = [("r2".to_owned(), OnHostState::Pending), ("r1".to_owned(), OnHostState::Pending)];
    assert_eq!(of(SpaceId::default()).await, expected);
    commit(store, vec![begin(&run_of("r2", 6), "a"), result(&run_of("r2", 6), "a", result_of(Some(1), 1))]).await;
    let listed = runs(store).runs_of_host(&SpaceId::default(), &host, 1).await.unwrap().remove(0).1.result;
    let script = Some(StepResult { exit_code: 1, output: String::new() });
    let expected = InstallResult { condition: None, script, post_install: None, retries_remaining: 1 };
    assert_eq!(listed, Some(expected), "without outputs");
    assert!(of(SpaceId::trusted("other")).await.is_empty());
    commit(store, vec![AgentWrite::Delete { id: agent_id("a"), now: at(8) }.into()]).await;
    let gone = runs(store).run_host(&HostRunId::trusted("r1"), &agent_id("a")).await.unwrap().unwrap();
    assert_eq!((gone.state, gone.ended_at), (OnHostState::Gone, Some(at(8))));
    assert_eq!(stored(store, &run_of("r1", 5)).await.failed, 1);
}

pub async fn a_host_that_leaves_ends_only_what_it_could_still_install(store: &impl Store) {
    begun(store, &["a"]).await;
    let of = |id: &str, expires| InstallRun { expires_at: at(expires), ..run(id, InstallKind::Install, 5, 1) };
    let (stopped, expired, late, open) = (of("stopped", 90), of("expired", 40), of("late", 40), of("open", 90));
    let all = [&stopped, &expired, &late, &open];
    commit(store, all.map(|run| insert_run(run, &["a"])).to_vec()).await;
    commit(store, vec![begin(&late, "a"), stop(&stopped, 7)]).await;
    commit(store, vec![AgentWrite::Delete { id: agent_id("a"), now: at(50) }.into()]).await;
    for (run, state, failed) in [
        (&stopped, OnHostState::Pending, 0),
        (&expired, OnHostState::Pending, 0),
        (&late, OnHostState::Gone, 1),
        (&open, OnHostState::Gone, 1),
    ] {
        let (host, run) =
            (runs(store).run_host(&run.id, &agent_id("a")).await.unwrap().unwrap(), stored(store, run).await);
        assert_eq!((host.state, run.finished, run.failed), (state, failed, failed), "{}", run.id);
    }
    assert_eq!(stored(store, &stopped).await.state(at(50)), "stopped");
    let mut again = bare_agent("b");
    again.credentials = one_key("key-of-b");
    let old = of("old", 40);
    commit(store, vec![insert(&again), insert_run(&old, &["b"]), begin(&old, "b")]).await;
    let end = old.results_until();
    commit(store, vec![AgentWrite::Delete { id: agent_id("b"), now: end }.into()]).await;
    assert_eq!(stored(store, &old).await.failed, 0, "its time for a result was over");
}

pub async fn a_run_does_not_wait_for_hosts_that_left_its_space_before_it(store: &impl Store) {
    uploaded(store).await;
    let mut elsewhere = bare_agent("b");
    elsewhere.credentials = one_key("key-of-b");
    elsewhere.space = SpaceId::trusted("red");
    commit(store, vec![insert(&bare_agent("a")), insert(&elsewhere)]).await;
    let run = run("r", InstallKind::Install, 5, 3);
    commit(store, vec![insert_run(&run, &["a", "b", "deleted"])]).await;
    assert_eq!(stored(store, &run).await.targets, 1);
    assert_eq!(runs(store).run_host(&run.id, &agent_id("b")).await.unwrap(), None);
}

pub async fn an_installer_stays_while_a_host_that_has_begun_may_fetch_it(store: &impl Store) {
    let run = begun(store, &["a", "b"]).await;
    let delete = |now| -> Write { InstallerWrite::Delete { id: InstallerId::trusted("i"), now }.into() };
    commit(store, vec![begin(&run, "a")]).await;
    assert!(matches!(refused(store, vec![delete(at(91))]).await, Precondition::InUse(_)));
    let end = at(90).plus(InstallWork::GRACE);
    assert!(matches!(
        refused(store, vec![delete(end.minus(std::time::Duration::from_secs(1)))]).await,
        Precondition::InUse(_)
    ));
    commit(store, vec![delete(end)]).await;
}

pub async fn a_condition_that_is_not_met_is_no_failure(store: &impl Store) {
    let run = begun(store, &["a"]).await;
    let skipped = InstallResult { condition: Some(String::new()), ..InstallResult::default() };
    commit(store, vec![result(&run, "a", skipped)]).await;
    let ended = stored(store, &run).await;
    assert_eq!((ended.finished, ended.failed), (1, 0));
}

pub async fn install_runs_are_limited_and_old_ones_deleted(store: &impl Store) {
    let first = begun(store, &["a"]).await;
    let more = |number: u64| insert_run(&run(&format!("r{number}"), InstallKind::Install, 6, 1), &["a"]);
    for number in 1..MAX_RUNNING {
        commit(store, vec![more(number)]).await;
    }
    assert!(matches!(refused(store, vec![more(MAX_RUNNING)]).await, Precondition::TooMany(_)));
    commit(store, vec![result(&first, "a", result_of(Some(0), 0))]).await;
    commit(store, vec![more(MAX_RUNNING)]).await;
    assert_eq!(runs(store).runs_prune(at(90), 9).await.unwrap(), 0);
    assert_eq!(runs(store).runs_prune(at(91), 1000).await.unwrap(), MAX_RUNNING + 1);
    assert_eq!(runs(store).run_host(&first.id, &agent_id("a")).await.unwrap(), None);
}
