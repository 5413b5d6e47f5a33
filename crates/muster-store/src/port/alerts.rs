//! Events, and the receivers of alerts.

use muster_core::alert::{Progress, Receiver};
use muster_core::event::Event;
use muster_core::id::{AlertReceiverId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// Maximum number of receivers of a space.
pub const MOST_RECEIVERS: u64 = 100;

/// A change of receivers.
#[derive(Clone, Debug)]
pub enum AlertWrite {
    /// Inserts a receiver that starts after event number `after`. Fails with `NameTaken`, or `TooManyReceivers` if the space has
    /// [`MOST_RECEIVERS`].
    Insert {
        /// The receiver.
        receiver: Box<Receiver>,
        /// Number of the last event that it does not get.
        after: i64,
    },
    /// Replaces a receiver whose version is still one less than the given one's. Fails with `Changed` or `NameTaken`.
    Update(Box<Receiver>),
    /// Deletes a receiver and its progress. Fails with `Missing`.
    Delete {
        /// The receiver.
        id: AlertReceiverId,
    },
    /// Replaces the progress of a receiver. Fails with `Missing`.
    Progress {
        /// The receiver.
        id: AlertReceiverId,
        /// How far it is.
        progress: Box<Progress>,
    },
}

impl From<AlertWrite> for Write {
    fn from(write: AlertWrite) -> Self {
        Self::Alert(write)
    }
}

reads! {
    /// Reads of events and receivers.
    pub trait AlertStore {
        /// Returns the number of the newest event; 0 if there is none.
        async fn newest_event(&self) -> Result<i64, StoreError>;
        /// Selects events after number `seq`, oldest first. Numbers ascend in the order of commits, for every reader. Events of a
        /// kind that this version does not know are omitted.
        async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Event)>, StoreError>;
        /// Selects the events of a subject (`agent`, its id) before number `before`, newest first.
        async fn events_of(
            &self,
            kind: &str,
            id: &str,
            before: i64,
            limit: u32,
        ) -> Result<Vec<(i64, Event)>, StoreError>;
        /// Selects the newest events of a space and of the installation, newest first.
        async fn events_in(&self, space: &SpaceId, limit: u32) -> Result<Vec<(i64, Event)>, StoreError>;
        /// Deletes up to `limit` of the oldest events: those before a time, and all but the newest `keep`. Returns their number.
        async fn events_prune(&self, before: Timestamp, keep: i64, limit: u32) -> Result<u64, StoreError>;
        /// Selects a receiver of a space.
        async fn alert_receiver(&self, space: &SpaceId, id: &AlertReceiverId) -> Result<Option<Receiver>, StoreError>;
        /// Selects the receivers of a space, by name.
        async fn alert_receivers(&self, space: &SpaceId) -> Result<Vec<Receiver>, StoreError>;
        /// Selects the receivers of all spaces, with their progress.
        async fn alert_work(&self) -> Result<Vec<(Receiver, Progress)>, StoreError>;
        /// Selects the progress of a receiver.
        async fn alert_progress(&self, id: &AlertReceiverId) -> Result<Option<Progress>, StoreError>;
    }
}
