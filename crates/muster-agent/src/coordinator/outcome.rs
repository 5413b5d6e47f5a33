//! Handles events.

use std::time::Duration;

use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use muster_core::error_chain::chain;

use super::poll_length::{Broken, HELD_AFTER};
use super::recovery::{self, Recovery};
use super::trial::Route;
use super::{Background, Command, Coordinator, Done, Ending, Event, Finished, Poll, intake};
use crate::backoff;
use crate::fleet::CallError;
use crate::fleet::check_in::Reply;
use crate::net::TransportError;
use crate::policy::{self, Accepted};
use crate::protection::Protection;
use crate::state::{Action, Enrollment, PendingAck, Phase, State};

/// Maximum random addition to the delay after a poll was cut. A load balancer that restarts cuts all polls at the same
/// time.
const SPREAD_AFTER_CUT: Duration = Duration::from_secs(10);

impl Coordinator {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Polled(poll) => self.poll_ended(poll),
            Event::Acknowledged(sent, Ok(items)) => self.acknowledged(&sent, &items),
            Event::Acknowledged(_, Err(error)) => self.acks_failed(&error),
            Event::Worked(done) => self.worked(done),
            Event::BackgroundDone(done) => self.background_done(done),
            Event::Upgraded(outcome) => {
                if let Some(outcome) = outcome {
                    self.upgraded(outcome);
                }
            }
            Event::Recovered => self.recovered(),
            Event::Joined(action, outcome) => self.joined(&action, *outcome),
            // It only wakes the loop, which looks for news itself.
            Event::ComponentsChanged => {}
            Event::VariablesChanged => self.components.schedule(Instant::now()),
            Event::Tick => {
                // A held check-in with the report of a roll-back has told the server.
                if self.is_held() && self.trial.is_none() {
                    self.rollback_reported();
                }
                // The state could not be stored: tried again until it can.
                if self.storage_fault.is_some() {
                    self.persist();
                }
            }
            Event::Command(command) => self.command(command),
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Status(reply) => {
                // The command that asked may have been interrupted.
                let _ = reply.send(self.snapshot());
            }
            Command::Watch(states) => self.watchers.add(states),
            Command::Unenroll(reply) => match self.source.refuses_unenrollment() {
                Some(reason) => drop(reply.send(Some(reason))),
                None => self.leaving = Some((Ending::Unenrolled, Some(reply))),
            },
            Command::Upgrade(request, reply) => {
                let refused = self.source.refuses_upgrade(&request);
                let _ = reply.send(refused.or_else(|| self.begin_upgrade(None, request).err()));
            }
            Command::UpgradeKept => self.end_upgrade(),
            Command::Diagnostics(reply) => {
                let bundle = self.bundle();
                // Beside the loop, which never waits for a component.
                tokio::spawn(async move { reply.send(bundle.await.unwrap_or_default()) });
            }
            Command::Restart => self.leaving = Some((Ending::Restart, None)),
            Command::Reload => self.leaving = Some((Ending::Reload, None)),
            Command::Stop => self.leaving = Some((Ending::Stopped, None)),
        }
    }

    fn poll_ended(&mut self, poll: Poll) {
        let held = self.reached.held().unwrap_or_default();
        self.learn_of_cut(&poll);
        match poll {
            Poll::Answered(reply) => {
                self.poll_length.ended_well(held);
                self.polled(reply);
            }
            // Also if it was held before it was cut: on trial, only a response counts.
            Poll::Failed(error) if self.failed_on_trial(&error) => return,
            Poll::GivenUp => {
                self.poll_length.ended_well(held);
                self.held_to_the_end(held, self.deps.settings.checkin.jitter);
            }
            Poll::Failed(error) => match self.broken(&error, held) {
                Broken::Failure => self.poll_failed(&error),
                Broken::Cut => {
                    // The server was asked to respond earlier: either its response was lost, or it is stuck.
                    if matches!(error, CallError::Transport(TransportError::Timeout(_))) {
                        self.is_unanswered = true;
                        self.silent_since.get_or_insert_with(Instant::now);
                        self.fleet_message = Err(chain(&error).to_string());
                    }
                    tracing::debug!(error = %chain(&error), ?held, "the connection closed during a held check-in");
                    self.held_to_the_end(held, (held / 10).min(SPREAD_AFTER_CUT));
                }
            },
        }
        self.fall_back_if_due();
        // Stored, so that a restarted agent need not find out the limit again.
        if self.state.poll_limit != self.poll_length.limit() {
            self.state.poll_limit = self.poll_length.limit();
            self.persist();
        }
    }

    /// Finds out by the poll after a cut whether a device on the network path cuts polls, or the server is gone.
    fn learn_of_cut(&mut self, poll: &Poll) {
        match poll {
            Poll::Failed(CallError::Transport(TransportError::Connect { .. })) => self.poll_length.unreachable(),
            // A gateway that responds at once has no server behind it. One that responds after a while has cut this poll.
            Poll::Failed(error) if recovery::is_of_gateway(error) && self.was_brief() => self.poll_length.unreachable(),
            _ if self.reached.held().is_some() => {
                if let Some(limit) = self.poll_length.reached() {
                    tracing::warn!(
                        ?limit,
                        "a device between this agent and its server closes idle connections; using shorter polls"
                    );
                }
            }
            _ => {}
        }
    }

    fn was_brief(&self) -> bool {
        self.reached.held().is_none_or(|held| held < HELD_AFTER)
    }

    /// Returns whether the server failed, or a device on the network path cut a poll that the server held.
    fn broken(&mut self, error: &CallError, held: Duration) -> Broken {
        match error {
            CallError::Transport(TransportError::Broken(_)) => self.poll_length.broke(held, Instant::now()),
            CallError::Transport(TransportError::Timeout(waited)) => self.poll_length.lost(*waited, Instant::now()),
            // Responses of a proxy when its own timeout expires.
            CallError::Status { status: 408 | 502 | 504, .. } => self.poll_length.broke(held, Instant::now()),
            _ => Broken::Failure,
        }
    }

    /// Handles a poll that a server held until it was cut or given up. The connection works, although there was no
    /// response.
    fn held_to_the_end(&mut self, held: Duration, spread: Duration) {
        self.poll_backoff.reset();
        // After a check-in that was lost, only a response proves that the connection works.
        if !self.is_unanswered {
            self.silent_since = None;
            self.rollback_reported();
            self.last_check_in = Some(self.deps.clock.now());
            self.fleet_message = Ok("Connected".into());
        }
        let checkin = &self.deps.settings.checkin;
        let wait =
            backoff::between(&*self.deps.entropy, checkin.interval, checkin.interval + spread.max(checkin.jitter));
        tracing::trace!(?held, ?wait, "polling again");
        self.next_poll = Instant::now() + wait;
        if self.state.phase == Phase::Revoked {
            self.poll_rarely();
        }
    }

    /// Schedules the next poll of a revoked agent, about an hour from now.
    fn poll_rarely(&mut self) {
        let rarely = self.deps.settings.revocation.poll;
        self.next_poll = Instant::now() + backoff::between(&*self.deps.entropy, rarely, rarely + rarely / 10);
    }

    /// Handles a response, which is stored before any action runs and before its ack token is sent.
    fn polled(&mut self, mut reply: Reply) {
        self.connected(&reply);
        self.accept_route();
        self.rollback_reported();
        let mut next = self.state.clone();
        if next.phase == Phase::Revoked {
            tracing::info!("access restored by the server");
            next.phase = Phase::Active;
        }
        let returned = next.phase != self.state.phase;
        // The key that was pinned when the action arrived: a policy in the same response may rotate it.
        for action in reply.actions.iter_mut().filter(|action| action.signed.is_some()) {
            action.pinned_key.clone_from(&self.enrollment.signing_key);
        }
        let taken = intake::take_in(&mut next, reply, &self.background.ids, self.deps.clock.now());
        if taken.changed || returned {
            if let Err(error) = self.deps.store.save_state(&next) {
                tracing::error!(error = %chain(&error), "failed to store a response; the server will send it again");
                self.storage_fault = Some(chain(&error).to_string());
                // The token is not sent, so that the server delivers the same actions again until they can be stored.
                self.poll_backoff.reset();
                self.next_poll = Instant::now() + self.storage_backoff.next(&*self.deps.entropy);
                return;
            }
            self.storage_fault = None;
            self.storage_backoff.reset();
            self.state = next;
        }
        self.poll_backoff.reset();
        let checkin = &self.deps.settings.checkin;
        let mut wait = backoff::between(&*self.deps.entropy, checkin.interval, checkin.interval + checkin.jitter);
        // Until the agent runs its policy, the server responds immediately. The delay prevents a busy loop.
        if taken.repeated {
            wait = wait.max(self.policy_backoff.next(&*self.deps.entropy));
        } else {
            self.policy_backoff.reset();
        }
        self.next_poll = Instant::now() + wait;
    }

    fn connected(&mut self, reply: &Reply) {
        self.refusals.reset();
        self.recovery = Recovery::default();
        (self.silent_since, self.is_unanswered) = (None, false);
        self.last_check_in = Some(self.deps.clock.now());
        self.fleet_message = match &reply.warning {
            None => Ok("Connected".into()),
            // The warning comes from the network and is printed on terminals.
            Some(warning) => Err(warning.chars().filter(|c| !c.is_control()).take(300).collect()),
        };
        if let Some(reason) = &reply.unusable {
            tracing::error!(reason, "the policy cannot be read; keeping the last one");
        }
        for action in &reply.malformed {
            tracing::error!(id = action.id, kind = action.kind.as_str(), reason = action.reason, "action skipped");
        }
        tracing::debug!(actions = reply.actions.len(), "checked in");
    }

    fn poll_failed(&mut self, error: &CallError) {
        // A rejection of the access key is a response.
        if !matches!(error, CallError::Refused { .. }) {
            self.silent_since.get_or_insert_with(Instant::now);
        }
        let mut wait = self.poll_backoff.next(&*self.deps.entropy);
        self.fleet_message = Err(chain(error).to_string());
        match error {
            // Already revoked: there is nothing left to delete.
            CallError::Refused { .. } if self.state.phase == Phase::Revoked => {}
            CallError::Refused { .. } => {
                // A single 401 may come from a server that was restored from an old backup. Many over some time mean a
                // revocation.
                if self.refusals.count(Instant::now()) {
                    self.revoke();
                }
                let interval = self.refusals.interval();
                wait = wait.min(backoff::between(&*self.deps.entropy, interval, interval + interval / 4));
            }
            // A missing response proves neither that the key is valid nor that it is revoked.
            CallError::Transport(_) => {}
            _ => self.refusals.reset(),
        }
        // A server that restarts causes one or two failures, which are not errors yet.
        if self.poll_backoff.failures() >= 3 {
            tracing::error!(error = %chain(error), ?wait, failures = self.poll_backoff.failures(), "check-in failed");
        } else {
            tracing::warn!(error = %chain(error), ?wait, "check-in failed");
        }
        self.next_poll = Instant::now() + wait;
        if self.state.phase == Phase::Revoked {
            self.poll_rarely();
        } else {
            self.look_for_recovery(error);
        }
    }

    /// Handles a permanent revocation: deletes policy and secrets, keeps the identity.
    fn revoke(&mut self) {
        tracing::error!("access revoked: stopping components, deleting the policy, polling hourly");
        self.state = State::without_policy(Phase::Revoked);
        // Dropped, and thereby cancelled: nothing that the policy began may go on.
        (self.background, self.work) = (Background::default(), None);
        (self.upgrading, self.migrating) = (None, None);
        // The state is stored first: if the agent is killed now, it does not start the components again.
        self.persist();
        let mut unprotected = self.enrollment.clone();
        Protection::Off.keep_in(&mut unprotected);
        self.save_enrollment(unprotected);
        self.components.clear(&self.deps);
    }

    fn background_done(&mut self, done: Result<(Id, Finished), JoinError>) {
        let (task, finished) = match done {
            Ok((task, finished)) => (task, Some(finished)),
            Err(error) => (error.id(), None),
        };
        let Some(action) = self.background.ended(task) else { return };
        let ack = match finished {
            Some(Finished::Proxied(taken)) => return self.proxied(&action, taken),
            Some(Finished::Done(ack)) => *ack,
            // A fault of the agent's own must not leave the action queued forever.
            None => PendingAck::of(&action, self.deps.clock.now(), Err("the action failed inside the agent".into())),
        };
        self.state.handled(ack);
        self.persist();
    }

    fn worked(&mut self, done: Done) {
        match done {
            Done::Applied(accepted, route) => self.applied(*accepted, route),
            Done::Elected(route) => self.use_route(route.map(Some), None),
            // The policy is applied next.
            Done::Prepared => {}
            Done::Stopped => self.next_acks = Instant::now(),
            Done::Told => self.moved(),
        }
    }

    fn applied(&mut self, accepted: Accepted, route: Result<Option<Route>, String>) {
        // A newer policy may have arrived in the meantime. It stays the candidate, and is applied next.
        let is_this = |candidate: &mut Action| {
            let raw = policy::raw(candidate).ok();
            raw.is_some_and(|raw| raw.get() == accepted.stored.policy.get())
                && candidate.id == accepted.stored.action_id
        };
        let _ = self.state.candidate.take_if(is_this);
        let stored = accepted.stored;
        tracing::info!(policy = stored.id, revision = stored.revision, "policy applied");
        let action_id = stored.action_id.clone();
        let before = self.state.policy.take().map(|policy| (policy.id, policy.revision));
        let before = before.filter(|(id, revision)| (id, *revision) != (&stored.id, stored.revision));
        self.policy_log_level = accepted.log_level;
        self.state.policy = Some(stored);
        self.state.rejected = None;
        self.state.owe(PendingAck::of_policy(&action_id, self.deps.clock.now()));
        self.set_log_level();
        self.persist();
        self.pin(accepted.signing_key, route, before);
    }

    /// Pins the signing key of a policy.
    pub(super) fn pin_key(&mut self, signing_key: Option<String>) {
        let mut next = self.enrollment.clone();
        rotate_key(&mut next, signing_key);
        self.save_enrollment(next);
    }

    /// Stores the signing key and the protection of a policy, and tries its route.
    fn pin(
        &mut self,
        signing_key: Option<String>,
        route: Result<Option<Route>, String>,
        before: Option<(String, i64)>,
    ) {
        let mut next = self.enrollment.clone();
        rotate_key(&mut next, signing_key);
        let policy = self.state.policy.as_ref();
        policy.map_or(Protection::Off, |stored| Protection::of(&stored.policy)).keep_in(&mut next);
        self.use_route(route, before);
        self.save_enrollment(next);
    }

    pub(super) fn save_enrollment(&mut self, next: Enrollment) {
        if next == self.enrollment {
            return;
        }
        if let Err(error) = self.deps.store.save_enrollment(&next) {
            self.storage_fault = Some(chain(&error).to_string());
        }
        self.enrollment = next;
        // Some components get the connection settings, too.
        self.components.schedule(Instant::now());
    }

    pub(super) fn persist(&mut self) {
        let saved = self.deps.store.save_state(&self.state);
        self.storage_fault = saved.err().map(|error| chain(&error).to_string());
        if let Some(error) = &self.storage_fault {
            tracing::error!(error, "failed to store the state; retrying");
        }
    }
}

/// Replaces the pinned key with `key`. A policy without a key does not unpin the current one, because that would bypass
/// the signature.
fn rotate_key(enrollment: &mut Enrollment, key: Option<String>) {
    if key.is_some() && key != enrollment.signing_key {
        enrollment.previous_signing_key = std::mem::replace(&mut enrollment.signing_key, key);
    }
}
