//! The record of an installation: `install.json`. `uninstall`, `unprivileged`, `privileged` and upgrades read it.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use crate::paths::Layout;
use crate::state::{StoreError, record};

/// Version of the document.
pub const INSTALLATION_VERSION: u32 = 1;

/// What starts the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum Manager {
    /// systemd.
    Systemd,
    /// OpenRC.
    OpenRc,
    /// None: you run `muster-agent run`.
    #[default]
    None,
}

impl Manager {
    /// Returns the name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::OpenRc => "OpenRC",
            Self::None => "none",
        }
    }
}

/// The account of an unprivileged agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// User name.
    pub user: String,
    /// Group name.
    pub group: String,
    /// Whether `install` created the user, so that `uninstall` removes it.
    #[serde(default)]
    pub user_created: bool,
    /// Whether `install` created the group.
    #[serde(default)]
    pub group_created: bool,
}

/// What `install` has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// [`INSTALLATION_VERSION`].
    pub version: u32,
    /// What starts the agent.
    pub manager: Manager,
    /// Name of the service, without a suffix: `muster-agent`.
    pub service: String,
    /// Account of the agent; `None` for root, or for the user that installed it without a service manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// Link to the program in a directory of `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Utf8PathBuf>,
    /// Time of the installation (RFC 3339).
    pub installed_at: String,
}

impl Installation {
    /// Loads the record; `None` if nothing is installed in this base path.
    pub fn load(layout: &Layout) -> Result<Option<Self>, StoreError> {
        record::load(&layout.installation(), INSTALLATION_VERSION)
    }

    /// Replaces the record.
    pub fn save(&self, layout: &Layout) -> Result<(), StoreError> {
        record::save(&layout.installation(), self)
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8Path;

    use super::*;

    #[test]
    fn a_saved_installation_is_loaded_again_and_a_newer_one_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        assert_eq!(Installation::load(&layout).unwrap(), None);
        let installation = Installation {
            version: INSTALLATION_VERSION,
            manager: Manager::OpenRc,
            service: "muster-agent".into(),
            account: None,
            command: Some("/usr/local/bin/muster-agent".into()),
            installed_at: "2026-01-01T00:00:00Z".into(),
        };
        installation.save(&layout).unwrap();
        assert_eq!(Installation::load(&layout).unwrap().as_ref(), Some(&installation));
        Installation { version: 9, ..installation }.save(&layout).unwrap();
        assert!(matches!(Installation::load(&layout).unwrap_err(), StoreError::Newer { found: 9, .. }));
    }
}
