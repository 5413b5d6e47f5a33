//! Files and directories under the base path.

use camino::{Utf8Path, Utf8PathBuf};

use crate::homes::{Home, HomeName};

/// Name of the program in a versioned home, and of the link to it in the base directory.
pub const PROGRAM: &str = "muster-agent";
/// Name of the link to the program of the previous version, during an upgrade.
pub const PREVIOUS: &str = "muster-agent.previous";

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

    /// Servers, identity and credentials: `fleet.enc`, sealed, mode 0600.
    pub fn fleet(&self) -> Utf8PathBuf {
        self.base.join("fleet.enc")
    }

    /// Policy, queued actions and pending acks: `state.enc`, sealed, mode 0600.
    pub fn state(&self) -> Utf8PathBuf {
        self.base.join("state.enc")
    }

    /// Settings: `agent.yml`, optional.
    pub fn settings(&self) -> Utf8PathBuf {
        self.base.join("agent.yml")
    }

    /// Policy of a standalone agent: `policy.yml`.
    pub fn policy_file(&self) -> Utf8PathBuf {
        self.base.join("policy.yml")
    }

    /// Directory with further inputs of a standalone agent.
    pub fn input_files(&self) -> Utf8PathBuf {
        self.base.join("inputs.d")
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

    /// Socket at which a service gets its start-up message.
    pub fn connection_socket(&self, name: &str) -> Utf8PathBuf {
        self.base.join(name)
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

    /// Link to the program of the active version; services and people start the agent through it.
    pub fn link(&self) -> Utf8PathBuf {
        self.base.join(PROGRAM)
    }

    /// Link to the program of the previous version, during an upgrade. Services run it before each start of the agent.
    pub fn previous_link(&self) -> Utf8PathBuf {
        self.base.join(PREVIOUS)
    }

    /// Directory of the versioned homes.
    pub fn homes(&self) -> Utf8PathBuf {
        self.base.join("versions")
    }

    /// Home of one version.
    pub fn home(&self, name: &HomeName) -> Home {
        Home::new(self.homes().join(name.as_str()))
    }

    /// What `install` has done: `install.json`, mode 0600. A base path without it is not an installation.
    pub fn installation(&self) -> Utf8PathBuf {
        self.base.join("install.json")
    }

    /// Services that the agent has installed, a file for each. They outlive the daemon and the policy.
    pub fn services(&self) -> Utf8PathBuf {
        self.base.join("services")
    }

    /// Uninstall tokens for the programs of protected services, mode 0600, while they are uninstalled.
    pub fn uninstall_tokens(&self) -> Utf8PathBuf {
        self.run().join("uninstall-tokens")
    }

    /// An upgrade in progress: `upgrade.json`, mode 0600.
    pub fn upgrade(&self) -> Utf8PathBuf {
        self.base.join("upgrade.json")
    }

    /// Downloaded packages, before they become a home.
    pub fn downloads(&self) -> Utf8PathBuf {
        self.base.join("downloads")
    }

    /// Options of an enrollment that takes place at the next start.
    pub fn delayed_enrollment(&self) -> Utf8PathBuf {
        self.base.join("enroll.enc")
    }

    /// How the server on this host runs: `server.json`, mode 0600. Without it, there is none.
    pub fn local_server(&self) -> Utf8PathBuf {
        self.base.join("server.json")
    }

    /// Directory with the program of the server on this host.
    pub fn server_programs(&self) -> Utf8PathBuf {
        self.base.join("server")
    }

    /// The program of the server on this host.
    pub fn server_program(&self) -> Utf8PathBuf {
        self.server_programs().join("muster")
    }

    /// Default data directory of the server on this host. It is beside the base path, which `uninstall` deletes.
    pub fn server_data(&self) -> Utf8PathBuf {
        Utf8PathBuf::from(format!("{}-server", self.base))
    }

    /// Notices that the server has not received yet.
    pub fn notices(&self) -> Utf8PathBuf {
        self.base.join("notices")
    }
}
