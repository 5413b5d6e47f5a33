//! A host with one installed component.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use muster_agent::components::supervisor::Supervisor;
use muster_agent::components::{ComponentState, Components, Host};
use muster_agent::entropy::System;
use muster_agent::launch::Guard;
use muster_agent::model::command::CommandSpec;
use muster_agent::model::specification::Timeouts;
use muster_agent::model::{Component, Direction, Level, Unit, Work};
use muster_agent::paths::Layout;
use muster_agent::protocol::messages::AgentInfo;
use muster_agent::protocol::server::Hub;
use muster_agent::settings::ProcessSettings;
use muster_core::resource_limits::ResourceLimits;
use serde_json::{Value, json};

pub struct TestHost {
    _directory: tempfile::TempDir,
    layout: Layout,
    binary: Utf8PathBuf,
    pub supervisor: Supervisor,
}

/// The component over Elastic's client.
pub const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/components/component.py");

/// The interpreter with Elastic's client.
pub fn python() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/python");
    let output = std::process::Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl TestHost {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        for path in [layout.run(), layout.components()] {
            fs_err::create_dir_all(path).unwrap();
        }
        let binary = layout.components().join("fake");
        fs_err::write(&binary, format!("#!/bin/sh\nexec {} {COMPONENT}\n", python())).unwrap();
        fs_err::set_permissions(&binary, std::fs::Permissions::from_mode(0o700)).unwrap();
        let settings = ProcessSettings {
            restart_backoff_init: Duration::from_millis(50),
            restart_backoff_max: Duration::from_millis(200),
            ..ProcessSettings::default()
        };
        let hub = Hub::listen(&layout.component_socket()).await.unwrap();
        let launcher = Host::new(layout.clone(), settings, Arc::new(System))
            .guarded(Guard::Launcher(env!("CARGO_BIN_EXE_muster-agent").into()))
            .with_components(hub, AgentInfo { id: "agent-1".into(), ..AgentInfo::default() });
        Self { _directory: directory, layout, binary, supervisor: Supervisor::new(Arc::new(launcher)) }
    }

    pub fn base(&self) -> &Utf8Path {
        self.layout.base()
    }

    pub fn binary(&self) -> Utf8PathBuf {
        self.binary.clone()
    }

    pub fn replace_program(&self, script: &str) {
        fs_err::write(&self.binary, script).unwrap();
    }

    /// Wants one component with an input for each message.
    pub fn want(&self, revision: i64, messages: &[&str]) {
        let unit = |id: String, direction, config: Value| Unit {
            id,
            direction,
            config: Arc::new(config),
            level: Level::Info,
            fault: None,
        };
        let output = json!({"type": "elasticsearch", "hosts": ["http://127.0.0.1:9"], "message": "output"});
        let mut units = vec![unit("fake-default".into(), Direction::Output, output)];
        units.extend(messages.iter().enumerate().map(|(place, message)| {
            let config =
                json!({"id": place.to_string(), "type": "fake", "message": message, "policy": {"revision": revision}});
            unit(format!("fake-default-{place}"), Direction::Input, config)
        }));
        let seconds = Duration::from_secs;
        let spec = CommandSpec {
            binary: self.binary.clone(),
            args: Vec::new(),
            env: Vec::new(),
            timeouts: Timeouts { checkin: seconds(2), restart: Duration::from_millis(100), stop: seconds(6) },
            quiet_restarts: 0,
            restart_period: Duration::ZERO,
            limits: ResourceLimits::default(),
            proxied_actions: Vec::new(),
        };
        let (features, limits) = (json!({}), json!({}));
        let component = Component {
            id: "fake-default".into(),
            kind: "fake".into(),
            units,
            work: Ok(Work::Command(spec)),
            features,
            limits,
        };
        self.supervisor.want(vec![Arc::new(component)]);
    }

    pub async fn until_state(&self, good: impl Fn(&ComponentState) -> bool) -> ComponentState {
        let waiting = async {
            loop {
                if let Some(state) = self.supervisor.states().into_iter().find(&good) {
                    return state;
                }
                let _ = tokio::time::timeout(Duration::from_millis(100), self.supervisor.changed()).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        found.unwrap_or_else(|_| panic!("{:#?}\n{}", self.supervisor.states(), self.log()))
    }

    /// Waits until a unit reports this message.
    pub async fn until(&self, message: &str) -> ComponentState {
        self.until_state(|state| state.units.iter().any(|unit| unit.message == message)).await
    }

    pub async fn until_units(&self, count: usize) {
        self.until_state(|state| state.units.len() == count).await;
    }

    pub fn make_writable(&self) {
        fs_err::set_permissions(&self.binary, std::fs::Permissions::from_mode(0o770)).unwrap();
    }

    fn log(&self) -> String {
        fs_err::read_to_string(self.layout.logs().join("components/fake-default.log")).unwrap_or_default()
    }

    /// Process ids of all runs.
    pub fn pids(&self) -> Vec<String> {
        self.log().lines().filter_map(|line| line.strip_prefix("pid ")).map(str::to_owned).collect()
    }
}

pub fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
