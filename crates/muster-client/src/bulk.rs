//! Orders to many agents. [`Client::try_bulk`] only asks what one would come to.

use muster_protocol::management::agent_action::{CreatedAction, CreatedActions};
use muster_protocol::management::bulk::{
    BulkActions, BulkDelete, BulkDiagnostics, BulkMigrate, BulkPrivilegeLevelChange, BulkReassign, BulkRollback,
    BulkTags, BulkUnenroll, BulkUpgrade,
};
use muster_protocol::management::envelope::Counted;
use serde::Serialize;

use crate::{Client, Result};

/// A bulk request: where it goes and what it answers.
pub trait Bulk: Serialize {
    /// Last segment of its path.
    const PATH: &'static str;
    /// What it answers, unless it only tries.
    type Answer: serde::de::DeserializeOwned;
    /// The same request, only trying.
    #[must_use]
    fn trying(self) -> Self;
}

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
    /// Carries a bulk request out.
    pub async fn bulk<B: Bulk>(&self, request: &B) -> Result<B::Answer> {
        self.post(&["agents", B::PATH], request).await
    }

    /// Tells what a bulk request would come to: it is checked as if it were meant, and changes nothing.
    pub async fn try_bulk<B: Bulk>(&self, request: B) -> Result<Counted> {
        self.post(&["agents", B::PATH], &request.trying()).await
    }
}
