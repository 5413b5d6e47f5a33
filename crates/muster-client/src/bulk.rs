//! Bulk actions. [`Client::try_bulk`] is a dry run.

use muster_protocol::management::agent_action::{CreatedAction, CreatedActions};
use muster_protocol::management::bulk::{
    BulkActions, BulkDelete, BulkDiagnostics, BulkMigrate, BulkPrivilegeLevelChange, BulkReassign, BulkRollback,
    BulkTags, BulkUnenroll, BulkUpgrade,
};
use muster_protocol::management::envelope::Counted;
use serde::Serialize;

use crate::{Client, Result};

/// A bulk request: its path and its response.
pub trait Bulk: Serialize {
    /// Last segment of the path.
    const PATH: &'static str;
    /// Response to the request, unless it is a dry run.
    type Answer: serde::de::DeserializeOwned;
    /// Turns the request into a dry run.
    #[must_use]
    fn trying(self) -> Self;
}

// The requests differ only in name, path and response.
macro_rules! bulk {
    ($($request:ident $path:literal $answer:ident,)*) => {
        $(impl Bulk for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;
            fn trying(self) -> Self {
                Self { dry_run: Some(true), ..self }
            }
        })*
    };
}

bulk!(
    BulkUnenroll "bulk_unenroll" CreatedAction,
    BulkReassign "bulk_reassign" CreatedAction,
    BulkUpgrade "bulk_upgrade" CreatedAction,
    BulkRollback "bulk_rollback" CreatedActions,
    BulkDiagnostics "bulk_request_diagnostics" CreatedAction,
    BulkTags "bulk_update_agent_tags" CreatedAction,
    BulkMigrate "bulk_migrate" CreatedAction,
    BulkPrivilegeLevelChange "bulk_privilege_level_change" CreatedAction,
    BulkActions "bulk_actions" CreatedAction,
    BulkDelete "bulk_delete" Counted,
);

impl Client {
    /// Sends a bulk request.
    pub async fn bulk<B: Bulk>(&self, request: &B) -> Result<B::Answer> {
        self.post(&["agents", B::PATH], request).await
    }

    /// Validates a bulk request and returns the number of targets; changes nothing.
    pub async fn try_bulk<B: Bulk>(&self, request: B) -> Result<Counted> {
        self.post(&["agents", B::PATH], &request.trying()).await
    }
}
