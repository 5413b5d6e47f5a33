//! The background work of rollouts: observe, decide, carry out. One server does it, by lease.

use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::error_chain::chain;
use muster_core::rollout::{Rollout, Step};
use muster_store::{FencingToken, LeaseName, StoreError, Write};
use serde_json::json;

use super::{Rollouts, changed, next_version, observe};
use crate::audit::audit_line;
use crate::authority::System;

/// Whether a change of the server was applied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Committed {
    Yes,
    No,
}

/// Pause between two looks at the active rollouts.
const TICK: Duration = Duration::from_secs(2);

impl Rollouts {
    /// Runs until shutdown.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.shutdown.wait() => return,
            }
            if let Err(error) = self.advance().await {
                tracing::warn!(error = %chain(&error), "failed to advance the rollouts; retrying");
            }
        }
    }

    /// Advances all active rollouts by one step, if this server holds the lease.
    pub async fn advance(&self) -> Result<(), Error> {
        // Usually there is none, and the lease is not taken.
        let active = self.store.everywhere(&System).active_rollouts().await?;
        if active.is_empty() {
            return Ok(());
        }
        let Some(token) = self.store.everywhere(&System).take_lease(LeaseName::Rollouts).await? else { return Ok(()) };
        for rollout in active {
            if let Err(error) = self.advance_one(&token, &rollout).await {
                // One that cannot be advanced must not stop the others.
                tracing::warn!(rollout = %rollout.id, error = %chain(&error), "failed to advance a rollout; retrying");
            }
        }
        Ok(())
    }

    async fn advance_one(&self, token: &FencingToken, rollout: &Rollout) -> Result<(), Error> {
        if let Some(after) = self.complete_wave(rollout).await? {
            return self.commit_fenced(token, &after, None).await.map(drop);
        }
        let now = self.clock.now();
        let seen = self.store.within(&System, &rollout.space);
        let observed = observe::observation(seen, rollout).await?;
        let step = rollout.decide(&observed, now);
        if matches!(step, Step::Wait { .. }) {
            return Ok(());
        }
        let after = next_version(observe::carried_out(seen, rollout, step.clone(), now).await?, now);
        let action = match &step {
            Step::Wait { .. } | Step::Start { .. } => "rollout.wave",
            Step::AskApproval => "rollout.await_approval",
            Step::AwaitAgents => "rollout.await_agents",
            Step::Halt { .. } => "rollout.halt",
            Step::Complete => "rollout.complete",
        };
        let detail = json!({"state": after.state, "waves": after.started.len(), "observed": observed});
        let line =
            audit_line(&System::in_space(&rollout.space), now, action, format_args!("rollout:{}", rollout.id), detail);
        if self.commit_fenced(token, &after, Some(line)).await? == Committed::Yes {
            log(&after, &step);
        }
        Ok(())
    }

    /// Commits a rollout that the server has changed, unless the lease has ended.
    async fn commit_fenced(
        &self,
        token: &FencingToken,
        after: &Rollout,
        line: Option<Write>,
    ) -> Result<Committed, Error> {
        let mut writes = vec![Write::Fenced(*token)];
        writes.extend(changed(after));
        writes.extend(line);
        match self.store.commit(&System, writes).await {
            Ok(_) => Ok(Committed::Yes),
            // A person was faster; the next look sees what they decided.
            Err(StoreError::Conflict(_)) => Ok(Committed::No),
            Err(error) => Err(error.into()),
        }
    }
}

fn log(rollout: &Rollout, step: &Step) {
    let (id, wave) = (&rollout.id, rollout.started.len());
    match step {
        Step::Halt { breach } => tracing::warn!(rollout = %id, wave, reason = %breach, "rollout halted"),
        Step::AwaitAgents => tracing::warn!(rollout = %id, wave, "rollout waits: no agent of the wave has applied it"),
        _ => tracing::info!(rollout = %id, wave, state = rollout.state.as_str(), "rollout advanced"),
    }
}
