//! Settings.

use super::reads::reads;
use super::{StoreError, Write};

/// Name of the setting that a restore from a backup writes.
pub const RESTORED: &str = "restored";

/// Name of the setting with the installation's id, by which one fleet is told from another.
pub const INSTALLATION: &str = "installation_uuid";

/// A change of settings.
#[derive(Clone, Debug)]
pub enum SettingWrite {
    /// Sets a setting: a short string under a name.
    Put {
        /// Its name.
        name: String,
        /// Value, as JSON or a string.
        value: String,
    },
    /// Sets a setting only if its value is still `before`; fails with `Changed` otherwise. What is made once for all
    /// servers is written in this way: the first one wins, and the others read its value.
    Swap {
        /// Its name.
        name: String,
        /// The value that the change is based on; `None` if the setting did not exist.
        before: Option<String>,
        /// Value, as JSON or a string.
        value: String,
    },
    /// Changes nothing. Fails with `Changed` unless a setting still has this value. This holds until the end of the transaction against
    /// changes that also contain a [`LabelWrite::Exist`](super::LabelWrite::Exist) or this.
    Unchanged {
        /// Its name.
        name: String,
        /// The value that the change is based on; `None` if the setting did not exist.
        value: Option<String>,
    },
    /// Deletes a setting, if it exists.
    Delete {
        /// Its name.
        name: String,
    },
}

impl From<SettingWrite> for Write {
    fn from(write: SettingWrite) -> Self {
        Self::Setting(write)
    }
}

reads! {
    /// Reads of settings.
    pub trait SettingStore {
        /// Returns the value of a setting.
        async fn setting(&self, name: &str) -> Result<Option<String>, StoreError>;
    }
}
