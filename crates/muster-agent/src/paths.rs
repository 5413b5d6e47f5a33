//! Files and directories under the base path.

use camino::{Utf8Path, Utf8PathBuf};

/// The paths of one agent. All of its files are under its base path.
#[derive(Clone, Debug)]
pub struct Layout {
    base: Utf8PathBuf,
}

impl Layout {
    /// Creates the layout under `base`.
    pub fn new(base: impl Into<Utf8PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// The base directory, mode 0700.
    pub fn base(&self) -> &Utf8Path {
        &self.base
    }

    /// Servers, identity and credentials: `fleet.json`, mode 0600.
    pub fn fleet(&self) -> Utf8PathBuf {
        self.base.join("fleet.json")
    }

    /// Policy, queued actions and pending acks: `state.json`, mode 0600.
    pub fn state(&self) -> Utf8PathBuf {
        self.base.join("state.json")
    }

    /// Settings: `agent.yml`, optional.
    pub fn settings(&self) -> Utf8PathBuf {
        self.base.join("agent.yml")
    }

    /// Installed components with their specifications.
    pub fn components(&self) -> Utf8PathBuf {
        self.base.join("components")
    }

    /// Local rules about what a policy may run: `capabilities.yml`, optional.
    pub fn capabilities(&self) -> Utf8PathBuf {
        self.base.join("capabilities.yml")
    }

    /// Socket at which components connect to the agent.
    pub fn component_socket(&self) -> Utf8PathBuf {
        self.run().join("components.sock")
    }

    /// Logs of the agent and of its programs.
    pub fn logs(&self) -> Utf8PathBuf {
        self.base.join("logs")
    }

    /// Runtime files of the daemon: socket, lock, working directories of programs.
    pub fn run(&self) -> Utf8PathBuf {
        self.base.join("run")
    }

    /// The control socket, mode 0600.
    pub fn socket(&self) -> Utf8PathBuf {
        self.run().join("agent.sock")
    }

    /// Lock file of the daemon.
    pub fn lock(&self) -> Utf8PathBuf {
        self.run().join("agent.lock")
    }

    /// Working directory of one program.
    pub fn component(&self, name: &str) -> Utf8PathBuf {
        self.run().join("components").join(name)
    }
}
