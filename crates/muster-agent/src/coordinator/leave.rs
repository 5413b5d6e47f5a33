//! The end of the loop: stop, unenrollment by the server, or unenrollment on the host.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{Background, Coordinator, Ending};
use crate::backoff::Backoff;
use crate::fleet::{CallError, FleetClient};
use crate::state::{Phase, State, Store, StoreError};
use muster_core::Entropy;
use muster_core::error_chain::chain;
use muster_core::time::Clock;

/// Maximum number of attempts to notify the server.
const AUDIT_ATTEMPTS: u32 = 5;
/// Total time for these attempts.
pub const AUDIT_TIMEOUT: Duration = Duration::from_secs(30);

impl Coordinator {
    pub(super) async fn leave(mut self, ending: Ending, reply: Option<oneshot::Sender<Option<String>>>) -> Ending {
        // Requests in flight are dropped. Everything that they must deliver is stored, and is sent after the next
        // start.
        (self.poll, self.acks, self.work) = (None, None, None);
        self.background = Background::default();
        (self.upgrading, self.migrating) = (None, None);
        match ending {
            // The next coordinator hands over its model: what has not changed keeps running.
            Ending::Reload => return ending,
            Ending::Stopped | Ending::Restart | Ending::Unprivileged => {
                self.deps.components.halt().await;
                // Afterwards: what only the leader of a cluster may run must have ended when another agent becomes the leader.
                self.deps.variables.stop().await;
                return ending;
            }
            Ending::Unenrolled => self.components.clear(&self.deps),
        }
        self.deps.components.settled().await;
        // Nothing may be left running, not even programs of an earlier agent: there will be no later one.
        self.deps.components.cleared().await;
        self.deps.variables.stop().await;
        let mut fault = None;
        // Only an unenrollment on the host is reported. If the server requested it, the ack is the notification.
        if reply.is_some() {
            let told = tell(
                &self.client,
                &self.enrollment.agent_id,
                "uninstall",
                AUDIT_TIMEOUT,
                &*self.deps.clock,
                &*self.deps.entropy,
            )
            .await;
            fault = told.err().map(|error| format!("the server was not notified: {}", chain(&error)));
        }
        if let Err(error) = forget(&*self.deps.store) {
            tracing::error!(error = %chain(&error), "failed to delete credentials or policy");
            fault = Some(chain(&error).to_string());
        }
        tracing::info!("unenrolled; credentials and policy deleted");
        if let Some(reply) = reply {
            // The command that sent the request may have been interrupted.
            let _ = reply.send(fault);
        }
        ending
    }
}

/// Deletes credentials and policy, and records that the agent is unenrolled.
pub fn forget(store: &dyn Store) -> Result<(), StoreError> {
    // The phase is stored first: after a crash in between, the agent does not run with the old credentials.
    store.save_state(&State::without_policy(Phase::Unenrolled))?;
    store.forget_enrollment()
}

/// Notifies the server that the agent leaves, with the reason (EA §10.7). Retries for at most `timeout`.
pub async fn tell(
    client: &FleetClient,
    agent_id: &str,
    reason: &str,
    timeout: Duration,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<(), CallError> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
    let deadline = tokio::time::Instant::now() + timeout;
    // The time of the first attempt, also in the repeated ones.
    let at = clock.now().to_rfc3339_millis();
    loop {
        let call = client.audit_unenroll(agent_id, reason, &at, None);
        let error = match tokio::time::timeout_at(deadline, call).await {
            Ok(Ok(())) => return Ok(()),
            // The key is revoked, or the server has already been notified.
            Ok(Err(error)) if matches!(error.status(), Some(401 | 409)) => return Ok(()),
            Ok(Err(error)) if matches!(error.status(), Some(400..500)) => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => CallError::Transport(crate::net::TransportError::Timeout(timeout)),
        };
        let wait = backoff.next(entropy);
        if backoff.failures() >= AUDIT_ATTEMPTS || tokio::time::Instant::now() + wait >= deadline {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
    }
}
