//! Carves.

use muster_core::carve::Carve;
use muster_core::credential::SecretHash;
use muster_core::id::{FileId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of carves.
#[derive(Clone, Debug)]
pub enum CarveWrite {
    /// Inserts a carve, and ends the one that its agent has in progress. Fails with `OverLimit` if the archives of the agent would
    /// exceed a limit.
    Begin {
        /// The carve.
        carve: Box<Carve>,
        /// Maximum length of all archives of the agent, bytes.
        max_bytes: u64,
    },
    /// Counts a block, which a write of a chunk stores. Fails with `Changed` unless it is the next one of a carve in progress.
    Block {
        /// The carve.
        id: FileId,
        /// Number of the block.
        number: u64,
        /// Whether the archive is compressed.
        is_compressed: bool,
    },
    /// Completes a carve, after the write of its last block.
    Complete {
        /// The carve.
        id: FileId,
        /// Time.
        now: Timestamp,
        /// Time at which its bytes are deleted.
        expires_at: Timestamp,
    },
    /// Ends a carve that is in progress, and deletes its blocks.
    Fail {
        /// The carve.
        id: FileId,
        /// Reason.
        reason: String,
        /// Time.
        now: Timestamp,
    },
    /// Deletes a carve and its blocks. Fails with `Missing`.
    Delete {
        /// The carve.
        id: FileId,
    },
}

impl From<CarveWrite> for Write {
    fn from(write: CarveWrite) -> Self {
        Self::Carve(write)
    }
}

reads! {
    /// Reads of carves.
    pub trait CarveStore {
        /// Selects a carve of the space.
        async fn carve_in(&self, space: &SpaceId, id: &FileId) -> Result<Option<Carve>, StoreError>;
        /// Selects the carve of a session.
        async fn carve_of_session(&self, session: &SecretHash) -> Result<Option<Carve>, StoreError>;
        /// Selects at most `limit` carves of a space, newest first.
        async fn carves(&self, space: &SpaceId, limit: u32) -> Result<Vec<Carve>, StoreError>;
        /// Deletes the bytes of at most `limit` carves whose time is over, and at most `limit` records of carves that began before
        /// `before`. Returns their number.
        async fn carves_expire(&self, now: Timestamp, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
    }
}
