//! Installers.

use muster_core::file::ChunkInfo;
use muster_core::id::{InstallerId, SpaceId};
use muster_core::installer::Installer;
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of installers.
#[derive(Clone, Debug)]
pub enum InstallerWrite {
    /// Inserts an installer without its package. Fails with `TooMany` if the space would exceed a limit, and with `NameTaken` if it has
    /// the version for the platform.
    Insert(Box<Installer>),
    /// A precondition of a write of a block: fails with `Changed` unless the installer lacks its package.
    IsUploading(InstallerId),
    /// Completes the package. Fails with `Changed` unless it is incomplete and has exactly these blocks.
    Complete {
        /// The installer.
        id: InstallerId,
        /// The blocks that were verified.
        blocks: Vec<ChunkInfo>,
        /// SHA-256 of the package.
        sha256: String,
        /// Time.
        now: Timestamp,
    },
    /// Deletes an installer. The blocks of its package are deleted later
    /// ([`removed_chunks_prune`](super::FileStore::removed_chunks_prune)). Fails with `Missing`, and with `InUse` while hosts may need it.
    Delete {
        /// The installer.
        id: InstallerId,
        /// Time.
        now: Timestamp,
    },
}

impl From<InstallerWrite> for Write {
    fn from(write: InstallerWrite) -> Self {
        Self::Installer(write)
    }
}

reads! {
    /// Reads of installers.
    pub trait InstallerStore {
        /// Selects an installer of the space.
        async fn installer_in(&self, space: &SpaceId, id: &InstallerId) -> Result<Option<Installer>, StoreError>;
        /// Selects the installers of a space without their conditions and scripts, by name and version. They are limited in number.
        async fn installers(&self, space: &SpaceId) -> Result<Vec<Installer>, StoreError>;
        /// Deletes at most `limit` installers without their packages that were created before a time, and returns their number.
        async fn installers_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
    }
}
