//! A process that is killed in the middle of commits loses nothing that it acknowledged.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use muster_core::audit::{AuditEvent, ChainCheck};
use muster_core::change::Change;
use muster_core::id::{ActionId, AgentId};
use muster_store::{ActionStore as _, AgentStore as _, AuditStore as _, ChangeStore as _, Store as _, Write};
use muster_store::{Options, SqlStore};

#[path = "suite/sample.rs"]
#[allow(dead_code, reason = "the samples are the suite's; only some are needed here")]
mod sample;

use sample::{action, agent_id, answer, at, create, full_agent, insert, next, result, update};

/// Set in the child: where its store is and the number of its round.
const CHILD: &str = "MUSTER_TEST_KILLED_CHILD";
const ROUNDS: usize = 6;
const CALLERS: usize = 16;

/// The parent starts this same test again as a child, which writes until it is killed.
#[test]
fn everything_acknowledged_survives_kill_9() {
    if let Ok(directory) = std::env::var(CHILD) {
        return child(Path::new(&directory));
    }
    let directory = std::env::temp_dir().join(format!("muster-store-killed-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = start(&directory);
        // Some rounds end while the store is opened or makes its first commits, others later.
        let killed_after = [1, 40, 400, 3, 150, 900][round];
        acknowledged.extend(kill_after(&mut child, killed_after));
        runtime.block_on(check(&directory, &acknowledged));
    }
    assert!(acknowledged.len() > 1_400, "the child did write: {}", acknowledged.len());
    std::fs::remove_dir_all(&directory).unwrap();
}

fn start(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "everything_acknowledged_survives_kill_9", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills the child once it has acknowledged `number` commits; all that it acknowledged until it was dead.
fn kill_after(child: &mut Child, number: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while acknowledged.len() < number {
        let line = lines.next().expect("the child writes until it is killed").unwrap();
        acknowledged.extend(line.strip_prefix("ACK ").map(str::to_owned));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What stood in the pipe was acknowledged before the end. A last line without its end was not.
    let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
    if rest.last().is_some_and(|last| !last.ends_with('.')) {
        rest.pop();
    }
    acknowledged.extend(rest.iter().filter_map(|line| line.strip_prefix("ACK ")).map(str::to_owned));
    acknowledged
}

async fn check(directory: &Path, acknowledged: &[String]) {
    let store = SqlStore::open(&directory.join("muster.db"), &Options::default()).unwrap();
    for id in acknowledged.iter().map(|line| line.trim_end_matches('.')) {
        let agent = store.agent(&AgentId::trusted(id)).await.unwrap().expect(id);
        assert_eq!(agent.version, 2, "the acknowledged update of {id}");
        let results = store.action_results(&ActionId::trusted(format!("x-{id}")), false, 2).await.unwrap();
        assert_eq!(results.len(), 1, "the acknowledged answer of {id}");
    }
    let mut lines = 0;
    for chain in store.audit_chains().await.unwrap() {
        let mut check = ChainCheck::new(&chain);
        for link in store.audit_links(&chain, 0, u32::MAX).await.unwrap() {
            check.next(link.position, &link.event, &link.hash).unwrap();
            lines += 1;
        }
    }
    assert!(lines >= acknowledged.len(), "{lines} audit lines");
    assert!(store.changes_since(0, u32::MAX).await.unwrap().len() >= acknowledged.len());
    // A commit is whole: no agent without its action.
    for id in store.agent_ids(&Default::default(), None, u32::MAX).await.unwrap() {
        assert!(store.action(&ActionId::trusted(format!("x-{id}"))).await.unwrap().is_some(), "{id} is half there");
    }
}

/// Enrolls, creates actions, updates and acknowledges on many tasks, and says so line by line, until killed.
fn child(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqlStore::open(&directory.join("muster.db"), &Options::default()).unwrap();
        let store = Arc::new(store);
        for caller in 0..CALLERS {
            tokio::spawn(write_on(store.clone(), format!("{}-{caller}", std::process::id())));
        }
        tokio::time::sleep(Duration::from_secs(120)).await;
    });
}

async fn write_on(store: Arc<SqlStore>, caller: String) {
    for n in 0.. {
        let id = format!("{caller}-{n}");
        let mut record = full_agent(&id);
        record.active = true;
        let action_id = format!("x-{id}");
        let enrolled = vec![insert(&record), create(&action(&action_id), &[&id]), audit(&id)];
        store.commit(enrolled).await.unwrap();
        let after = next(&record, |agent| agent.policy_revision += 1);
        let changed = Write::Changed(Change::Agent(agent_id(&id)));
        store.commit(vec![update(&record, &after), answer(&result(&action_id, &id, 1, None)), changed]).await.unwrap();
        // One call, so that lines of several tasks don't mix.
        std::io::stdout().lock().write_all(format!("ACK {id}.\n").as_bytes()).unwrap();
    }
}

fn audit(id: &str) -> Write {
    Write::Audit(AuditEvent {
        at: at(0),
        actor: "system".into(),
        action: "agent.enroll".into(),
        subject: format!("agent:{id}"),
        detail: serde_json::json!({}),
        address: None,
        reason: None,
        space: None,
    })
}
