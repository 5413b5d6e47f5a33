//! Where things lie under the base path.

use camino::{Utf8Path, Utf8PathBuf};

/// The folders and files of one agent; everything it owns lies under its base path.
#[derive(Clone, Debug)]
pub struct Layout {
    base: Utf8PathBuf,
}

impl Layout {
    /// The layout under `base`.
    pub fn new(base: impl Into<Utf8PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// The top folder, mode 0700.
    pub fn base(&self) -> &Utf8Path {
        &self.base
    }

    /// Connection, identity, credentials: `fleet.json`, mode 0600.
    pub fn fleet(&self) -> Utf8PathBuf {
        self.base.join("fleet.json")
    }

    /// Policy, queue, outbox: `state.json`, mode 0600.
    pub fn state(&self) -> Utf8PathBuf {
        self.base.join("state.json")
    }

    /// What a person may set: `agent.yml`. Optional.
    pub fn settings(&self) -> Utf8PathBuf {
        self.base.join("agent.yml")
    }

    /// The agent's own logs and those of the programs.
    pub fn logs(&self) -> Utf8PathBuf {
        self.base.join("logs")
    }

    /// What lives as long as the daemon: socket, lock, working folders of the programs.
    pub fn run(&self) -> Utf8PathBuf {
        self.base.join("run")
    }

    /// The control socket, mode 0600.
    pub fn socket(&self) -> Utf8PathBuf {
        self.run().join("agent.sock")
    }

    /// Held by the one daemon.
    pub fn lock(&self) -> Utf8PathBuf {
        self.run().join("agent.lock")
    }

    /// The working folder of one program.
    pub fn component(&self, name: &str) -> Utf8PathBuf {
        self.run().join("components").join(name)
    }
}
