//! Removal of enrollment keys that expired long ago.

use std::time::Duration;

use muster_core::Error;
use muster_core::change::Change;
use muster_store::{EnrollmentKeyWrite, StoreError, Write};
use serde_json::json;

use super::Housekeeping;
use crate::audit::audit_line;
use crate::authority::System;

/// Retention of enrollment keys after their expiration. Until then lists answer why an agent was rejected.
pub(super) const KEYS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Keys deleted by one commit.
const BATCH: u32 = 100;

impl Housekeeping {
    /// Deletes keys whose retention is over. Each re-enrollment of a duplicate host has a key of its own, so that expired
    /// ones would otherwise accumulate.
    pub(super) async fn remove_expired_keys(&self) -> Result<u64, Error> {
        self.in_batches(BATCH, || async {
            let now = self.clock.now();
            let expired =
                self.store.everywhere(&System).enrollment_keys_expired_before(now.minus(KEYS_KEPT), BATCH).await?;
            let count = expired.len() as u64;
            let writes = expired.into_iter().flat_map(|id| {
                let (subject, detail) = (format!("enrollment_key:{id}"), json!({"reason": "expired"}));
                let line = audit_line(&System::ORIGIN, now, "enrollment_key.delete", subject, detail);
                let changed = Write::Changed(Change::EnrollmentKey(id.clone()));
                [EnrollmentKeyWrite::Delete { id }.into(), changed, line]
            });
            match self.store.commit(&System, writes.collect()).await {
                Ok(_) => Ok(count),
                // Somebody deleted one of them since. The next run reads the list again.
                Err(StoreError::Conflict(_)) => Ok(0),
                Err(error) => Err(error),
            }
        })
        .await
    }
}
