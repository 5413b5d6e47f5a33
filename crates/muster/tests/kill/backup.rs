//! Backups of a server that is working, and what agents notice of a restore.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use muster_client::Client;
use muster_client::types::agent::ListAgents;
use muster_client::types::agent_action::Unenroll;
use muster_client::types::audit::{ExportAuditEvents, ListAuditEvents};
use muster_client::types::enrollment_key::CreateEnrollmentKey;
use muster_core::audit::verify::Verifier;
use muster_drones::session::Session;

use crate::load::Fleet;
use crate::server::{Server, muster};
use crate::verify::{check_in, lives};

/// Simulated agents that poll while the backup is created.
const DRONES: u32 = 200;

fn run(words: &[&str]) -> Output {
    muster().args(words).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn ok(words: &[&str]) -> String {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

#[track_caller]
fn fails(words: &[&str]) -> String {
    let output = run(words);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).to_str().unwrap().to_owned()
}

/// Ids and times of the last check-in.
async fn seen(client: &Client) -> BTreeMap<String, String> {
    let query = ListAgents { per_page: Some(1000), show_inactive: Some(true), ..ListAgents::default() };
    let agents = client.agents(&query).await.unwrap().items;
    agents.into_iter().map(|agent| (agent.id, agent.last_checkin.unwrap_or_default())).collect()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !holds().await {
        assert!(Instant::now() < end, "it never happens: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the fingerprint of the key that the fleet signs with.
async fn fingerprint(client: &Client) -> String {
    let mut file = Vec::new();
    client.export_audit(&ExportAuditEvents::default(), &mut file).await.unwrap();
    let mut verifier = Verifier::new(None);
    file.split_inclusive(|byte| *byte == b'\n').for_each(|line| verifier.line(line).unwrap());
    verifier.end().unwrap().header.fingerprint
}

/// Agents that poll, reconnect after a fraction of a second, and never enroll again.
struct Drones(Child);

impl Drones {
    async fn start(server: &Server, ca: &str) -> Self {
        let client = server.client();
        let policies = client.agent_policies(&Default::default()).await.unwrap();
        let policy_id = Some(policies.items[0].id.clone());
        let key = CreateEnrollmentKey { policy_id, ..CreateEnrollmentKey::default() };
        let token = client.create_enrollment_key(&key).await.unwrap().api_key.unwrap();
        let (url, count) = (format!("https://{}", server.agents_at()), DRONES.to_string());
        let words = ["drones", "--json", "--mode", "live", "--url", &url, "--ca", ca, "--count", &count];
        let more = ["--enrollment-token", &token, "--back-off", "0.1", "--back-off-max", "0.5"];
        let mut drones = muster();
        drones.args(words).args(more).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(drones.spawn().unwrap())
    }
}

impl Drop for Drones {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mg117_a_backup_under_load_is_restored_elsewhere_and_the_agents_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    let backup = path(directory.path(), "backup.tar");
    let mut server = Server::start(&first);
    let (address, client) = (server.agents_at().to_owned(), server.client());
    let _drones = Drones::start(&server, &path(&first, "ca.crt")).await;
    let all = DRONES as usize;
    eventually("all agents check in", async || {
        let seen = seen(&client).await;
        seen.len() == all && seen.values().all(|at| !at.is_empty())
    })
    .await;
    let key = fingerprint(&client).await;
    let (ids, data) = (seen(&client).await.into_keys().collect::<Vec<_>>(), first.to_str().unwrap());
    ok(&["backup", "create", "--data-dir", data, "--out", &backup]);
    // What the backup contains is older.
    let before = seen(&client).await.into_values().max().unwrap();
    server.kill();

    let (data, master_key) = (second.to_str().unwrap(), path(&first, "master.key"));
    ok(&["backup", "restore", &backup, "--data-dir", data, "--master-key-file", &master_key]);
    let server = Server::start_at(&second, &address);
    let client = server.client();
    eventually("all agents check in again", async || seen(&client).await.values().all(|at| *at > before)).await;
    assert_eq!(seen(&client).await.into_keys().collect::<Vec<_>>(), ids, "nobody enrolled again");
    let enrolled = ListAuditEvents { action: Some("agent.enroll".into()), per_page: Some(1000), ..Default::default() };
    assert_eq!(client.audit_events(&enrolled).await.unwrap().items.len(), all);
    assert_eq!(client.agent_status(None).await.unwrap().online, all as u64);
    assert_eq!(fingerprint(&client).await, key);
    assert!(client.verify_audit().await.unwrap().intact);
    assert!(client.refused_requests().await.unwrap().is_empty());
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_revokes_nobody_and_agents_that_enrolled_after_it_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    let backup = path(directory.path(), "backup.tar");
    let mut server = Server::start(&first);
    let mut fleet = Fleet::enroll(&server, 4).await;
    let revoked = fleet.agents.remove(0);
    let force = Unenroll { revoke: Some(true), ..Unenroll::default() };
    server.client().unenroll(&revoked.id, &force).await.unwrap();
    let told =
        ok(&["backup", "create", "--data-dir", first.to_str().unwrap(), "--out", &backup, "--include-master-key"]);
    assert!(told.contains("contains the master key"), "{told}");
    let mut session = Session::new(server.shared().await, 0);
    let mut later = Vec::new();
    for number in 10..12 {
        later.push(fleet.let_in(&mut session, number).await.unwrap());
    }
    server.kill();

    ok(&["backup", "restore", &backup, "--data-dir", second.to_str().unwrap()]);
    let server = Server::start(&second);
    let (mut session, client) = (Session::new(server.shared().await, 1), server.client());
    for agent in &fleet.agents {
        lives(&mut session, agent).await;
        assert!(client.agent(&agent.id).await.unwrap().active, "{}", agent.id);
    }
    for agent in &later {
        let answer = check_in(&mut session, agent).await;
        assert_eq!(answer.status, 503, "{}", text(&answer.body));
    }
    assert_eq!(check_in(&mut session, &revoked).await.status, 401, "a key that the store knows is judged as always");
    let refused = client.refused_requests().await.unwrap();
    let mut listed: Vec<_> = refused.iter().filter(|row| row.reason == "EnrolledAfterBackup").collect();
    listed.sort_by_key(|row| row.agent_id.clone());
    later.sort_by_key(|agent| agent.id.clone());
    let ids = |rows: &[&muster_client::types::refused::RefusedRequests]| {
        rows.iter().map(|row| row.agent_id.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&listed), later.iter().map(|agent| agent.id.clone()).collect::<Vec<_>>());
    let restored = ListAuditEvents { action: Some("backup.restore".into()), ..ListAuditEvents::default() };
    assert_eq!(client.audit_events(&restored).await.unwrap().items.len(), 1);
    server.stop();
    let told = fails(&["backup", "restore", &backup, "--data-dir", second.to_str().unwrap()]);
    assert!(told.contains("empty directory"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_is_rejected_before_anything_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first"), path(directory.path(), "second"));
    let backup = path(directory.path(), "backup.tar");
    let server = Server::start(&first);
    ok(&["backup", "create", "--data-dir", first.to_str().unwrap(), "--out", &backup]);
    server.stop();
    assert!(!first.join("backup.db").try_exists().unwrap(), "the server keeps no copy");
    let whole = std::fs::read(&backup).unwrap();
    for at in [600, whole.len() / 2, whole.len() - 6000] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&backup, &damaged).unwrap();
        fails(&["backup", "restore", &backup, "--data-dir", &second]);
    }
    for length in [0, 100, 2000, whole.len() - 20_000] {
        std::fs::write(&backup, &whole[..length]).unwrap();
        fails(&["backup", "restore", &backup, "--data-dir", &second]);
    }
    assert!(!Path::new(&second).try_exists().unwrap());
    std::fs::write(&backup, &whole).unwrap();
    let told = ok(&["backup", "restore", &backup, "--data-dir", &second]);
    assert!(told.contains("copy master.key"), "{told}");
}
