//! The disk under the store: free space, and a reserve for when there is none.

use muster_core::action::ActionType;
use muster_core::file::FileStatus;
use muster_store::{
    ActionWrite, AgentWrite, DiskKeyWrite, EnrollmentKeyWrite, FileWrite, IdentityWrite, NetworkObjectWrite,
    OutputWrite, PolicyWrite, Write,
};

/// The store's disk. Called on async threads, so no method may block for long.
pub trait Disk: Send + Sync {
    /// Free bytes; `None` if unknown.
    fn free_bytes(&self) -> Option<u64>;
    /// Returns whether not even a small file can be written and synced.
    fn is_full(&self) -> bool;
    /// Frees a part of the reserve, so that other programs that write to the disk cannot use up all of it at once.
    /// Returns false if nothing is left.
    fn release_reserve(&self) -> bool;
    /// Allocates the reserve unless it exists. Returns false if there is not enough space.
    fn restore_reserve(&self) -> bool;
}

/// Returns true for commits that free space or revoke access. These may use the reserve: on a full disk, an
/// administrator must still be able to revoke a key and to delete.
pub(crate) fn is_relief(writes: &[Write]) -> bool {
    // Revealing a key, which an administrator may do before revoking it, commits an audit event and nothing else.
    let is_a_line =
        writes.iter().all(|write| matches!(write, Write::Audit(_) | Write::DiskKey(DiskKeyWrite::Holds { .. })));
    is_a_line
        || writes.iter().any(|write| match write {
            Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { .. } | EnrollmentKeyWrite::Delete { .. })
            | Write::Identity(
                IdentityWrite::RevokeToken { .. }
                | IdentityWrite::EndSessions { .. }
                | IdentityWrite::DeleteUser { .. }
                | IdentityWrite::DeleteProvider { .. }
                | IdentityWrite::DeleteBinding { .. },
            )
            | Write::Agent(AgentWrite::Delete { .. })
            | Write::Policy(PolicyWrite::Delete { .. })
            | Write::Output(OutputWrite::Delete { .. })
            | Write::NetworkObject(NetworkObjectWrite::Delete { .. })
            | Write::Action(ActionWrite::Finish { .. }) => true,
            Write::Agent(AgentWrite::Update { before, after }) => {
                !before.credentials.is_empty() && after.credentials.is_empty()
            }
            // A forced unenrollment commits its action before it revokes the credentials.
            Write::Action(ActionWrite::Insert { action, .. }) => action.kind == ActionType::ForceUnenroll,
            Write::File(FileWrite::UploadStatus { status, .. }) => *status == FileStatus::Deleted,
            _ => false,
        })
}
