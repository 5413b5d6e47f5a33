//! Upgrades of the agent: reports, acks, roll-backs, and kills at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8Path;
use muster_agent::backoff::between;
use muster_agent::coordinator::{Command, Ending};
use muster_agent::entropy::Seeded;
use muster_agent::paths::Layout;
use muster_agent::standalone::file::PolicyFile;
use muster_agent::state::Store as _;
use muster_agent::upgrade::details::Stage;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::fixture::{Agent, HOUR, MINUTE, SECOND, action, level, policy, with_seeds};
use crate::server::{Ack, Fault};
use crate::site::{Behavior, LOOK, Site, behavior, name};

/// An installed agent, with whatever starts it.
struct Host {
    agent: Agent,
    site: Arc<Site>,
}

impl Host {
    fn new(seed: u64) -> Self {
        let mut host = Self { agent: Agent::new(seed), site: Site::new("0.1.0") };
        host.agent.settings.checkin.request_backoff_init = SECOND;
        host.agent.settings.checkin.request_backoff_max = SECOND * 10;
        host.agent.settings.checkin.state_change_gap = Duration::from_millis(50);
        host.site.boot(&mut host.agent);
        host
    }

    /// Lets time pass, in steps of the watcher, and restarts the agent when it wants to become another version.
    async fn pass(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(LOOK);
            self.agent.pass(step).await;
            left -= step;
            if self.agent.running.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
                assert_eq!(self.agent.ended(SECOND).await, Ending::Restart);
                self.site.boot(&mut self.agent);
            } else if self.agent.running.is_none() {
                // It has crashed.
                self.site.boot(&mut self.agent);
            }
            if step == LOOK {
                self.site.look(&mut self.agent).await;
            }
        }
    }

    fn send(&self, action: Value) {
        self.agent.server.change(|server| server.actions.push(action));
    }

    fn version(&self) -> String {
        self.site.active().version().to_owned()
    }

    fn acks(&self, id: &str) -> Vec<Ack> {
        self.agent.server.acks().into_iter().filter(|ack| ack.action_id == id).collect()
    }

    /// States of the upgrade in the check-ins so far, without repetitions.
    fn reported(&self) -> Vec<String> {
        let mut states: Vec<String> = Vec::new();
        for check_in in &self.agent.server.lock().check_ins {
            let state = check_in.body["upgrade_details"]["state"].as_str().unwrap_or("none").to_owned();
            if states.last() != Some(&state) {
                states.push(state);
            }
        }
        states
    }

    fn last_details(&self) -> Value {
        self.agent.server.lock().check_ins.last().unwrap().body["upgrade_details"].clone()
    }
}

fn upgrade(id: &str, version: &str) -> Value {
    action(id, "UPGRADE", json!({"version": version}))
}

#[tokio::test(start_paused = true)]
async fn ag56_ag131_ag167_an_upgrade_is_reported_in_order_and_acknowledged_once() {
    let mut host = Host::new(500);
    host.pass(SECOND * 10).await;
    host.send(upgrade("u", "0.2.0"));
    let state = async |host: &Host| host.agent.snapshot().await.state;
    let begun = tokio::time::Instant::now();
    while state(&host).await.as_str() != "UPGRADING" {
        assert!(begun.elapsed() < SECOND);
        host.agent.pass(Duration::from_millis(1)).await;
    }
    host.pass(MINUTE * 5).await;
    // Without a policy.
    assert_eq!((host.version().as_str(), state(&host).await.as_str()), ("0.2.0", "STARTING"));
    let reported = host.reported();
    assert_eq!(reported[reported.len() - 2..], ["UPG_WATCHING", "none"], "{reported:?}");
    let stages = [
        "none",
        "UPG_REQUESTED",
        "UPG_DOWNLOADING",
        "UPG_EXTRACTING",
        "UPG_REPLACING",
        "UPG_RESTARTING",
        "UPG_WATCHING",
    ];
    let places: Vec<_> =
        reported[..reported.len() - 1].iter().map(|state| stages.iter().position(|known| known == state)).collect();
    assert!(places.is_sorted() && !places.contains(&None), "{reported:?}");
    let acks = host.acks("u");
    assert_eq!((acks.len(), acks[0].error.clone()), (1, None));
    let offered = host.agent.server.lock().check_ins.last().unwrap().body["upgrade"].clone();
    assert_eq!(offered["rollbacks"][0]["version"], "0.1.0");
    assert!(host.site.record().is_none());
}

#[tokio::test(start_paused = true)]
async fn ag125_ag126_a_version_that_does_not_work_is_rolled_back_and_reported() {
    for (seed, version, reason) in [(501, "0.5.0", "started 5 times"), (502, "0.6.0", "did not connect to the server")]
    {
        let mut host = Host::new(seed);
        host.pass(SECOND * 10).await;
        host.send(upgrade("u", version));
        host.pass(MINUTE * 10).await;
        assert_eq!(host.version(), "0.1.0", "{version}");
        let details = host.last_details();
        assert_eq!((&details["state"], &details["target_version"]), (&json!("UPG_FAILED"), &json!(version)));
        assert!(details["metadata"]["error_msg"].as_str().unwrap().contains(reason), "{details}");
        assert!(host.reported().contains(&"UPG_ROLLBACK".to_owned()), "{:?}", host.reported());
        assert_eq!(host.acks("u").len(), 1);
        assert_eq!(host.site.installed(), [name("0.1.0")], "the version that failed is removed");
    }
}

#[tokio::test(start_paused = true)]
async fn ag121_an_upgrade_that_cannot_be_prepared_fails_and_the_agent_goes_on() {
    let mut host = Host::new(503);
    host.send(upgrade("u", "0.4.0"));
    host.pass(MINUTE).await;
    let details = host.last_details();
    assert_eq!(details["metadata"], json!({"failed_state": "UPG_DOWNLOADING", "error_msg": "404"}));
    assert_eq!(host.acks("u")[0].error.as_deref(), Some("404"));
    host.agent.kill().await;
    host.site.boot(&mut host.agent);
    host.pass(MINUTE).await;
    assert_eq!(host.last_details()["state"], "UPG_FAILED", "it is still reported after a restart");
    host.send(upgrade("v", "0.2.0"));
    host.pass(MINUTE * 5).await;
    assert_eq!((host.version(), host.last_details()), ("0.2.0".into(), Value::Null));
}

#[tokio::test(start_paused = true)]
async fn ag132_the_same_version_needs_no_download_and_a_replaced_upgrade_gets_an_error() {
    let mut host = Host::new(504);
    host.send(upgrade("same", "0.1.0"));
    host.pass(SECOND * 10).await;
    assert_eq!(host.acks("same")[0].error, None);
    host.agent.server.change(|server| {
        server.actions.extend([upgrade("a", "0.2.0"), upgrade("b", "0.2.0"), upgrade("c", "0.3.0")]);
    });
    host.pass(MINUTE * 5).await;
    assert_eq!(host.version(), "0.3.0");
    assert_eq!(host.acks("a")[0].error.as_deref(), Some("replaced by action b"));
    assert_eq!(host.acks("b")[0].error.as_deref(), Some("replaced by action c"));
    assert_eq!((host.acks("c").len(), host.acks("c")[0].error.clone()), (1, None));
}

#[tokio::test(start_paused = true)]
async fn ag132_a_request_that_cannot_be_carried_out_does_not_end_the_running_upgrade() {
    let mut host = Host::new(509);
    host.pass(SECOND * 10).await;
    let far = action("far", "UPGRADE", json!({"version": "0.0.1", "rollback": true}));
    host.agent.server.change(|server| server.actions.extend([upgrade("u", "0.2.0"), far]));
    host.pass(MINUTE * 5).await;
    assert_eq!(host.acks("far")[0].error.as_deref(), Some("not on disk"));
    assert_eq!((host.version(), host.acks("u")[0].error.clone()), ("0.2.0".into(), None));
    assert_eq!(host.last_details(), Value::Null, "the refused request left no report");
}

#[tokio::test(start_paused = true)]
async fn ag112_a_scheduled_upgrade_is_reported_and_an_expired_one_has_failed() {
    let mut host = Host::new(505);
    let mut later = upgrade("later", "0.2.0");
    later["start_time"] = "2026-06-01T00:10:00Z".into();
    let mut expired = upgrade("expired", "0.3.0");
    expired["expiration"] = "2026-05-01T00:00:00Z".into();
    host.send(expired);
    host.pass(SECOND * 10).await;
    assert_eq!(host.last_details()["state"], "UPG_FAILED");
    host.send(later);
    host.pass(MINUTE).await;
    let details = host.last_details();
    assert_eq!(
        (&details["state"], &details["metadata"]["scheduled_at"]),
        (&json!("UPG_SCHEDULED"), &json!("2026-06-01T00:10:00Z"))
    );
    host.pass(MINUTE * 15).await;
    assert_eq!(host.version(), "0.2.0");
}

#[tokio::test(start_paused = true)]
async fn a_kept_version_can_be_activated_again() {
    let mut host = Host::new(506);
    host.send(upgrade("u", "0.2.0"));
    host.pass(MINUTE * 5).await;
    host.send(action("back", "UPGRADE", json!({"version": "0.1.0", "rollback": true})));
    host.pass(MINUTE * 5).await;
    assert_eq!((host.version(), host.acks("back")[0].error.clone()), ("0.1.0".into(), None));
    host.send(action("far", "UPGRADE", json!({"version": "0.0.1", "rollback": true})));
    host.pass(MINUTE).await;
    assert_eq!(host.acks("far")[0].error.as_deref(), Some("not on disk"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_not_installed_refuses_upgrades() {
    let mut agent = Agent::new(507);
    agent.server.change(|server| server.actions = vec![upgrade("u", "0.2.0")]);
    agent.start();
    agent.pass(SECOND * 10).await;
    let acks = agent.server.acks();
    assert!(acks[0].error.as_deref().unwrap().contains("was not installed"), "{acks:?}");
    let (reply, refused) = oneshot::channel();
    let request = muster_agent::upgrade::Request { version: "0.2.0".into(), is_forced: true, ..Default::default() };
    agent.commands.send(Command::Upgrade(request, reply)).await.unwrap();
    assert!(refused.await.unwrap().unwrap().contains("was not installed"));
}

#[tokio::test(start_paused = true)]
async fn ag7_ag125_a_standalone_agent_is_upgraded_without_a_server_and_rolled_back() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
    std::fs::write(layout.policy_file(), "inputs: [{ id: a, type: process, command: xx }]").unwrap();
    let mut host = Host { agent: Agent::new(508), site: Site::new("0.1.0") };
    host.agent.store.forget_enrollment().unwrap();
    host.agent.policy_file = Some(PolicyFile::new(&layout));
    host.site.boot(&mut host.agent);
    host.pass(SECOND * 10).await;
    // 0.6.0 cannot connect to any server, which a standalone agent does not need. 0.5.0 crashes.
    for (version, active) in [("0.2.0", "0.2.0"), ("0.6.0", "0.6.0"), ("0.5.0", "0.6.0")] {
        let (reply, refused) = oneshot::channel();
        let request = muster_agent::upgrade::Request { version: version.into(), ..Default::default() };
        host.agent.commands.send(Command::Upgrade(request, reply)).await.unwrap();
        assert_eq!(refused.await.unwrap(), None);
        host.pass(MINUTE * 15).await;
        assert_eq!(host.version(), active);
        assert_eq!(host.agent.running(), ["process-default-a"]);
    }
    let details = host.agent.snapshot().await.upgrade.unwrap();
    assert_eq!((details.state, details.target_version.as_str()), (Stage::Failed, "0.5.0"));
    let writes = host.agent.store.writes();
    host.pass(HOUR).await;
    assert_eq!(host.agent.store.writes(), writes);
    assert!(host.agent.server.lock().check_ins.is_empty());
}

/// Any sequence of upgrades to versions that work and that do not, roll-backs, lost requests, kills of the agent, and crashes of
/// the host, in which a change on disk may be the last: one complete version runs, every action is acknowledged with one
/// result, and nothing is left of an upgrade.
#[test]
fn ag124_under_random_crashes_one_complete_version_runs_and_every_upgrade_has_one_result() {
    with_seeds(200, storm);
}

/// A version that was kept was activated again, and its successor was replaced on trial and came back: three versions stayed.
#[tokio::test(start_paused = true)]
async fn ag130_a_version_that_is_active_again_is_no_longer_kept() {
    storm(13_664).await;
}

const VERSIONS: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0"];

async fn storm(seed: u64) {
    let chance = Seeded::new(seed ^ 0x5eed);
    let draw = |below: u64| {
        let drawn = between(&chance, Duration::ZERO, Duration::from_millis(below)).as_millis();
        usize::try_from(drawn).unwrap()
    };
    let mut host = Host::new(seed);
    let mut targets = BTreeMap::new();
    for step in 0..10 {
        for _ in 0..draw(3) {
            let fault = [Fault::LoseRequest, Fault::LoseReply][draw(2)].clone();
            host.agent.server.lock().faults.push_back((["/checkin", "/acks"][draw(2)], fault));
        }
        let id = format!("a{step:02}");
        match draw(4) {
            0 => host.agent.server.change(|server| server.policy = Some(policy(step, "web"))),
            1 => host.send(level(&id, "debug")),
            kind => {
                let version = VERSIONS[draw(6)];
                let rollback = kind == 3 && draw(3) == 0;
                targets.insert(id.clone(), version);
                host.send(action(&id, "UPGRADE", json!({"version": version, "rollback": rollback})));
            }
        }
        host.pass(Duration::from_millis(u64::try_from(draw(40_000)).unwrap())).await;
        crash(&mut host, draw(6), u32::try_from(draw(8)).unwrap()).await;
        if draw(4) == 0 {
            host.pass(MINUTE * 4).await;
        }
    }
    host.agent.server.lock().faults.clear();
    host.pass(HOUR / 2).await;
    settled(&host, &targets, seed);
    host.agent.kill().await;
}

async fn crash(host: &mut Host, kind: usize, dies_in: u32) {
    if kind > 2 {
        return;
    }
    host.agent.kill().await;
    if kind > 0 {
        host.site.kill_watcher();
    }
    if kind > 1 {
        host.site.disk.die_in(Some(dies_in));
    }
    host.site.boot(&mut host.agent);
}

fn settled(host: &Host, targets: &BTreeMap<String, &str>, seed: u64) {
    let (state, version) = (host.agent.state(), host.version());
    assert!(state.inbox.is_empty() && state.outbox.is_empty(), "seed {seed}: {state:?}");
    assert_eq!(behavior(&version), Behavior::Works, "seed {seed}: {version}");
    assert_eq!(host.site.record(), None, "seed {seed}");
    let mut succeeded = None;
    for (id, target) in targets {
        let acks = host.acks(id);
        let results: BTreeSet<_> = acks.iter().map(|ack| (&ack.timestamp, &ack.error)).collect();
        assert_eq!(results.len(), 1, "seed {seed}: {id} to {target}: {acks:?}");
        // A version that works is rolled back too, if the host crashes all the time.
        let stayed = !host.site.rolled_back().contains(id);
        if behavior(target) == Behavior::Works && acks[0].error.is_none() && stayed {
            succeeded = succeeded.max(Some((acks[0].timestamp.clone(), *target)));
        }
    }
    let expected = succeeded.as_ref().map_or("0.1.0", |(_, target)| *target);
    assert_eq!(version, expected, "seed {seed}: {targets:?}, rolled back: {:?}", host.site.rolled_back());
    let kept = host.site.installed().len();
    assert!(kept <= 2, "seed {seed}: {:?}", host.site.installed());
    let details = state.upgrade.map(|report| serde_json::to_value(report.details).unwrap()["state"].clone());
    assert!(details.is_none() || details == Some("UPG_FAILED".into()), "seed {seed}: {details:?}");
}
