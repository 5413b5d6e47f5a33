//! Finds out when an unreachable server is back, without waiting for the next check-in (AG176).
//!
//! The back-off of check-ins protects a server that responds with errors. A server that does not respond at all is not
//! burdened by a small request every few seconds.

use std::time::Duration;

use tokio::time::Instant;

use super::{Coordinator, Slot};
use crate::backoff;
use crate::fleet::CallError;
use crate::net::{TlsFault, TransportError};

/// Minimum and maximum time between two probes.
const EVERY: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(6)];
/// Maximum time for a response to a probe.
const PROBE: Duration = Duration::from_secs(3);
/// Maximum delay of the check-in after a successful probe: all agents of a server find it again at about the same time.
const SPREAD: Duration = Duration::from_secs(1);

/// The search for a server that has recovered.
#[derive(Default)]
pub(super) struct Recovery {
    /// Ends when a server responds.
    pub probes: Slot<()>,
    /// Whether the next check-in follows a successful probe.
    was_found: bool,
}

impl Coordinator {
    /// Probes the servers after a failed check-in, if they did not respond.
    pub(super) fn look_for_recovery(&mut self, error: &CallError) {
        let is_silent = matches!(
            error,
            CallError::Transport(
                TransportError::Connect { .. }
                    | TransportError::Timeout(_)
                    | TransportError::Broken(_)
                    // Ends when the clock of this host is set, or the certificate is renewed.
                    | TransportError::Tls { fault: TlsFault::Clock, .. }
                    // As a load balancer that responds in plain text while it has no server.
                    | TransportError::Tls { fault: TlsFault::NotTls, .. }
            )
        );
        // A check-in that fails after a successful probe waits for its back-off: something breaks only check-ins. Nothing does so
        // if not even a connection is possible: the server is gone once more.
        let is_gone = matches!(error, CallError::Transport(TransportError::Connect { .. }));
        let was_found = std::mem::take(&mut self.recovery.was_found);
        if !is_silent || was_found && !is_gone {
            return;
        }
        let (client, entropy) = (self.client.clone(), self.deps.entropy.clone());
        self.recovery.probes = Some(Box::pin(async move {
            loop {
                tokio::time::sleep(backoff::between(&*entropy, EVERY[0], EVERY[1])).await;
                if client.probe_any(PROBE).await.is_ok() {
                    return;
                }
            }
        }));
    }

    /// Checks in soon, because a server responds again.
    pub(super) fn recovered(&mut self) {
        tracing::debug!("the server responds again");
        self.recovery.was_found = true;
        let soon = Instant::now() + backoff::between(&*self.deps.entropy, Duration::ZERO, SPREAD);
        (self.next_poll, self.next_acks) = (self.next_poll.min(soon), self.next_acks.min(soon));
    }
}
