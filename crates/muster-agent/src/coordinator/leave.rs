//! The end of the loop: stopping, being unenrolled, leaving by oneself.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Coordinator, Ending};
use crate::backoff::Backoff;
use crate::fleet::{CallError, FleetClient};
use crate::state::{Phase, State, Store, StoreError};
use muster_core::Entropy;
use muster_core::time::Clock;

/// How often the server is told that we go.
const AUDIT_ATTEMPTS: u32 = 5;
/// How long that may take in all.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long work that goes on may still take.
const WORK_TIMEOUT: Duration = Duration::from_secs(40);

impl Coordinator {
    pub(super) async fn leave(mut self, ending: Ending, reply: Option<oneshot::Sender<Option<String>>>) -> Ending {
        // Whatever is on its way is given up; what matters of it is stored and comes again.
        (self.poll, self.acks, self.background) = (None, None, None);
        if let Some(work) = self.work.take() {
            // Programs that are just being stopped are waited for.
            let _ = tokio::time::timeout(WORK_TIMEOUT, work).await;
        }
        if ending != Ending::Unenrolled {
            self.deps.components.halt().await;
            return ending;
        }
        self.deps.components.apply(Vec::new()).await;
        let mut fault = None;
        if reply.is_some() {
            let told = tell(&self.client, &self.enrollment.agent_id, &*self.deps.clock, &*self.deps.entropy).await;
            fault = told.err().map(|error| format!("the server could not be told: {error}"));
        }
        if let Err(error) = forget(&*self.deps.store) {
            tracing::error!(%error, "credentials or policy could not be deleted");
            fault = Some(error.to_string());
        }
        tracing::info!("unenrolled: credentials and policy are deleted");
        if let Some(reply) = reply {
            // Who asked may have gone.
            let _ = reply.send(fault);
        }
        ending
    }
}

/// Deletes credentials and policy, and remembers that this agent is unenrolled.
pub fn forget(store: &dyn Store) -> Result<(), StoreError> {
    store.save_state(&State::without_policy(Phase::Unenrolled))?;
    store.forget_enrollment()
}

/// Tells the server that this agent is uninstalled (EA §10.7): a few times, then it must do without.
pub async fn tell(
    client: &FleetClient,
    agent_id: &str,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<(), CallError> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
    let deadline = tokio::time::Instant::now() + AUDIT_TIMEOUT;
    loop {
        let call = client.audit_unenroll(agent_id, "uninstall", clock.now());
        let error = match tokio::time::timeout_at(deadline, call).await {
            Ok(Ok(())) => return Ok(()),
            // It knows us no longer, or knows already.
            Ok(Err(error)) if matches!(error.status(), Some(401 | 409)) => return Ok(()),
            Ok(Err(error)) if matches!(error.status(), Some(400..500)) => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => CallError::Transport(crate::net::TransportError::Timeout(AUDIT_TIMEOUT)),
        };
        let wait = backoff.next(entropy);
        if backoff.failures() >= AUDIT_ATTEMPTS || tokio::time::Instant::now() + wait >= deadline {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
    }
}
