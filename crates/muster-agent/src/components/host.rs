//! Starts components on this host: working directories, logs, and the processes that they leave behind.

use std::sync::Arc;

use async_trait::async_trait;
use muster_core::Entropy;
use muster_core::error_chain::chain;
use tokio::sync::watch;

use super::cgroup::Groups;
use super::child::{self, Place};
use super::command::{Command, CommandRuntime};
use super::installed_services::InstalledService;
use super::log_file::{LogFile, file_name};
use super::metrics::{Metrics, MetricsRuntime, Writer};
use super::old_logs;
use super::operation::{Installer, variables};
use super::otlp::Exporter;
use super::process::{ProcessRuntime, Program, Settling};
use super::service::{ServiceRuntime, ServiceTask};
use super::{Health, Launch, Reporter, Runtime, orphans};
use crate::clock::SystemClock;
use crate::launch::Guard;
use crate::local_server::ServerSpec;
use crate::model::command::CommandSpec;
use crate::model::metrics::{MetricsSpec, Sink};
use crate::model::process::ProcessSpec;
use crate::model::service::ServiceSpec;
use crate::model::{Component, Work};
use crate::paths::Layout;
use crate::protocol::certificates::Credentials;
use crate::protocol::line::Line;
use crate::protocol::messages::AgentInfo;
use crate::protocol::server::Hub;
use crate::protocol::session::Session;
use crate::settings::ProcessSettings;

/// This host.
pub struct Host {
    layout: Layout,
    settings: ProcessSettings,
    entropy: Arc<dyn Entropy>,
    /// Whether this process adopts orphans of its programs.
    is_subreaper: bool,
    guard: Guard,
    /// Control groups of components.
    groups: Option<Arc<Groups>>,
    /// Where installed components connect, and what they are told about the agent.
    hub: Option<(Hub, AgentInfo)>,
    /// Becomes true, or loses its sender, when nothing of an earlier agent is running.
    cleared: watch::Receiver<bool>,
}

impl Host {
    /// A host that keeps working directories and logs under `layout`.
    pub fn new(layout: Layout, settings: ProcessSettings, entropy: Arc<dyn Entropy>) -> Self {
        let (_, cleared) = watch::channel(true);
        Self { layout, settings, entropy, is_subreaper: false, guard: Guard::None, groups: None, hub: None, cleared }
    }

    /// Starts programs through a launcher, so that they end with the agent.
    #[must_use]
    pub fn guarded(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Runs components in control groups, if this process may create them.
    #[must_use]
    pub fn with_groups(mut self, groups: Option<Groups>) -> Self {
        self.groups = groups.map(Arc::new);
        self
    }

    /// Runs installed components, which connect to `hub`.
    #[must_use]
    pub fn with_components(mut self, hub: Hub, agent: AgentInfo) -> Self {
        self.hub = Some((hub, agent));
        self
    }

    /// Adopts orphans of programs, so that a process cannot escape by clearing its environment and leaving its session.
    /// The calling process must have no other children.
    #[must_use]
    pub fn adopting_orphans(mut self) -> Self {
        match orphans::become_subreaper() {
            Ok(()) => self.is_subreaper = true,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to become a subreaper; orphaned processes may keep running");
            }
        }
        self
    }

    /// Stops programs that a previous agent left running, in the background: they can take seconds to stop, for which only
    /// components must wait, and not the first check-in.
    #[must_use]
    pub fn without_leftovers(mut self) -> Self {
        if let Some(leftovers) = orphans::leftovers(&self.layout.run().join("components")) {
            let (sender, cleared) = watch::channel(false);
            self.cleared = cleared;
            tokio::spawn(async move {
                leftovers.stop().await;
                sender.send_replace(true);
            });
        }
        self
    }

    fn process(
        &self,
        component: &Component,
        spec: &ProcessSpec,
        settling: Settling,
        place: Place,
        reporter: Reporter,
    ) -> Box<dyn Runtime> {
        let program = Program {
            spec: spec.clone(),
            place,
            settings: self.settings.clone(),
            entropy: self.entropy.clone(),
            variables: vec![
                ("MUSTER_COMPONENT_ID", component.id.clone()),
                ("MUSTER_COMPONENT_TYPE", component.kind.clone()),
            ],
            settling,
        };
        Box::new(ProcessRuntime::start(program, reporter))
    }

    fn metrics(
        &self,
        component: &Arc<Component>,
        spec: &MetricsSpec,
        reporter: Reporter,
    ) -> Result<Box<dyn Runtime>, String> {
        let writer = match &spec.sink {
            Sink::None => Writer::None,
            Sink::File => {
                // The name comes from the policy, whose outputs are not signed: it never becomes a path.
                let path = self.layout.logs().join("components").join(format!("{}.jsonl", file_name(&component.id)));
                Writer::File(LogFile::new(path, self.settings.log_max_bytes, self.settings.log_files))
            }
            Sink::Otlp(receiver) => Writer::Otlp(Box::new(Exporter::new(receiver)?)),
        };
        let metrics =
            Metrics { spec: spec.clone(), component: component.clone(), writer, clock: Arc::new(SystemClock) };
        Ok(Box::new(MetricsRuntime::start(metrics, reporter)))
    }

    fn command(
        &self,
        component: &Arc<Component>,
        spec: &CommandSpec,
        place: Place,
        reporter: Reporter,
    ) -> Result<Box<dyn Runtime>, String> {
        let (hub, agent, line) = self.line(component)?;
        let command = Command {
            spec: spec.clone(),
            line,
            hub,
            agent,
            place,
            variables: variables(&component.id, &component.kind),
            entropy: self.entropy.clone(),
            settings: self.settings.clone(),
        };
        Ok(Box::new(CommandRuntime::start(command, reporter)))
    }

    fn service(
        &self,
        component: &Arc<Component>,
        spec: &ServiceSpec,
        place: Place,
        reporter: Reporter,
    ) -> Result<Box<dyn Runtime>, String> {
        let (hub, agent, line) = self.line(component)?;
        let (service, layout) = (spec.service.clone(), self.layout.clone());
        let installer =
            Installer { binary: service.binary.clone(), place, variables: variables(&component.id, &component.kind) };
        let record = InstalledService::new(&component.id, &component.kind);
        let task = ServiceTask { service, layout, line, hub, agent, installer, record };
        Ok(Box::new(ServiceRuntime::start(task, reporter)))
    }

    /// Returns a connection for an installed component.
    fn line(&self, component: &Arc<Component>) -> Result<(Hub, AgentInfo, Arc<Line>), String> {
        let (hub, agent) = self.hub.clone().ok_or("this agent does not run installed components")?;
        let credentials = Credentials::generate(&*self.entropy).map_err(|error| error.to_string())?;
        let session = Session::new(component.clone(), agent.clone());
        Ok((hub, agent, Arc::new(Line::new(credentials, session))))
    }

    fn start(&self, component: &Arc<Component>, work: &Work, reporter: Reporter) -> Result<Box<dyn Runtime>, String> {
        let place = Place::create(&self.layout, &component.id, &self.settings, self.guard.clone());
        let mut place = place.map_err(|error| format!("cannot create the working directory: {error}"))?;
        // What the installer of a service starts must not end with its group.
        if !matches!(work, Work::Service(_)) {
            place.groups.clone_from(&self.groups);
        }
        match work {
            Work::Process(spec) => Ok(self.process(component, spec, Settling::Time, place, reporter)),
            Work::Server(ServerSpec { process, ready_file }) => {
                Ok(self.process(component, process, Settling::File(ready_file.clone()), place, reporter))
            }
            Work::Metrics(spec) => self.metrics(component, spec, reporter),
            Work::Command(spec) => self.command(component, spec, place, reporter),
            Work::Service(spec) => self.service(component, spec, place, reporter),
        }
    }
}

#[async_trait]
impl Launch for Host {
    async fn ready(&self) {
        // An error means that the task has ended, and with it the wait.
        let _ = self.cleared.clone().wait_for(|cleared| *cleared).await;
    }

    fn launch(&self, component: &Arc<Component>, reporter: Reporter) -> Box<dyn Runtime> {
        // The reconciler reports components that cannot run, and does not launch them.
        let Ok(work) = &component.work else { return Box::new(Nothing) };
        match self.start(component, work, reporter.clone()) {
            Ok(runtime) => runtime,
            Err(reason) => {
                reporter.set(Health::Failed, &format!("Failed: {reason}"));
                Box::new(Nothing)
            }
        }
    }

    fn forget(&self, id: &str) {
        // Errors are ignored: a file that cannot be removed must not keep the component in the model.
        let _ = std::fs::remove_dir_all(self.layout.component(&file_name(id)));
        old_logs::prune(&self.layout.logs().join("components"), &self.layout.run().join("components"));
    }

    async fn idle(&self, is_idle: &(dyn Fn() -> bool + Sync)) {
        // An agent that ends leaves nothing running, not even what an earlier one has left.
        self.ready().await;
        if self.is_subreaper {
            // Adopted orphans can only belong to programs that have ended. A program that starts meanwhile has its own.
            let find = || if is_idle() { orphans::adopted(&child::leaders()) } else { Default::default() };
            orphans::kill_all(find).await;
            // The daemon's reaper may already have ended with the daemon.
            orphans::reap(&child::leaders());
        }
    }
}

/// A component that could not be started. A changed one is tried again.
struct Nothing;

#[async_trait]
impl Runtime for Nothing {
    fn update(&mut self, _: &Arc<Component>) -> bool {
        false
    }

    async fn stop(&mut self) {}
}
