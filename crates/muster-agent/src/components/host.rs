//! Starts components on this host: working directories, logs, and the processes that they leave behind.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use camino::Utf8PathBuf;
use muster_core::Entropy;
use muster_core::error_chain::chain;

use super::log_file::{LogFile, file_name};
use super::process::{self, ProcessRuntime, Program};
use super::{Health, Launch, Reporter, Runtime, orphans};
use crate::model::process::ProcessSpec;
use crate::model::{Component, Work};
use crate::paths::Layout;
use crate::settings::ProcessSettings;
use crate::state::atomic;

/// This host.
pub struct Host {
    layout: Layout,
    settings: ProcessSettings,
    entropy: Arc<dyn Entropy>,
    /// Whether this process adopts orphans of its programs.
    is_subreaper: bool,
}

impl Host {
    /// A host that keeps working directories and logs under `layout`.
    pub fn new(layout: Layout, settings: ProcessSettings, entropy: Arc<dyn Entropy>) -> Self {
        Self { layout, settings, entropy, is_subreaper: false }
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

    /// Stops programs that a previous agent left running.
    pub async fn stop_leftovers(&self) {
        orphans::stop_leftovers(&self.layout.run().join("components")).await;
    }

    fn directory(&self, id: &str) -> Utf8PathBuf {
        // Ids of components come from policies, and may contain characters that are not allowed in file names.
        self.layout.component(&file_name(id))
    }

    fn program(&self, component: &Component, spec: ProcessSpec) -> std::io::Result<Program> {
        let (directory, logs) = (self.directory(&component.id), self.layout.logs().join("components"));
        atomic::private_dir(&directory)?;
        atomic::private_dir(&logs)?;
        let path = logs.join(format!("{}.log", file_name(&component.id)));
        let log = LogFile::new(path, self.settings.log_max_bytes, self.settings.log_files);
        Ok(Program {
            spec,
            directory,
            log: Arc::new(Mutex::new(log)),
            settings: self.settings.clone(),
            entropy: self.entropy.clone(),
            variables: vec![
                ("MUSTER_COMPONENT_ID", component.id.clone()),
                ("MUSTER_COMPONENT_TYPE", component.kind.clone()),
            ],
        })
    }

    fn process(&self, component: &Component, spec: &ProcessSpec, reporter: Reporter) -> ProcessRuntime {
        match self.program(component, spec.clone()) {
            Ok(program) => ProcessRuntime::start(program, reporter),
            Err(error) => {
                reporter.set(Health::Failed, &format!("Failed: cannot create the working directory: {error}"));
                ProcessRuntime::idle(spec.clone())
            }
        }
    }
}

#[async_trait]
impl Launch for Host {
    fn launch(&self, component: &Component, reporter: Reporter) -> Box<dyn Runtime> {
        match &component.work {
            Ok(Work::Process(spec)) => Box::new(self.process(component, spec, reporter)),
            // The reconciler does not launch components that cannot run.
            Err(_) => Box::new(Nothing),
        }
    }

    fn forget(&self, id: &str) {
        // Errors are ignored: a file that cannot be removed must not keep the component in the model.
        let _ = std::fs::remove_dir_all(self.directory(id));
    }

    async fn idle(&self, is_idle: &(dyn Fn() -> bool + Sync)) {
        if self.is_subreaper {
            // Adopted orphans can only belong to programs that have ended. A program that starts meanwhile has its own.
            let find = || if is_idle() { orphans::adopted(&process::leaders()) } else { Default::default() };
            orphans::kill_all(find).await;
            // The daemon's reaper may already have ended with the daemon.
            orphans::reap(&process::leaders());
        }
    }
}

struct Nothing;

#[async_trait]
impl Runtime for Nothing {
    fn update(&mut self, _: &Component) -> bool {
        false
    }

    async fn stop(&mut self) {}
}
