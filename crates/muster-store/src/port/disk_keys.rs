//! Recovery keys of encrypted disks.

use muster_core::disk_key::DiskKey;
use muster_core::id::{AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of disk keys.
#[derive(Clone, Debug)]
pub enum DiskKeyWrite {
    /// Stores a key in place of the former one.
    Put {
        /// The orbit that reported it.
        agent: AgentId,
        /// The encrypted key.
        sealed: Vec<u8>,
        /// Time.
        now: Timestamp,
    },
    /// Stores an error of the host. Its key stays.
    Error {
        /// The orbit that reported it.
        agent: AgentId,
        /// The error.
        error: String,
        /// Time.
        now: Timestamp,
    },
    /// Makes a host ask its user for the passphrase of the disk.
    Escrow {
        /// Its orbit.
        agent: AgentId,
        /// Time.
        now: Timestamp,
    },
    /// Records that a host is told to do so. Fails with `Missing` unless that is due. A key or an error that is stored after it is the
    /// answer.
    EscrowTold {
        /// Its orbit.
        agent: AgentId,
        /// Time.
        now: Timestamp,
        /// Time from which it is told again, if this is not the last time.
        again_at: Timestamp,
    },
    /// Fails with `Changed` unless the agent has a key, or none, as the caller has read. Nobody stores or removes one before the commit
    /// ends.
    Expect {
        /// The orbit that reports it.
        agent: AgentId,
        /// Whether it has a key.
        is_stored: bool,
    },
    /// Gives the key, if there is one, to the space to which a later write of the commit moves the agent, in place of an older one. Without
    /// this, the key stays with the former space.
    HandOver {
        /// The orbit that reported it.
        agent: AgentId,
        /// The space that the agent moves to.
        space: SpaceId,
    },
    /// A precondition only: the space has a key of the agent until the end of the commit. Fails with `LeftSpace`.
    Holds {
        /// The orbit that reported it.
        agent: AgentId,
        /// The space.
        space: SpaceId,
    },
}

impl From<DiskKeyWrite> for Write {
    fn from(write: DiskKeyWrite) -> Self {
        Self::DiskKey(write)
    }
}

reads! {
    /// Reads of disk keys.
    pub trait DiskKeyStore {
        /// Selects the disk key of an agent that was reported in a space, or handed over to it.
        async fn disk_key(&self, agent: &AgentId, space: &SpaceId) -> Result<Option<DiskKey>, StoreError>;
        /// Counts the keys that a space has.
        async fn disk_keys_in(&self, space: &SpaceId) -> Result<u64, StoreError>;
        /// Selects at most `limit` agents after one that have yet to be told, now or later, to ask for the passphrase.
        async fn disk_escrows_due(&self, after: Option<&AgentId>, limit: u32) -> Result<Vec<AgentId>, StoreError>;
    }
}
