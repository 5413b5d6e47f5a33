//! How much agents may upload.

use std::time::Duration;

use muster_core::Error;
use muster_core::denial::Denial;
use muster_core::file::Upload;
use muster_store::{UploadLimit, UploadQuota};

/// Time that an upload may take (EA134).
pub(super) const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Bounds of uploads, each agent's counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Bytes of one file; 0: uploads are switched off.
    pub max_bytes: u64,
    /// Bytes of all files that are kept of an agent, begun or complete.
    pub max_bytes_per_agent: u64,
    /// Uploads of an agent that are begun and not complete.
    pub max_open_per_agent: u64,
    /// Free bytes on the server's disk below which nothing is uploaded.
    pub min_free_bytes: u64,
}

/// Records of uploads of one agent; those that failed or were removed are few anyway.
const MAX_RECORDS: u64 = 1000;

impl Default for UploadLimits {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_bytes_per_agent: 4 << 30, max_open_per_agent: 8, min_free_bytes: 256 << 20 }
    }
}

impl UploadLimits {
    /// What the store is to check while it takes `next`.
    pub(super) fn quota(&self, next: &Upload) -> UploadQuota {
        UploadQuota {
            bytes: u64::try_from(next.size).unwrap_or(0),
            open_since: next.started_at.minus(LIFE),
            max_open: self.max_open_per_agent,
            max_records: MAX_RECORDS,
            max_bytes: self.max_bytes_per_agent,
        }
    }

    /// Refuses bytes for which there would soon be no room: what is left is for the fleet itself. `free` is unknown on
    /// file systems that don't tell.
    pub(super) fn check_room(&self, free: Option<u64>, bytes: u64) -> Result<(), Error> {
        if free.is_none_or(|free| free.saturating_sub(bytes) >= self.min_free_bytes) {
            return Ok(());
        }
        tracing::warn!(free, bytes, floor = self.min_free_bytes, "rejected an upload: the disk is almost full");
        Err(Denial::TooManyUploads.because("not enough free disk space on the server for uploads"))
    }
}

/// What an agent is told of a limit. What has to wait for others of its kind is told to come again; agents do.
pub(super) fn over(limit: UploadLimit) -> Error {
    match limit {
        UploadLimit::Open => Denial::TooManyUploads.into(),
        UploadLimit::Records => Denial::TooManyUploads.because("too many stored uploads of this agent"),
        UploadLimit::Bytes => {
            let message = "this file would exceed the maximum total size of the agent's uploads: delete older ones";
            Denial::UploadTooLarge.because(message)
        }
    }
}
