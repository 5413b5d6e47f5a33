//! Limits of uploads.

use std::time::Duration;

use muster_core::Error;
use muster_core::denial::Denial;
use muster_core::file::Upload;
use muster_store::{UploadLimit, UploadQuota};

/// Maximum duration of an upload (EA134).
pub(super) const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Limits of uploads; each agent is counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Maximum bytes of one file; 0 disables uploads.
    pub max_bytes: u64,
    /// Maximum bytes of all stored uploads of an agent, open or complete.
    pub max_bytes_per_agent: u64,
    /// Maximum open uploads of an agent.
    pub max_open_per_agent: u64,
    /// Minimum free bytes on the server's disk; below it, uploads are rejected.
    pub min_free_bytes: u64,
}

/// Maximum upload records of one agent. Records remain after the data was deleted, so without a limit, an agent that
/// keeps starting uploads would fill the table.
const MAX_RECORDS: u64 = 1000;

impl Default for UploadLimits {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_bytes_per_agent: 4 << 30, max_open_per_agent: 8, min_free_bytes: 256 << 20 }
    }
}

impl UploadLimits {
    /// Returns the quota that the store checks in the commit that inserts `next`.
    pub(super) fn quota(&self, next: &Upload) -> UploadQuota {
        UploadQuota {
            bytes: u64::try_from(next.size).unwrap_or(0),
            // Expired uploads no longer count as open, even before housekeeping closes them.
            open_since: next.started_at.minus(LIFE),
            max_open: self.max_open_per_agent,
            max_records: MAX_RECORDS,
            max_bytes: self.max_bytes_per_agent,
        }
    }

    /// Rejects bytes that would leave less than the minimum free, which is reserved for the fleet itself. An unknown
    /// `free` accepts them.
    pub(super) fn check_room(&self, free: Option<u64>, bytes: u64) -> Result<(), Error> {
        if free.is_none_or(|free| free.saturating_sub(bytes) >= self.min_free_bytes) {
            // Checked when an upload starts, with its declared size, and again for each chunk: other uploads use up the
            // space in between.
            return Ok(());
        }
        tracing::warn!(free, bytes, floor = self.min_free_bytes, "rejected an upload: the disk is almost full");
        Err(Denial::TooManyUploads.because("not enough free disk space on the server for uploads"))
    }
}

/// Maps an exceeded limit to the agent's error. `TooManyUploads` makes agents retry later, `UploadTooLarge` does not.
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
