//! A trial of the servers of a policy and of the way in which it reaches them. If they do not accept check-ins, the agent
//! returns to the previous ones: a policy must not cut it off from its fleet (AG110).

use std::sync::Arc;
use std::time::Duration;

use muster_core::error_chain::chain;
use tokio::time::Instant;

use super::{Coordinator, PROBE};
use crate::fleet::{CallError, FleetClient};
use crate::net::{Server, Transport};
use crate::policy::Accepted;
use crate::state::enrollment::Overrides;

/// Time after which a check-in that fails ends the trial. A server that rejects the access key ends it at once.
const LIMIT: Duration = Duration::from_secs(60);
/// Delay of the next check-in during a trial.
const RETRY: Duration = Duration::from_secs(5);
/// Interval at which a check-in in progress is examined.
pub(super) const EXAMINE: Duration = Duration::from_millis(500);

/// The servers of a policy, and the way to reach them.
pub(super) struct Route {
    servers: Vec<Server>,
    overrides: Option<Overrides>,
    transport: Arc<dyn Transport>,
}

/// A trial of a route.
pub(super) struct Trial {
    route: Route,
    /// The way back.
    previous: Arc<dyn Transport>,
    until: Instant,
}

impl Route {
    /// Returns the route if one of its servers responds, over a new connection. A policy with a wrong address or a wrong
    /// proxy must not disconnect the agent.
    pub(super) async fn elect(self, client: &FleetClient) -> Result<Self, String> {
        let mut why = String::new();
        for server in &self.servers {
            match client.probe_through(&*self.transport, server, PROBE).await {
                Ok(()) => return Ok(self),
                Err(error) => why = format!("{server}: {}", chain(&error)),
            }
        }
        Err(format!("none of the policy's servers responds; keeping the current connection ({why})"))
    }
}

impl Coordinator {
    /// Returns the route of a policy, unless it is the current one. The error is for people.
    pub(super) fn route_of(&self, accepted: &Accepted) -> Result<Option<Route>, String> {
        // The server of this host is always reached in the same way (AG102).
        if self.enrollment.local_server {
            return Ok(None);
        }
        let unusable = |reason: String| {
            format!("the policy's connection settings are unusable; keeping the current ones ({reason})")
        };
        let overrides = accepted.overrides.clone().map_err(|error| unusable(error.to_string()))?;
        let overrides = Some(overrides).filter(|overrides| *overrides != Overrides::default());
        let current: Vec<Server> = self.enrollment.servers.iter().filter_map(|url| Server::parse(url).ok()).collect();
        // A policy must not switch the agent from TLS to plain HTTP.
        let insecure = self.enrollment.trust.insecure;
        let usable = |server: &&Server| server.tls || (insecure && server.is_loopback());
        let named: Vec<Server> = accepted.servers.iter().filter(usable).cloned().collect();
        let servers = if named.is_empty() { current.clone() } else { named };
        let is_same_way = overrides == self.enrollment.overrides;
        if is_same_way && servers == current {
            return Ok(None);
        }
        let transport = if is_same_way {
            self.stored_transport()
        } else {
            let trust = overrides.clone().unwrap_or_default().applied_to(&self.enrollment.trust);
            (self.deps.connect)(&trust).map_err(unusable)?
        };
        Ok(Some(Route { servers, overrides, transport }))
    }

    /// Returns the connections to the stored servers, also during a trial.
    fn stored_transport(&self) -> Arc<dyn Transport> {
        self.trial.as_ref().map_or_else(|| self.client.transport(), |trial| trial.previous.clone())
    }

    /// Uses another route from the next check-in on. It is stored when the trial has succeeded, so that a crash ends it.
    pub(super) fn try_route(&mut self, route: Route) {
        self.abandon_trial();
        let now = Instant::now();
        let previous = self.client.transport();
        self.client.set_route(route.transport.clone(), route.servers.clone());
        // The check-in in progress is held by a previous server.
        (self.poll, self.next_poll) = (None, now);
        // The limit belongs to the path to the previous servers.
        self.poll_length.forget(now);
        self.state.poll_limit = None;
        self.servers_message = None;
        self.trial = Some(Trial { route, previous, until: now + LIMIT });
    }

    /// Returns to the servers that are stored, and to the way in which they are reached.
    pub(super) fn abandon_trial(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        let stored = self.enrollment.servers.iter().filter_map(|url| Server::parse(url).ok()).collect();
        self.client.set_route(trial.previous, stored);
    }

    /// Stores the route on trial, if one of its servers has responded to a check-in or holds it.
    pub(super) fn accept_route(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        let mut next = self.enrollment.clone();
        next.servers = trial.route.servers.iter().map(ToString::to_string).collect();
        next.overrides = trial.route.overrides;
        tracing::info!(servers = next.servers.join(","), "using the servers and the connection settings of the policy");
        self.save_enrollment(next);
    }

    /// Handles a check-in that is held: a server has accepted it, with what it reports.
    pub(super) fn examine_poll(&mut self) {
        if self.is_held() {
            self.accept_route();
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
            self.abandon_trial();
            let error = chain(error).to_string();
            tracing::error!(error, "the servers of the policy do not accept check-ins; returning to the previous ones");
            self.servers_message =
                Some(format!("the policy's servers do not accept this agent; keeping the current ones ({error})"));
        }
        true
    }
}
