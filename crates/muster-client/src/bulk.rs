//! Orders to many agents. [`Client::try_bulk`] only asks what one would come to.

use muster_protocol::management::bulk::{
    BulkActions, BulkDelete, BulkDiagnostics, BulkMigrate, BulkPrivilegeLevelChange, BulkReassign, BulkRollback,
    BulkTags, BulkUnenroll, BulkUpgrade,
};
use muster_protocol::management::envelope::Counted;
use muster_protocol::management::order::{Ordered, OrderedAll};
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
    BulkUnenroll "bulk_unenroll" Ordered,
    BulkReassign "bulk_reassign" Ordered,
    BulkUpgrade "bulk_upgrade" Ordered,
    BulkRollback "bulk_rollback" OrderedAll,
    BulkDiagnostics "bulk_request_diagnostics" Ordered,
    BulkTags "bulk_update_agent_tags" Ordered,
    BulkMigrate "bulk_migrate" Ordered,
    BulkPrivilegeLevelChange "bulk_privilege_level_change" Ordered,
    BulkActions "bulk_actions" Ordered,
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
