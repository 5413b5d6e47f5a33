//! Labels and their hosts.

use muster_core::fleetd::labels::Label;
use muster_core::id::{HostId, LabelId, SpaceId};

use super::reads::reads;
use super::{StoreError, Write};

/// A change of labels or of their hosts.
#[derive(Clone, Debug)]
pub enum LabelWrite {
    /// Inserts a label. Fails with `NameTaken`, and with `TooMany` if the space has the maximum number of labels.
    Insert(Box<Label>),
    /// Updates the label with the version before this one. Fails with `Changed` and `NameTaken`.
    Update(Box<Label>),
    /// Takes a label from all hosts.
    Clear {
        /// The label.
        id: LabelId,
    },
    /// Deletes a label. Fails with `Missing`.
    Delete {
        /// The label.
        id: LabelId,
    },
    /// Changes nothing. Fails with `Missing` unless the space has labels with these names, ignoring case; they stay until the end of the
    /// transaction.
    Exist {
        /// The space.
        space: SpaceId,
        /// The names.
        names: Vec<String>,
    },
    /// Gives each of these labels to each of these hosts of the same space. Those that are there already stay, and labels and hosts that
    /// do not exist are ignored.
    Add {
        /// The labels.
        labels: Vec<LabelId>,
        /// The hosts.
        hosts: Vec<HostId>,
    },
    /// Takes each of these labels from each of these hosts.
    Remove {
        /// The labels.
        labels: Vec<LabelId>,
        /// The hosts.
        hosts: Vec<HostId>,
    },
}

impl From<LabelWrite> for Write {
    fn from(write: LabelWrite) -> Self {
        Self::Label(write)
    }
}

reads! {
    /// Reads of labels.
    pub trait LabelStore {
        /// Selects the labels of a space by name.
        async fn labels(&self, space: &SpaceId) -> Result<Vec<Label>, StoreError>;
        /// Counts the hosts of each label of a space that has any.
        async fn label_counts(&self, space: &SpaceId) -> Result<Vec<(LabelId, u64)>, StoreError>;
        /// Selects those of these hosts that have a label.
        async fn hosts_with_label(&self, label: &LabelId, hosts: &[HostId]) -> Result<Vec<HostId>, StoreError>;
        /// Selects the labels of a host.
        async fn labels_of_host(&self, host: &HostId) -> Result<Vec<LabelId>, StoreError>;
    }
}
