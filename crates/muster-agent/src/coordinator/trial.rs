//! Servers that a policy names are on trial until a check-in with one of them succeeds. If none does, the agent returns to
//! its previous servers: a policy must not cut it off from its fleet.

use std::time::Duration;

use tokio::time::Instant;

use super::Coordinator;
use crate::fleet::CallError;
use crate::net::Server;

/// Time after which a check-in that fails ends the trial. A server that rejects the access key ends it at once.
const LIMIT: Duration = Duration::from_secs(60);
/// Delay of the next check-in during a trial.
const RETRY: Duration = Duration::from_secs(5);
/// Interval at which a check-in in progress is examined.
pub(super) const EXAMINE: Duration = Duration::from_millis(500);

/// A trial of new servers.
pub(super) struct Trial {
    servers: Vec<Server>,
    until: Instant,
}

impl Coordinator {
    /// Uses other servers from the next check-in on. They are stored when the trial has succeeded, so that a crash ends it.
    pub(super) fn try_servers(&mut self, servers: Vec<Server>) {
        let now = Instant::now();
        self.client.set_servers(servers.clone());
        // The check-in in progress is held by a previous server.
        (self.poll, self.next_poll) = (None, now);
        // The limit belongs to the path to the previous servers.
        self.poll_length.forget(now);
        self.state.poll_limit = None;
        self.servers_message = None;
        self.trial = Some(Trial { servers, until: now + LIMIT });
    }

    /// Stores the servers on trial, if one of them has responded to a check-in or holds it.
    pub(super) fn accept_servers(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        let mut next = self.enrollment.clone();
        next.servers = trial.servers.iter().map(ToString::to_string).collect();
        tracing::info!(servers = next.servers.join(","), "using the servers of the policy");
        self.save_enrollment(next);
    }

    /// Handles a check-in that is held: a server has accepted it, with what it reports.
    pub(super) fn examine_poll(&mut self) {
        if self.is_held() {
            self.accept_servers();
            self.rollback_reported();
        }
    }

    /// Handles a failed check-in during a trial; returns false if there is none. Such a failure says nothing about the
    /// access key, because the servers may belong to another fleet.
    pub(super) fn failed_on_trial(&mut self, error: &CallError) -> bool {
        let Some(trial) = &self.trial else { return false };
        let is_over = matches!(error, CallError::Refused { .. }) || Instant::now() >= trial.until;
        self.next_poll = Instant::now() + RETRY;
        if is_over {
            self.trial = None;
            let previous = self.enrollment.servers.iter().filter_map(|url| Server::parse(url).ok()).collect();
            self.client.set_servers(previous);
            let error = muster_core::error_chain::chain(error).to_string();
            tracing::error!(error, "the servers of the policy do not accept check-ins; returning to the previous ones");
            self.servers_message =
                Some(format!("the policy's servers do not accept this agent; keeping the current ones ({error})"));
        }
        true
    }
}
