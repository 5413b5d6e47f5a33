//! Labels and their hosts.

use muster_core::fleetd::labels::Label;
use muster_core::id::{HostId, LabelId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of labels or of their hosts.
#[derive(Clone, Debug)]
pub enum LabelWrite {
    /// Inserts a label. Fails with `NameTaken`, and with `TooMany` if the space has the maximum number of labels.
    Insert(Box<Label>),
    /// Updates the label with the version before this one, and deletes its errors. Fails with `Changed` and `NameTaken`.
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
    /// Stores the errors of the queries of labels on a host of the same space. Labels that do not exist are ignored.
    Failed {
        /// The host.
        host: HostId,
        /// The labels with the errors.
        errors: Vec<(LabelId, String)>,
        /// Time.
        at: Timestamp,
    },
    /// Deletes the errors of the queries of labels on a host.
    Ran {
        /// The host.
        host: HostId,
        /// The labels.
        labels: Vec<LabelId>,
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
        /// Counts the hosts on which the query of each label of a space fails, with the last error; only labels with such hosts.
        async fn label_error_counts(&self, space: &SpaceId) -> Result<Vec<(LabelId, u64, String)>, StoreError>;
        /// Selects the errors of the queries of labels on a host.
        async fn label_errors_of_host(&self, host: &HostId) -> Result<Vec<(LabelId, String)>, StoreError>;
        /// Selects the labels of a host.
        async fn labels_of_host(&self, host: &HostId) -> Result<Vec<LabelId>, StoreError>;
    }
}
