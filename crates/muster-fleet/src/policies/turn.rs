//! The fleet-wide order of changes of policies and outputs.
//!
//! A revision is compiled from the policy, the outputs and the fleet's URLs, and at most one policy of a space is the
//! default: rules that no row's own version can keep. A counter in the store orders these changes on all servers. A change
//! reads it first, and its commit requires that the counter is unchanged and raises it. A change that another server
//! overtook starts again with what that server committed.

use muster_core::{Error, ErrorKind};
use muster_store::{SettingWrite, StoreError, Write};

use super::Policies;
use crate::authority::System;
use crate::watched_store::WatchedStore;

/// The setting that holds the counter.
const COUNTER: &str = "policies.generation";
/// Maximum attempts of one change.
const ATTEMPTS: usize = 5;

/// The value of the counter on which a change is based.
#[derive(Clone, Debug)]
pub(crate) struct Turn(Option<String>);

impl Turn {
    /// Begins a change. Whatever the change is based on must be read after this.
    pub(crate) async fn begin(store: &WatchedStore) -> Result<Self, StoreError> {
        store.everywhere(&System).setting(COUNTER).await.map(Self)
    }

    /// The write that must be part of the change's commit.
    pub(crate) fn write(&self) -> Write {
        let number = self.0.as_deref().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        SettingWrite::Swap { name: COUNTER.into(), before: self.0.clone(), value: (number + 1).to_string() }.into()
    }

    async fn is_over(&self, store: &WatchedStore) -> Result<bool, StoreError> {
        Ok(store.everywhere(&System).setting(COUNTER).await? != self.0)
    }
}

impl Policies {
    /// Runs a change of policies or outputs; again if another server's change was committed in between.
    pub(crate) async fn in_turn<T, F>(&self, change: impl Fn(Turn) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        // Changes of this server wait here, and do not conflict with each other.
        let _own = self.revising.lock().await;
        let mut left = ATTEMPTS;
        loop {
            let turn = Turn::begin(&self.store).await?;
            left -= 1;
            match change(turn.clone()).await {
                // Whatever the conflict was about: it may not exist any more in the state that the other server left.
                Err(error) if error.kind == ErrorKind::Conflict && left > 0 && turn.is_over(&self.store).await? => {
                    tracing::debug!(%error, "another server changed policies at the same time; retrying");
                }
                outcome => return outcome,
            }
        }
    }
}
