//! How much agents may upload.

use muster_core::Error;
use muster_core::denial::Denial;
use muster_core::file::{FileStatus, Upload};
use muster_core::time::Timestamp;

use super::uploads::LIFE;

/// Bounds of uploads, each agent's counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Bytes of one file; 0: uploads are switched off.
    pub max_bytes: u64,
    /// Bytes of all files that are kept of an agent, begun or complete.
    pub max_bytes_per_agent: u64,
    /// Uploads of an agent that are begun and not complete.
    pub max_open_per_agent: u64,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_bytes_per_agent: 4 << 30, max_open_per_agent: 8 }
    }
}

impl UploadLimits {
    /// Whether `next` may begin beside what there is of its agent's. What has to wait for others of its kind is told
    /// to come again; agents do.
    pub(super) fn admit(&self, known: &[Upload], next: &Upload, now: Timestamp) -> Result<(), Error> {
        let others = || known.iter().filter(|upload| upload.action_id != next.action_id);
        let is_open = |upload: &&Upload| upload.is_open() && now.since(upload.started_at) <= LIFE;
        if others().filter(is_open).count() as u64 >= self.max_open_per_agent {
            return Err(Denial::TooManyUploads.into());
        }
        let is_kept = |upload: &&Upload| upload.status == FileStatus::Ready || is_open(upload);
        let bytes = |upload: &Upload| u64::try_from(upload.size).unwrap_or(0);
        let kept: u64 = others().filter(is_kept).map(bytes).sum();
        if kept.saturating_add(bytes(next)) > self.max_bytes_per_agent {
            let message = "with this file the agent's uploads exceed what is kept of them: delete older ones";
            return Err(Denial::UploadTooLarge.because(message));
        }
        Ok(())
    }
}
