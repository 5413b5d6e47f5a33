//! Programs as real processes: start, restart, stop, logs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8Path;
use muster_agent::components::supervisor::Supervisor;
use muster_agent::components::{self, ComponentState, Components, Health};
use muster_agent::entropy::System;
use muster_agent::model::metrics::{MetricsSpec, Sink};
use muster_agent::model::process::{PROCESS, ProcessSpec, Restart};
use muster_agent::model::{Component, Direction, Level, Unit, Work};
use muster_agent::paths::Layout;
use muster_agent::settings::ProcessSettings;
use muster_core::resource_limits::ResourceLimits;

struct Host {
    _directory: tempfile::TempDir,
    layout: Layout,
    supervisor: Supervisor,
}

fn host() -> Host {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
    let settings = ProcessSettings {
        restart_backoff_init: Duration::from_millis(50),
        restart_backoff_max: Duration::from_millis(200),
        stop_timeout: Duration::from_millis(500),
        log_max_bytes: 4096,
        ..ProcessSettings::default()
    };
    let launcher = components::Host::new(layout.clone(), settings, Arc::new(System));
    let supervisor = Supervisor::new(Arc::new(launcher));
    Host { _directory: directory, layout, supervisor }
}

fn shell(id: &str, script: &str, restart: Restart) -> Arc<Component> {
    let process = ProcessSpec {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        restart,
        stop_timeout: None,
        limits: ResourceLimits::default(),
    };
    component(id, Ok(Work::Process(process)))
}

fn component(id: &str, work: Result<Work, String>) -> Arc<Component> {
    let (features, limits) = Default::default();
    Arc::new(Component { id: id.into(), kind: PROCESS.into(), units: Vec::new(), work, features, limits })
}

impl Host {
    /// Hands over the model, and waits until what it does not contain has stopped.
    async fn apply(&self, model: Vec<Arc<Component>>) {
        self.supervisor.want(model);
        self.supervisor.settled().await;
    }

    async fn until(&self, id: &str, good: impl Fn(&ComponentState) -> bool) -> ComponentState {
        let waiting = async {
            loop {
                if let Some(found) = self.supervisor.states().into_iter().find(|state| state.id == id && good(state)) {
                    return found;
                }
                // A change that came between the look and this wait has left its notification.
                self.supervisor.changed().await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        found.unwrap_or_else(|_| panic!("{id}: {:?}", self.supervisor.states()))
    }

    fn log(&self, id: &str) -> String {
        fs_err::read_to_string(self.layout.logs().join("components").join(format!("{id}.log"))).unwrap_or_default()
    }

    async fn until_logged(&self, id: &str, text: &str) {
        for _ in 0..500 {
            if self.log(id).contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{text:?} is not in the log: {:?}", self.log(id));
    }
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_program_runs_in_its_own_directory_and_its_output_is_logged() {
    let host = host();
    let script = "echo $GREETING $MUSTER_COMPONENT_ID; pwd; echo oops >&2; exec sleep 60";
    host.apply(vec![shell("a", script, Restart::Always)]).await;
    let state = host.until("a", |state| state.state == Health::Healthy).await;
    assert!(state.message.contains("pid"), "{state:?}");
    for text in ["hello a", host.layout.component("a").as_str(), "oops"] {
        host.until_logged("a", text).await;
    }
    host.supervisor.halt().await;
    assert_eq!(host.supervisor.states()[0].state, Health::Stopped);
    assert!(host.layout.component("a").try_exists().unwrap(), "the working directory is kept");
}

#[tokio::test]
async fn ag62_a_program_is_restarted_according_to_the_policy() {
    let host = host();
    host.apply(vec![
        shell("always", "echo run; exit 0", Restart::Always),
        shell("failing", "echo run; exit 3", Restart::OnFailure),
        shell("good", "echo run; exit 0", Restart::OnFailure),
        shell("once", "echo run; exit 4", Restart::Never),
        shell("missing", "", Restart::Always),
    ])
    .await;
    let runs = |id: &str| host.log(id).matches("run").count();
    host.until("failing", |state| state.message.contains("exited with code '3'; restarting")).await;
    host.until("good", |state| state.state == Health::Stopped).await;
    let once = host.until("once", |state| state.state == Health::Failed).await;
    assert!(once.message.contains("exited with code '4'"), "{once:?}");
    for _ in 0..200 {
        if runs("always") >= 3 && runs("failing") >= 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(runs("always") >= 3 && runs("failing") >= 3, "{} {}", runs("always"), runs("failing"));
    assert_eq!((runs("good"), runs("once")), (1, 1));
    host.apply(Vec::new()).await;
    assert!(host.supervisor.states().is_empty());
    assert!(!host.layout.component("always").try_exists().unwrap());
}

#[tokio::test]
async fn a_program_that_cannot_start_has_a_reason() {
    let host = host();
    let Ok(Work::Process(mut spec)) = shell("a", "", Restart::Always).work.clone() else { unreachable!() };
    spec.command = "/nowhere/at/all".into();
    let other = component("b", Err("Failed: because".into()));
    host.apply(vec![component("a", Ok(Work::Process(spec))), other]).await;
    let state = host.until("a", |state| state.state == Health::Failed).await;
    assert!(state.message.contains("/nowhere/at/all"), "{state:?}");
    assert_eq!(host.until("b", |state| state.state == Health::Failed).await.message, "Failed: because");
    host.apply(Vec::new()).await;
}

#[tokio::test]
async fn ag63_the_whole_process_group_is_killed_if_it_ignores_sigterm() {
    let host = host();
    let stubborn = "trap '' TERM; sh -c 'trap \"\" TERM; echo child $$ end; while :; do sleep 1; done' & \
                    echo leader $$ end; while :; do sleep 1; done";
    host.apply(vec![shell("a", stubborn, Restart::Always)]).await;
    host.until_logged("a", "child").await;
    host.until_logged("a", "leader").await;
    let log = host.log("a");
    let pids: Vec<&str> = log.split_whitespace().filter(|word| word.parse::<u32>().is_ok()).collect();
    assert_eq!(pids.len(), 2, "{log}");
    assert!(pids.iter().all(|pid| alive(pid)));
    host.apply(Vec::new()).await;
    for _ in 0..100 {
        if !pids.iter().any(|pid| alive(pid)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still alive: {pids:?}");
}

/// Ids that a program printed as `pid N`.
fn printed_pids(log: &str) -> Vec<String> {
    log.lines().filter_map(|line| line.strip_prefix("pid ")).map(str::to_owned).collect()
}

#[tokio::test]
async fn processes_that_left_the_group_are_stopped_with_the_program() {
    let host = host();
    // In a session of its own; that and an orphan; that and without the program's environment.
    let script = "echo pid $$; setsid sh -c 'echo pid $$; exec sleep 600' & \
                  (setsid sh -c 'echo pid $$; exec sleep 600' &); \
                  env -i /usr/bin/setsid /bin/sh -c 'echo pid $$; exec /bin/sleep 600' & wait";
    for stop_by_itself in [false, true] {
        let script = if stop_by_itself { script.replace("wait", "sleep 1; exit 3") } else { script.to_owned() };
        host.apply(vec![shell("a", &script, Restart::Never)]).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while printed_pids(&host.log("a")).len() < 4 {
            assert!(tokio::time::Instant::now() < deadline, "{}", host.log("a"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let pids = printed_pids(&host.log("a"));
        if stop_by_itself {
            host.until("a", |state| state.state == Health::Failed).await;
            // The parent is gone and the mark too: only the daemon, as sub-reaper, can tell whose process that is.
            assert_eq!(pids.iter().filter(|pid| alive(pid)).count(), 1, "{pids:?}");
        }
        host.apply(Vec::new()).await;
        let left: Vec<_> = pids.iter().filter(|pid| alive(pid)).collect();
        assert_eq!(left.len(), usize::from(stop_by_itself), "{pids:?}: {left:?}");
        for pid in left {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        fs_err::remove_file(host.layout.logs().join("components/a.log")).unwrap();
    }
}

#[tokio::test]
async fn ag66_a_change_restarts_only_changed_programs() {
    let host = host();
    let steady = shell("steady", "echo $$; exec sleep 60", Restart::Always);
    host.apply(vec![steady.clone(), shell("b", "echo one; exec sleep 60", Restart::Always)]).await;
    let before = host.until("steady", |state| state.state == Health::Healthy).await;
    host.apply(vec![steady, shell("b", "echo two; exec sleep 60", Restart::Always)]).await;
    host.until_logged("b", "two").await;
    assert_eq!(host.until("steady", |_| true).await, before);
    host.supervisor.halt().await;
}

#[tokio::test]
async fn the_log_of_a_verbose_program_is_limited() {
    let host = host();
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo done; exec sleep 60";
    host.apply(vec![shell("a", script, Restart::Always)]).await;
    host.until_logged("a", "done").await;
    let directory = host.layout.logs().join("components");
    let lengths: Vec<u64> =
        fs_err::read_dir(directory).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
    assert!(lengths.len() <= 3 && lengths.iter().all(|length| *length <= 4096), "{lengths:?}");
    host.supervisor.halt().await;
}

#[tokio::test]
async fn readings_of_the_host_are_payloads_and_lines_of_a_file() {
    let host = host();
    let spec = MetricsSpec { period: Duration::from_millis(50), sink: Sink::File };
    let unit = |id: &str, direction| Unit {
        id: id.into(),
        direction,
        config: Arc::default(),
        level: Level::Info,
        fault: None,
    };
    let mut model = (*component("metrics", Ok(Work::Metrics(spec)))).clone();
    model.units = vec![unit("metrics", Direction::Output), unit("metrics-unit", Direction::Input)];
    host.apply(vec![Arc::new(model)]).await;
    let state = host.until("metrics", |state| state.state == Health::Healthy).await;
    let payload = state.units[1].payload.clone().unwrap();
    for pointer in ["/cpu/count", "/memory/total", "/uptime"] {
        assert!(payload.pointer(pointer).unwrap().as_u64().unwrap() > 0, "{pointer}: {payload}");
    }
    assert!(payload["network"]["lo"]["received"].is_u64() && payload["disk"].is_object(), "{payload}");
    // Further readings are no news: only a changed state interrupts a held check-in.
    let news = tokio::time::timeout(Duration::from_millis(300), host.supervisor.changed()).await;
    assert!(news.is_err(), "{:?}", host.supervisor.states());
    host.supervisor.halt().await;
    let text = fs_err::read_to_string(host.layout.logs().join("components/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(text.lines().count() > 1 && last["host"]["memory"]["total"] == payload["memory"]["total"], "{last}");
}
