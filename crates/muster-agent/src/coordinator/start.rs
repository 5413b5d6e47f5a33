//! Starts the steps of the plan.

use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::actions::{self, Task};
use super::poll_length::Ask;
use super::trial::Route;
use super::{Background, Coordinator, Done, Ending, Finished, Poll, Step, wanted};
use crate::components::InputAction;
use crate::diagnostics;
use crate::net::Reached;
use crate::policy::{self, Accepted};
use crate::state::{Action, InputResult, Kind, PendingAck, Phase, Rejected, State};
use crate::variables::used::Used;
use muster_core::error_chain::chain;

/// Minimum time between two diagnostics bundles.
const DIAGNOSTICS_EVERY: Duration = Duration::from_secs(60);
/// Maximum time for components to stop before the ack of an UNENROLL is sent.
const STOP_BEFORE_ACK: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Applies the stored policy at startup, even if the server is unreachable.
    pub(super) fn replay(&mut self) {
        let Some(stored) = self.state.policy.as_ref().filter(|_| self.state.phase == Phase::Active) else {
            // After a reload, components of the previous enrollment may be running (AG82).
            self.components.clear(&self.deps);
            self.set_log_level();
            return;
        };
        let (pinned, previous) =
            (self.enrollment.signing_key.as_deref(), self.enrollment.previous_signing_key.as_deref());
        match policy::restore(&stored.policy, pinned, previous) {
            Ok(accepted) => {
                tracing::info!(policy = stored.id, revision = stored.revision, "applying the stored policy");
                let route = self.route_of(&accepted);
                self.policy_log_level = accepted.log_level;
                self.components.set(accepted.document, &self.deps);
                // If the agent was killed between the two writes, it has the policy but not its key.
                self.pin_key(accepted.signing_key);
                self.rebuild();
                self.elect_again(route);
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "stored policy rejected; requesting it from the server again");
                // The next check-in reports no policy, so that the server sends it again.
                self.state.policy = None;
                self.persist();
            }
        }
        self.set_log_level();
    }

    pub(super) fn start(&mut self, step: Step) {
        match step {
            Step::Rebuild => self.rebuild(),
            Step::Apply => self.apply(),
            Step::Run(place) => self.run_action(place),
            Step::Acknowledge => self.acknowledge(),
            Step::CheckIn => self.check_in(),
            Step::Interrupt => {
                self.poll = None;
                self.next_poll = Instant::now();
            }
            Step::Move => self.move_over(),
            Step::Finish => self.leaving = Some((Ending::Unenrolled, None)),
        }
    }

    fn apply(&mut self) {
        let Some(action) = self.state.candidate.clone() else { return };
        let accepted = policy::accept(&action, self.enrollment.signing_key.as_deref());
        if let Ok(accepted) = &accepted
            && self.prepared.as_deref() != Some(action.id.as_str())
            && let Some(used) = self.components.used_with(&accepted.document)
        {
            self.prepared = Some(action.id);
            return self.prepare(&used);
        }
        self.prepared = None;
        let taken = accepted.and_then(|accepted| {
            let around = self.around(accepted.log_level.as_deref());
            let built = wanted::built(&accepted.document, &around, &self.deps)?;
            self.components.replace(&accepted.document, built, &self.deps);
            Ok(accepted)
        });
        match taken {
            Ok(accepted) => self.work = Some(self.application(accepted)),
            Err(rejection) => {
                let (reason, fault) = (rejection.to_string(), rejection.fault());
                tracing::error!(action = action.id, reason, "policy rejected; keeping the last accepted one");
                self.components.observe(&self.deps);
                let digest = policy::raw(&action).map(|raw| policy::digest(&raw)).unwrap_or_default();
                // The rejection is stored, so that the same policy is not evaluated again at every delivery.
                self.state.rejected =
                    Some(Rejected { action_id: action.id.clone(), digest, reason: reason.clone(), fault });
                self.state.candidate = None;
                self.state.owe(PendingAck::of(&action, self.deps.clock.now(), Err(reason)));
                self.persist();
            }
        }
    }

    /// Waits for variables that a policy needs, so that it is not rejected because they are not known yet.
    fn prepare(&mut self, used: &Used) {
        let variables = self.deps.variables.clone();
        variables.observe(used);
        self.work = Some(Box::pin(async move {
            variables.ready().await;
            Done::Prepared
        }));
    }

    fn application(&self, accepted: Accepted) -> std::pin::Pin<Box<dyn Future<Output = Done> + Send>> {
        let (client, components) = (self.client.clone(), self.deps.components.clone());
        let route = self.route_of(&accepted);
        Box::pin(async move {
            components.updated().await;
            // Components first: probing the new servers can take a while.
            let elected = match route {
                Ok(Some(route)) => route.elect(&client).await.map(Some),
                other => other,
            };
            Done::Applied(Box::new(accepted), elected)
        })
    }

    /// Tries the route of the stored policy once more, if it is not in use: a crash may have ended its trial.
    fn elect_again(&mut self, route: Result<Option<Route>, String>) {
        let client = self.client.clone();
        match route {
            Ok(None) => {}
            Ok(Some(route)) => self.work = Some(Box::pin(async move { Done::Elected(route.elect(&client).await) })),
            Err(why) => self.servers_message = Some(why),
        }
    }

    fn run_action(&mut self, place: usize) {
        let Some(action) = self.state.inbox.get(place).cloned() else { return };
        let task = self.read_action(&action);
        tracing::info!(id = action.id, kind = action.kind.as_str(), refused = task.as_ref().err(), "running action");
        if task.is_ok() && self.is_proxied(&action) {
            return self.proxy(action);
        }
        self.carry_out(action, task);
    }

    /// Interprets an action at this time.
    pub(super) fn read_action(&self, action: &Action) -> Result<Task, String> {
        let key = action.pinned_key.as_deref().or(self.enrollment.signing_key.as_deref());
        actions::read(action, &self.enrollment.agent_id, key, self.deps.clock.now())
    }

    /// Carries out an action, or acknowledges it with the reason why it cannot be carried out.
    pub(super) fn carry_out(&mut self, action: Action, task: Result<Task, String>) {
        let now = self.deps.clock.now();
        match task {
            // What returns here acknowledges the action itself, usually when its work has ended.
            Ok(Task::Unenroll) => return self.unenroll(PendingAck::of(&action, now, Ok(()))),
            Ok(Task::Forward(timeout)) => return self.forward(action, timeout),
            Ok(Task::Upgrade(request)) => match self.begin_upgrade(Some(action.clone()), request) {
                Ok(()) => return,
                Err(reason) => self.refuse(&action, reason),
            },
            Ok(Task::Migrate(request)) => match self.begin_migration(action.clone(), request) {
                Ok(()) => return,
                Err(reason) => self.refuse(&action, reason),
            },
            Ok(Task::Lower(wanted)) => match self.begin_lowering(&action.id, wanted) {
                Some(outcome) => self.state.handled(PendingAck::of(&action, now, outcome)),
                None => return,
            },
            Ok(Task::Diagnose) if self.may_diagnose() => return self.diagnose(&action),
            Ok(Task::Diagnose) => {
                let error = "a bundle was requested less than a minute ago, or is being uploaded".into();
                self.state.handled(PendingAck::of(&action, now, Err(error)));
            }
            Ok(Task::LogLevel(level)) => {
                self.state.log_level = level;
                self.set_log_level();
                self.components.schedule(Instant::now());
                self.state.handled(PendingAck::of(&action, now, Ok(())));
            }
            Ok(Task::Nothing) => self.state.handled(PendingAck::of(&action, now, Ok(()))),
            Err(error) => self.refuse(&action, error),
        }
        self.persist();
    }

    fn refuse(&mut self, action: &Action, error: String) {
        if action.kind == Kind::Upgrade {
            self.refuse_upgrade(action, &error);
        }
        self.state.handled(PendingAck::of(action, self.deps.clock.now(), Err(error)));
    }

    /// Forwards an action to a component, in the background (AG116).
    fn forward(&mut self, action: Action, timeout: Duration) {
        let (components, clock) = (self.deps.components.clone(), self.deps.clock.clone());
        let data = action.data.as_deref().map_or("null", RawValue::get);
        let data: Value = serde_json::from_str(data).unwrap_or_default();
        let input_type = action.input_type.clone();
        let params = json!({"id": action.id, "type": action.kind.as_str(), "input_type": input_type,
            "timeout": timeout.as_secs(), "data": data});
        let (started, begun) = (action.clone(), clock.now());
        self.background.start(started, async move {
            let request = InputAction { input_type, params, timeout };
            // A component that accepts the action and then hangs must not keep it forever.
            let limit = tokio::time::timeout(timeout, components.perform(request)).await;
            let outcome = limit.unwrap_or_else(|_| Err("the component did not respond in time".into()));
            let response = outcome.as_ref().ok().cloned();
            let input = InputResult { started_at: begun.to_rfc3339_millis(), data, response };
            let ack = PendingAck::of(&action, clock.now(), outcome.map(|_| ()));
            Finished::Done(Box::new(PendingAck { input: Some(input), ..ack }))
        });
    }

    /// Leaves the fleet because the server wants it. The ack is sent when the components have stopped.
    fn unenroll(&mut self, ack: PendingAck) {
        // Other pending acks are kept: the server still accepts them with this key.
        let mut outbox = std::mem::take(&mut self.state.outbox);
        outbox.push_back(ack);
        self.state = State { outbox, ..State::without_policy(Phase::Unenrolling) };
        (self.poll, self.background) = (None, Background::default());
        (self.upgrading, self.migrating) = (None, None);
        // The last ack goes to servers that are known to work.
        self.abandon_trial();
        self.persist();
        let components = self.deps.components.clone();
        self.components.clear(&self.deps);
        self.work = Some(Box::pin(async move {
            // A component that does not stop must not keep the agent in the fleet.
            let _ = tokio::time::timeout(STOP_BEFORE_ACK, components.settled()).await;
            Done::Stopped
        }));
    }

    fn may_diagnose(&self) -> bool {
        self.last_diagnostics.is_none_or(|last| last.elapsed() >= DIAGNOSTICS_EVERY)
    }

    fn diagnose(&mut self, action: &Action) {
        self.last_diagnostics = Some(Instant::now());
        let bundle = self.bundle();
        let (client, entropy, clock) = (self.client.clone(), self.deps.entropy.clone(), self.deps.clock.clone());
        let (started, action, agent_id) = (action.clone(), action.clone(), self.enrollment.agent_id.clone());
        self.background.start(started, async move {
            let upload = bundle.await.map(|content| diagnostics::upload(&action.id, &agent_id, content, clock.now()));
            let sent = match upload {
                Ok(upload) => client.upload(&upload, &*entropy).await.map_err(|error| chain(&error).to_string()),
                Err(error) => Err(chain(&error).to_string()),
            };
            let data = sent.as_ref().ok().map(|id| json!({ "upload_id": id }));
            Finished::Done(Box::new(PendingAck { data, ..PendingAck::of(&action, clock.now(), sent.map(|_| ())) }))
        });
    }

    /// Returns a diagnostics bundle: of the agent at this moment, and of the components when they have responded.
    pub(super) fn bundle(&self) -> impl Future<Output = std::io::Result<Bytes>> + Send + use<> {
        let (key, log) = (&self.enrollment.access_api_key, self.deps.log_level.tail());
        let mut draft = diagnostics::draft(&self.snapshot(), &self.state, key, &self.metadata(), &log);
        draft.remove_also(self.deps.variables.secrets());
        let components = self.deps.components.clone();
        async move {
            let collected = components.diagnostics().await;
            // Searching megabytes for secrets must not delay the loop.
            let done = tokio::task::spawn_blocking(move || draft.complete(&collected)).await;
            done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
        }
    }

    fn acknowledge(&mut self) {
        let (source, agent_id) = (self.source.clone(), self.enrollment.agent_id.clone());
        // This is a copy, because the outbox may change while the request is in progress.
        let sent: Vec<PendingAck> = self.state.outbox.iter().cloned().collect();
        self.acks_begun = Instant::now();
        self.acks = Some(Box::pin(async move {
            let outcome = source.acknowledge(&agent_id, &sent).await;
            (sent, outcome)
        }));
    }

    fn check_in(&mut self) {
        let (source, agent_id) = (self.source.clone(), self.enrollment.agent_id.clone());
        let report = self.report();
        self.last_poll = Instant::now();
        self.reported = self.gist();
        self.recovery.probes = None;
        let ask = match &self.trial {
            Some(trial) => Ask { poll_timeout: None, give_up: None, timeout: trial.timeout(self.last_poll) },
            None => self.poll_length.ask(self.last_poll),
        };
        let reached = Reached::default();
        self.reached = reached.clone();
        self.poll = Some(Box::pin(async move {
            let request = report.request(ask.poll_timeout);
            let answer = source.check_in(&agent_id, &request, ask.timeout, reached.clone());
            tokio::select! {
                biased;
                answer = answer => answer.map_or_else(Poll::Failed, Poll::Answered),
                // Dropping the request closes its connection. If a response arrives at the same time, nothing is lost:
                // its actions are not acknowledged, so that the server sends them again.
                () = held_for(&reached, ask.give_up) => Poll::GivenUp,
            }
        }));
    }
}

/// Returns when a server has held the request for `limit`; never returns without a limit. The time to connect does not
/// count, because an unreachable server must be a failure.
async fn held_for(reached: &Reached, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        let left = limit.saturating_sub(reached.held().unwrap_or_default());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}
