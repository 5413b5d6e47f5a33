//! The disk under the store: how much room it has, and a reserve for the day on which it has none.

use muster_core::action::ActionType;
use muster_core::file::FileStatus;
use muster_store::{ActionWrite, AgentWrite, EnrollmentKeyWrite, FileWrite, OutputWrite, PolicyWrite, Write};

/// What the store's disk is asked for. All of it is quick.
pub trait Disk: Send + Sync {
    /// Bytes that may still be written; `None` when that can't be told.
    fn free_bytes(&self) -> Option<u64>;
    /// Gives the reserve back to the disk. Returns false when there is none.
    fn release_reserve(&self) -> bool;
    /// Sets the reserve aside, unless it is there. Returns false while there is no room for it.
    fn restore_reserve(&self) -> bool;
}

/// Whether a commit frees room or shuts somebody out: such ones may use the reserve. On a full disk an operator must be
/// able to revoke a key, and to delete.
pub(crate) fn is_relief(writes: &[Write]) -> bool {
    // A key is looked at before it is revoked, and a look leaves a line.
    let is_a_line = writes.iter().all(|write| matches!(write, Write::Audit(_)));
    is_a_line
        || writes.iter().any(|write| match write {
            Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { .. } | EnrollmentKeyWrite::Delete { .. })
            | Write::Agent(AgentWrite::Delete { .. })
            | Write::Policy(PolicyWrite::Delete { .. })
            | Write::Output(OutputWrite::Delete { .. })
            | Write::Action(ActionWrite::Finish { .. }) => true,
            Write::Agent(AgentWrite::Update { before, after }) => {
                !before.credentials.is_empty() && after.credentials.is_empty()
            }
            // The note of a revocation of many comes before their records.
            Write::Action(ActionWrite::Insert { action, .. }) => action.kind == ActionType::ForceUnenroll,
            Write::File(FileWrite::UploadStatus { status, .. }) => *status == FileStatus::Deleted,
            _ => false,
        })
}
