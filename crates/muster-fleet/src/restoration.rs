//! A store that was restored from a backup: it does not know the agents that enrolled after the backup was created.
//!
//! Agents treat a rejected key as final: they stop, and some unenroll themselves. For a while after a restore, an unknown key is
//! therefore answered as a temporary failure, and listed among the rejected requests. Keys that the store knows to be revoked are
//! rejected as always.

use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::error_chain::chain;
use muster_core::time::{Clock, Timestamp};
use muster_store::{RESTORED, SettingWrite};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OnceCell;

use super::audit::audit_line;
use super::authority::System;
use super::watched_store::WatchedStore;

/// Time after a restore in which an agent may show up that enrolled after the backup: those that are switched off, too.
const AWAITED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a restore stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When the backup was created.
    pub backup_at: Timestamp,
    /// When it was restored.
    pub restored_at: Timestamp,
    /// Whether a server has recorded the restore in the audit log.
    #[serde(default)]
    pub is_recorded: bool,
}

/// The last restore of the store, if there was one.
pub struct Restoration {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    /// Read once: a store is restored while no server uses it.
    last: OnceCell<Option<Restored>>,
}

impl Restoration {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, last: OnceCell::new() }
    }

    /// Returns the last restore.
    pub async fn last(&self) -> Result<Option<&Restored>, Error> {
        let read = async || -> Result<Option<Restored>, Error> {
            let text = self.store.everywhere(&System).setting(RESTORED).await?;
            text.map(|text| serde_json::from_str(&text).map_err(Error::internal)).transpose()
        };
        self.last.get_or_try_init(read).await.map(Option::as_ref)
    }

    /// Returns true if an unknown key may be that of an agent that enrolled after the backup.
    pub(crate) async fn may_lack_agents(&self) -> Result<bool, Error> {
        let last = self.last().await?;
        Ok(last.is_some_and(|restored| self.clock.now().since(restored.restored_at) < AWAITED))
    }

    /// Records a restore in the audit log, once.
    pub async fn record(&self) -> Result<(), Error> {
        let Some(restored) = self.last().await?.filter(|restored| !restored.is_recorded) else { return Ok(()) };
        let Some(before) = self.store.everywhere(&System).setting(RESTORED).await? else { return Ok(()) };
        let recorded = Restored { is_recorded: true, ..restored.clone() };
        let value = serde_json::to_string(&recorded).map_err(Error::internal)?;
        let times = [restored.backup_at, restored.restored_at].map(Timestamp::to_rfc3339_seconds);
        let detail = json!({"backup_at": times[0], "restored_at": times[1]});
        let line = audit_line(&System::ORIGIN, self.clock.now(), "backup.restore", "fleet", detail);
        let swap = SettingWrite::Swap { name: RESTORED.into(), before: Some(before), value };
        tracing::warn!(
            backup_at = times[0],
            "the fleet was restored from a backup: changes after it are lost, including revocations; \
             `muster status` lists agents that enrolled after it"
        );
        if let Err(error) = self.store.commit(&System, vec![line, swap.into()]).await {
            // Recorded by another server, or at the next start.
            tracing::warn!(error = %chain(&error), "the restore was not recorded in the audit log");
        }
        Ok(())
    }
}
