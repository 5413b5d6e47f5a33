//! Agents whose policy is a file of the host.

use camino::Utf8Path;
use muster_agent::coordinator::report::{AgentState, Snapshot};
use muster_agent::coordinator::{Command, Ending};
use muster_agent::paths::Layout;
use muster_agent::standalone;
use muster_agent::standalone::file::PolicyFile;
use muster_agent::state::{Phase, State, Store};
use muster_agent::upgrade::Request;
use muster_core::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::fixture::{Agent, HOUR, MINUTE, SECOND};

struct Standalone {
    agent: Agent,
    layout: Layout,
    _directory: tempfile::TempDir,
}

impl Standalone {
    fn with(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        let mut agent = Agent::new(7);
        agent.store.forget_enrollment().unwrap();
        agent.policy_file = Some(PolicyFile::new(&layout));
        let alone = Self { agent, layout, _directory: directory };
        alone.write(policy);
        alone
    }

    fn write(&self, policy: &str) {
        // As editors do it. Real time hardly passes in these tests, so that the time of the change would not distinguish files.
        let new = self.layout.base().join("new");
        std::fs::write(&new, policy).unwrap();
        std::fs::rename(new, self.layout.policy_file()).unwrap();
    }

    /// Waits until a change of the file has taken effect.
    async fn settled(&self) -> Snapshot {
        self.agent.pass(SECOND * 10).await;
        self.agent.snapshot().await
    }
}

fn running(names: &[&str]) -> String {
    let input = |name: &&str| format!("- {{ id: {name}, type: process, command: /bin/true }}\n");
    format!("inputs:\n{}", names.iter().map(input).collect::<String>())
}

#[tokio::test(start_paused = true)]
async fn ag7_a_standalone_agent_follows_its_file_and_talks_to_no_server() {
    let mut alone = Standalone::with(&running(&["a", "b"]));
    alone.agent.start();
    let status = alone.settled().await;
    assert_eq!(alone.agent.running(), ["process-default-a", "process-default-b"]);
    assert_eq!((status.state, status.fleet.state), (AgentState::Healthy, AgentState::Stopped));
    assert!(status.fleet.message.contains("not enrolled") && status.fleet.message.contains("policy.yml"));
    let policy = status.policy.unwrap();
    assert_eq!((policy.id.as_str(), policy.revision), ("local", 1));
    alone.write(&running(&["b", "c"]));
    assert_eq!(alone.settled().await.policy.unwrap().revision, 2);
    assert_eq!(alone.agent.running(), ["process-default-b", "process-default-c"]);
    assert!(alone.agent.state().outbox.is_empty());
    // An idle agent writes nothing, and a restart neither.
    let writes = alone.agent.store.writes();
    alone.agent.pass(HOUR).await;
    alone.agent.kill().await;
    alone.agent.start();
    let status = alone.settled().await;
    assert_eq!((status.policy.unwrap().revision, status.state), (2, AgentState::Healthy));
    assert_eq!(alone.agent.store.writes(), writes);
    assert!(alone.agent.server.lock().check_ins.is_empty() && alone.agent.server.lock().ways.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ag7_a_file_with_an_error_keeps_the_previous_policy_and_is_reported() {
    let mut alone = Standalone::with(&running(&["a"]));
    alone.agent.start();
    alone.settled().await;
    let faults = [
        ("inputs: [", "policy.yml:1:"),
        (
            "inputs: [{ id: a, type: process, command: xx }, { id: a, type: process, command: yy }]",
            "another input has the id",
        ),
        ("inputs: [{ id: a, type: log, use_output: nowhere }]", "there is no output \"nowhere\""),
    ];
    for (policy, reason) in faults {
        alone.write(policy);
        let status = alone.settled().await;
        assert!(status.state == AgentState::Failed && status.message.contains(reason), "{status:?}");
        assert!(status.message.contains("keeping the last accepted one"), "{status:?}");
        assert_eq!(alone.agent.running(), ["process-default-a"]);
        // Also after a restart, in which nothing is written.
        let writes = alone.agent.store.writes();
        alone.agent.kill().await;
        alone.agent.start();
        assert_eq!(alone.settled().await.message, status.message);
        assert_eq!(alone.agent.store.writes(), writes);
    }
    std::fs::remove_file(alone.layout.policy_file()).unwrap();
    assert!(alone.settled().await.message.contains("does not exist"));
    alone.write(&running(&["a"]));
    let status = alone.settled().await;
    assert_eq!((status.state, status.policy.unwrap().revision), (AgentState::Healthy, 2));
}

#[tokio::test(start_paused = true)]
async fn ag7_an_input_with_an_error_degrades_only_itself() {
    let mut alone = Standalone::with(&format!("{}- {{ id: odd, type: process }}\n", running(&["a"])));
    alone.agent.start();
    let status = alone.settled().await;
    assert_eq!(status.state, AgentState::Degraded);
    assert!(status.message.contains("process-default-odd is FAILED"), "{}", status.message);
    assert!(alone.agent.running().contains(&"process-default-a".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn ag7_a_policy_that_could_not_be_stored_is_taken_in_later() {
    let mut alone = Standalone::with(&running(&["a"]));
    alone.agent.store.set_full(true);
    alone.agent.start();
    assert!(alone.settled().await.policy.is_none());
    alone.agent.store.set_full(false);
    alone.agent.pass(MINUTE * 20).await;
    assert_eq!(alone.agent.running(), ["process-default-a"]);
}

#[tokio::test(start_paused = true)]
async fn ag7_an_agent_that_enrolls_runs_nothing_of_its_local_policy() {
    let mut alone = Standalone::with(&running(&["a"]));
    alone.agent.start();
    alone.settled().await;
    // As `enroll` does it.
    alone.agent.store.save_state(&State::default()).unwrap();
    alone.agent.store.save_enrollment(&crate::fixture::enrollment()).unwrap();
    let now = Timestamp::parse_rfc3339("2026-06-01T00:00:00Z").unwrap();
    let kept = standalone::retire(&alone.layout, now).unwrap();
    assert!(kept.unwrap().is_file());
    alone.agent.commands.send(Command::Reload).await.unwrap();
    assert_eq!(alone.agent.ended(MINUTE).await, Ending::Reload);
    alone.agent.policy_file = None;
    alone.agent.resume();
    let status = alone.settled().await;
    assert!(alone.agent.running().is_empty() && status.policy.is_none(), "{status:?}");
    assert!(!alone.agent.server.lock().check_ins.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ag7_ag21_commands_of_the_host_depend_on_who_decides() {
    let mut alone = Standalone::with(&running(&["a"]));
    alone.agent.start();
    alone.settled().await;
    let (reply, answer) = oneshot::channel();
    alone.agent.commands.send(Command::Unenroll(reply)).await.unwrap();
    assert_eq!(answer.await.unwrap().as_deref(), Some("the agent is not enrolled"));
    let upgrade = |is_forced| Request { version: "0.2.0".into(), is_forced, ..Request::default() };
    // The simulated program is not installed, which is found out only if the upgrade is allowed.
    assert!(refusal(&alone.agent, upgrade(false)).await.contains("not installed"));
    let mut managed = Agent::new(8);
    managed.start();
    let refused = refusal(&managed, upgrade(false)).await;
    assert!(refused.contains("the server of the fleet decides") && refused.contains("--force"), "{refused}");
    assert!(refusal(&managed, upgrade(true)).await.contains("not installed"));
    assert_eq!(alone.agent.state().phase, Phase::Active);
}

async fn refusal(agent: &Agent, request: Request) -> String {
    let (reply, answer) = oneshot::channel();
    agent.commands.send(Command::Upgrade(request, reply)).await.unwrap();
    answer.await.unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn ag51_whoever_watches_gets_the_current_state_and_then_each_change() {
    let mut alone = Standalone::with(&running(&["a"]));
    alone.agent.start();
    alone.settled().await;
    let (sender, mut states) = mpsc::channel(64);
    alone.agent.commands.send(Command::Watch(sender)).await.unwrap();
    let first = states.recv().await.unwrap();
    assert_eq!((first.state, first.policy.unwrap().revision), (AgentState::Healthy, 1));
    alone.agent.pass(HOUR).await;
    assert!(states.try_recv().is_err(), "nothing has changed");
    alone.agent.host.fail("process-default-a");
    assert_eq!(states.recv().await.unwrap().state, AgentState::Degraded);
    alone.write("inputs: []");
    let last = loop {
        let next = states.recv().await.unwrap();
        if next.components.is_empty() && next.state == AgentState::Healthy {
            break next;
        }
    };
    assert_eq!(last.policy.unwrap().revision, 2);
    alone.agent.commands.send(Command::Stop).await.unwrap();
    while states.recv().await.is_some() {}
}
