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
use crate::state::Phase;
use crate::state::enrollment::{Overrides, StoredRoute};

/// Maximum duration of a trial. A server that rejects the access key ends it at once.
const LIMIT: Duration = Duration::from_secs(60);
/// Maximum time for the response to a check-in on trial. A server that works responds at once, because the check-in
/// reports a revision that is not the agent's target.
const ANSWER: Duration = Duration::from_secs(20);
/// Delay of the next check-in during a trial.
const RETRY: Duration = Duration::from_secs(5);
/// Time without a response over the stored route after which the agent tries the previous route.
const FALL_BACK: Duration = Duration::from_secs(600);

/// The servers of a policy, and the way to reach them.
pub(super) struct Route {
    servers: Vec<Server>,
    overrides: Option<Overrides>,
    transport: Arc<dyn Transport>,
}

/// A trial of a route.
///
/// Only a response to a check-in proves that a route works. A check-in that is merely held proves nothing: a load balancer
/// whose backend is stuck holds it as well, and forever.
pub(super) struct Trial {
    route: Route,
    /// The way back.
    previous: Arc<dyn Transport>,
    until: Instant,
    /// The policy and revision to report: what was in effect before. The server responds at once with the target.
    reported: Option<(String, i64)>,
    /// Whether the route is the previous one, tried because the stored one fails.
    is_fallback: bool,
}

impl Trial {
    /// Returns the policy and revision that check-ins report, so that the server has something to deliver.
    pub(super) fn reported(&self) -> (String, i64) {
        self.reported.clone().unwrap_or_default()
    }

    /// Returns the timeout of a check-in that begins now.
    pub(super) fn timeout(&self, now: Instant) -> Duration {
        // The last one, too, gets enough time to connect.
        self.until.saturating_duration_since(now).clamp(RETRY, ANSWER)
    }
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
        if named.is_empty() && !accepted.servers.is_empty() {
            let servers = self.enrollment.servers.join(", ");
            return Err(format!(
                "the servers of the policy use plain HTTP; keeping the current connection to {servers}"
            ));
        }
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

    /// Tries the route of the policy in effect, or keeps the stored one. `before` is what was in effect previously.
    pub(super) fn use_route(&mut self, route: Result<Option<Route>, String>, before: Option<(String, i64)>) {
        match route {
            // Without check-ins, a trial would never end.
            Ok(Some(_)) if self.state.migration.is_some() => {}
            Ok(Some(route)) => self.try_route(route, before),
            Ok(None) => {
                // This policy returns to the stored route, while that of the previous policy is on trial.
                self.abandon_trial();
                self.servers_message = None;
            }
            Err(why) => {
                self.abandon_trial();
                tracing::warn!(why);
                self.servers_message = Some(why);
            }
        }
    }

    /// Uses another route from the next check-in on. It is stored when the trial has succeeded, so that a crash ends it.
    /// `before` is the policy and revision that were in effect before the policy of this route.
    fn try_route(&mut self, route: Route, before: Option<(String, i64)>) {
        self.begin_trial(route, before, false);
        self.servers_message = None;
    }

    fn begin_trial(&mut self, route: Route, reported: Option<(String, i64)>, is_fallback: bool) {
        self.abandon_trial();
        let now = Instant::now();
        let previous = self.client.transport();
        self.client.set_route(route.transport.clone(), route.servers.clone());
        // The check-in in progress is held by a previous server.
        (self.poll, self.next_poll) = (None, now);
        self.trial = Some(Trial { route, previous, until: now + LIMIT, reported, is_fallback });
    }

    /// Tries the previous route if the stored one has failed for a long time: it worked once, and the policy that
    /// replaced it can be corrected over it.
    pub(super) fn fall_back_if_due(&mut self) {
        let Some(since) = self.silent_since else { return };
        let Some(previous) = self.enrollment.fallback.clone() else { return };
        let due = since + FALL_BACK;
        if self.trial.is_some() || self.state.phase != Phase::Active {
            return;
        }
        if Instant::now() < due {
            // The back-off can be as long as this.
            self.next_poll = self.next_poll.min(due);
            return;
        }
        // Once in this time: if it fails, too, the stored route is the one to wait for.
        self.silent_since = Some(Instant::now());
        let current = self.enrollment.overrides.clone().unwrap_or_default();
        // Authorities that a policy has replaced must not be trusted again because somebody blocks the connection.
        let overrides = previous.overrides.unwrap_or_default().verifying_like(&current);
        match (self.deps.connect)(&overrides.applied_to(&self.enrollment.trust)) {
            Ok(transport) => {
                let servers: Vec<Server> = previous.servers.iter().filter_map(|url| Server::parse(url).ok()).collect();
                tracing::warn!(
                    servers = previous.servers.join(","),
                    "no response for a long time; trying the previous servers and connection settings"
                );
                let overrides = Some(overrides).filter(|overrides| *overrides != Overrides::default());
                self.begin_trial(Route { servers, overrides, transport }, None, true);
            }
            Err(reason) => tracing::error!(reason, "the previous connection settings are unusable"),
        }
    }

    /// Returns to the servers that are stored, and to the way in which they are reached.
    pub(super) fn abandon_trial(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        let stored = self.enrollment.servers.iter().filter_map(|url| Server::parse(url).ok()).collect();
        self.client.set_route(trial.previous, stored);
    }

    /// Stores the route on trial, and the stored one as the way back, because a server has responded to a check-in.
    pub(super) fn accept_route(&mut self) {
        let Some(trial) = self.trial.take() else { return };
        let mut next = self.enrollment.clone();
        let servers = trial.route.servers.iter().map(ToString::to_string).collect();
        let former = StoredRoute {
            servers: std::mem::replace(&mut next.servers, servers),
            overrides: std::mem::replace(&mut next.overrides, trial.route.overrides),
        };
        // The servers of this policy are tried again with the next revision, or when the stored route fails, too.
        self.servers_message = trial
            .is_fallback
            .then(|| format!("the servers {} do not respond; using the previous ones", former.servers.join(", ")));
        next.fallback = Some(former);
        // The limit belongs to the path to the previous servers.
        self.poll_length.forget(Instant::now());
        let servers = next.servers.join(",");
        if trial.is_fallback {
            tracing::warn!(servers, "using the previous servers and connection settings");
        } else {
            tracing::info!(servers, "using the servers and the connection settings of the policy");
        }
        self.save_enrollment(next);
    }

    /// Handles a failed check-in during a trial; returns false if there is none. Such a failure says nothing about the
    /// access key, because the servers may belong to another fleet.
    pub(super) fn failed_on_trial(&mut self, error: &CallError) -> bool {
        let Some(trial) = &self.trial else { return false };
        let now = Instant::now();
        let is_over = matches!(error, CallError::Refused { .. }) || now + RETRY >= trial.until;
        let (is_fallback, error) = (trial.is_fallback, chain(error).to_string());
        if !is_over {
            // One of several servers that works is enough (AG109), also if the first one holds check-ins forever.
            self.client.avoid_current();
            self.next_poll = now + RETRY;
            return true;
        }
        self.abandon_trial();
        self.next_poll = now;
        if is_fallback {
            tracing::warn!(error, "the previous servers do not accept check-ins either");
            return true;
        }
        tracing::error!(error, "the servers of the policy do not accept check-ins; returning to the previous ones");
        self.servers_message =
            Some(format!("the policy's servers do not accept this agent; keeping the current ones ({error})"));
        true
    }
}
