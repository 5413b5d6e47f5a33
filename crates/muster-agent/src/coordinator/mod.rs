//! The coordinator is a loop that owns all state. After every event, it asks the planner for the next step and starts
//! it.
//!
//! Everything that takes time runs in slots, with at most one future of each kind: a check-in, a delivery of acks, and a
//! task (choosing the servers of a policy, unenrolling). Long actions run in the background. Only the loop changes the
//! state, so that no locks are needed.
//!
//! Components have reconcilers of their own ([`crate::components`]). The loop hands them the wanted model, and never
//! waits for them, so that nothing that a component does can delay a check-in.

mod acks;
pub mod actions;
mod background;
mod deps;
mod events;
pub mod intake;
pub mod leave;
mod lower;
pub mod migrate;
mod outcome;
pub mod planner;
pub mod poll_length;
mod proxied;
pub mod quiet;
mod recovery;
pub mod refusal;
pub mod report;
mod source;
mod start;
mod trial;
mod upgrade;
mod view;
mod wanted;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_core::Timestamp;
use muster_core::error_chain::chain;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use deps::{Deps, LogLevel};

use crate::backoff::{self, Backoff};
use crate::fleet::FleetClient;
use crate::net::{Reached, Server};
use crate::state::{Action, Enrollment, State, StoreError};
use crate::upgrade::Request;
use background::{Background, Finished};
use events::{Delivery, Done, Event, Joining, Poll, Slot, joined, settle};
use planner::{Situation, Step};
use poll_length::PollLength;
use quiet::QUIET;
use recovery::Recovery;
use refusal::Refusals;
use report::Snapshot;
use source::Source;
use trial::Trial;
use upgrade::{Upgrading, upgrade_event};
use wanted::Wanted;
use watch::Watchers;

/// Maximum delay of the first check-in after the start. It spreads agents that start at the same moment, and is short: hosts
/// boot at different times, and servers spread upgrades.
const FIRST_CHECK_IN: Duration = Duration::from_millis(50);
/// Maximum time for a new server to respond to a probe.
const PROBE: Duration = Duration::from_secs(15);
/// Interval at which a check-in that reports a roll-back is examined.
const EXAMINE: Duration = Duration::from_millis(500);
/// Interval at which the state is compared while somebody watches it.
const WATCHED: Duration = Duration::from_secs(1);
/// Time between attempts to store a state that could not be stored.
const SAVE_AGAIN: Duration = Duration::from_secs(30);
/// Minimum and maximum time between two responses that cannot be stored. The server is healthy, and a disk is often full for
/// minutes only: much shorter than the back-off of failed check-ins.
const STORE_AGAIN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(30));

/// Commands of the control socket and of signals.
#[derive(Debug)]
pub enum Command {
    /// Return the status.
    Status(oneshot::Sender<Snapshot>),
    /// Send the status now, and whenever it changes (AG51).
    Watch(mpsc::Sender<Snapshot>),
    /// Unenroll. The response contains the part that failed, if any.
    Unenroll(oneshot::Sender<Option<String>>),
    /// Reload the enrollment, which has changed on disk.
    Reload,
    /// Upgrade to another version. The response contains the reason of a refusal, if any.
    Upgrade(Request, oneshot::Sender<Option<String>>),
    /// The watcher has accepted the new version.
    UpgradeKept,
    /// Return a diagnostics bundle.
    Diagnostics(oneshot::Sender<Bytes>),
    /// Stop components, and start the program anew.
    Restart,
    /// Stop components and exit; the state is kept.
    Stop,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was stopped.
    Stopped,
    /// The agent is unenrolled.
    Unenrolled,
    /// The enrollment must be reloaded.
    Reload,
    /// The active version of the program must be started in this process.
    Restart,
    /// The service must be started as another user.
    Unprivileged,
}

/// The loop and its state.
pub struct Coordinator {
    deps: Deps,
    /// Where the policy comes from. Only this knows whether there is a fleet.
    source: Source,
    client: Arc<FleetClient>,
    enrollment: Enrollment,
    state: State,
    poll: Slot<Poll>,
    acks: Slot<Delivery>,
    work: Slot<Done>,
    background: Background,
    upgrading: Option<Upgrading>,
    migrating: Option<(Action, Joining)>,
    next_poll: Instant,
    next_acks: Instant,
    /// When the delivery of acks in progress began.
    acks_begun: Instant,
    /// Why the last delivery of acks failed.
    acks_fault: Option<String>,
    last_poll: Instant,
    last_diagnostics: Option<Instant>,
    poll_backoff: Backoff,
    ack_backoff: Backoff,
    policy_backoff: Backoff,
    storage_backoff: Backoff,
    refusals: Refusals,
    /// Summary of what the check-in in progress reports. If the current summary differs, the check-in is outdated.
    reported: String,
    /// When a server received the check-in in progress.
    reached: Reached,
    poll_length: PollLength,
    recovery: Recovery,
    fleet_message: Result<String, String>,
    servers_message: Option<String>,
    trial: Option<Trial>,
    /// Since when check-ins over the stored route have failed or were lost.
    silent_since: Option<Instant>,
    /// Whether a check-in was lost without a response or an error, and none was answered since.
    is_unanswered: bool,
    last_check_in: Option<Timestamp>,
    started_at: Timestamp,
    storage_fault: Option<String>,
    /// Whether the stored state was corrupt at the start (AG50).
    lost_state: bool,
    policy_log_level: Option<String>,
    components: Wanted,
    /// When memory is given back, if no work is done until then.
    release_at: Option<Instant>,
    /// The policy whose variables were waited for.
    prepared: Option<String>,
    leaving: Option<(Ending, Option<oneshot::Sender<Option<String>>>)>,
    watchers: Watchers,
}

impl Coordinator {
    /// Creates a coordinator with the stored state. If the state is corrupt, renames it and starts without state.
    pub fn new(deps: Deps, enrollment: Enrollment) -> Result<Self, StoreError> {
        // A corrupt state must not prevent the agent from running, because the server can send all of it again.
        let (state, lost_state) = match deps.store.state() {
            Ok(state) => (state, false),
            Err(error @ StoreError::Damaged { .. }) => {
                let aside = deps.store.set_state_aside()?;
                tracing::error!(error = %chain(&error), aside, "starting without state; the server will send the policy again");
                (State::default(), true)
            }
            Err(error) => return Err(error),
        };
        // A URL that cannot be parsed must not make the other servers unusable.
        let servers = enrollment.servers.iter().filter_map(|url| Server::parse(url).ok()).collect();
        let key = enrollment.access_api_key.clone();
        let client = Arc::new(FleetClient::new(deps.transport.clone(), servers, key, deps.entropy.clone()));
        let source = Source::new(&client, deps.policy_file.clone());
        let (checkin, ack) = (&deps.settings.checkin, &deps.settings.ack);
        let now = Instant::now();
        let poll_length = PollLength::new(state.poll_limit, now);
        let minute = Duration::from_secs(60);
        Ok(Self {
            source,
            client,
            enrollment,
            state,
            poll: None,
            acks: None,
            work: None,
            background: Background::default(),
            upgrading: None,
            migrating: None,
            next_poll: now + backoff::between(&*deps.entropy, Duration::ZERO, FIRST_CHECK_IN),
            next_acks: now,
            acks_begun: now,
            acks_fault: None,
            last_poll: now,
            last_diagnostics: None,
            poll_backoff: Backoff::new(checkin.request_backoff_init, checkin.request_backoff_max),
            ack_backoff: Backoff::new(ack.backoff_init, ack.backoff_max),
            policy_backoff: Backoff::new(Duration::from_secs(5), minute * 5),
            storage_backoff: Backoff::new(STORE_AGAIN.0, STORE_AGAIN.1),
            refusals: Refusals::new(&deps.settings.revocation),
            reported: String::new(),
            reached: Reached::default(),
            poll_length,
            recovery: Recovery::default(),
            fleet_message: Ok("Connecting".into()),
            servers_message: None,
            trial: None,
            silent_since: None,
            is_unanswered: false,
            last_check_in: None,
            started_at: deps.clock.now(),
            storage_fault: None,
            lost_state,
            policy_log_level: None,
            components: Wanted::default(),
            release_at: Some(now + QUIET),
            prepared: None,
            leaving: None,
            watchers: Watchers::default(),
            deps,
        })
    }

    /// Runs until the agent is stopped or unenrolled.
    pub async fn run(mut self, commands: &mut mpsc::Receiver<Command>) -> Ending {
        // In this order: a migration that is over leaves no state, and the result of an upgrade acknowledges its
        // action before the queue is replayed.
        self.complete_migration();
        self.resume_upgrade();
        self.replay();
        // `replay` runs the stored policy without waiting for a server, which may be unreachable.
        loop {
            // Steps are started until the planner returns none. Each start changes the situation.
            while self.leaving.is_none()
                && let Some(step) = planner::plan(&self.situation())
            {
                self.start(step);
            }
            if let Some((ending, reply)) = self.leaving.take() {
                return self.leave(ending, reply).await;
            }
            self.tell_watchers();
            let event = self.next_event(commands).await;
            self.watch_for_quiet(&event);
            self.handle(event);
        }
    }

    fn situation(&self) -> Situation<'_> {
        let now = Instant::now();
        Situation {
            state: &self.state,
            now: self.deps.clock.now(),
            working: self.work.is_some(),
            background: &self.background.ids,
            polling: self.poll.is_some(),
            rebuild_due: self.components.is_due(now),
            poll_due: self.next_poll <= now,
            stale: self.is_stale(now),
            acking: self.acks.is_some(),
            acks_late: self.acks_late_at().is_some_and(|late| late <= now),
            // The route on trial must prove itself first, and the server must not know yet that the policy is applied.
            acks_due: self.next_acks <= now && self.trial.is_none(),
        }
    }

    async fn next_event(&mut self, commands: &mut mpsc::Receiver<Command>) -> Event {
        // Computed before the select, which borrows the slots mutably.
        let wake = self.wake_at();
        let (components, variables) = (self.deps.components.clone(), self.deps.variables.clone());
        tokio::select! {
            // In order of importance: commands first, check-ins last.
            biased;
            command = commands.recv() => Event::Command(command.unwrap_or(Command::Stop)),
            done = settle(&mut self.work) => Event::Worked(done),
            Some(done) = self.background.tasks.join_next_with_id() => Event::BackgroundDone(done),
            (action, joined) = joined(&mut self.migrating) => Event::Joined(action, Box::new(joined)),
            outcome = upgrade_event(&mut self.upgrading) => Event::Upgraded(outcome),
            (sent, outcome) = settle(&mut self.acks) => Event::Acknowledged(sent, outcome),
            outcome = settle(&mut self.poll) => Event::Polled(outcome),
            () = settle(&mut self.recovery.probes) => Event::Recovered,
            () = components.changed() => Event::ComponentsChanged,
            () = variables.changed() => Event::VariablesChanged,
            () = tokio::time::sleep_until(wake) => Event::Tick,
        }
    }

    /// Returns when the next step becomes due without an event.
    fn wake_at(&self) -> Instant {
        let (now, clock) = (Instant::now(), self.deps.clock.now());
        // Wake up at least hourly, in case a change of the wall clock has skipped the start time of an action.
        let mut wake = now + Duration::from_secs(3600);
        if self.storage_fault.is_some() {
            wake = wake.min(now + SAVE_AGAIN);
        }
        if self.acks.is_none() && self.trial.is_none() && !self.state.outbox.is_empty() {
            wake = wake.min(self.next_acks);
        }
        // No check-in starts while acks are being delivered, for a limited time (`planner`).
        if self.poll.is_none() {
            wake = wake.min(self.acks_late_at().map_or(self.next_poll, |late| self.next_poll.max(late)));
        } else if self.news() {
            wake = wake.min(self.last_poll + self.deps.settings.checkin.state_change_gap);
        }
        if self.poll.is_some() && self.reports_rollback() {
            wake = wake.min(now + EXAMINE);
        }
        // Some states change by time alone, such as that of a check-in that begins to be held.
        if !self.watchers.is_empty() {
            wake = wake.min(now + WATCHED);
        }
        for due in self.components.due().into_iter().chain(self.release_at) {
            wake = wake.min(due);
        }
        // No action starts while a policy is being applied.
        let start = planner::next_start(&self.state, clock).filter(|_| self.work.is_none());
        let start = start.map(|at| now + at.since(clock));
        // Never immediately: a step that cannot start yet would otherwise cause a busy loop.
        start.map_or(wake, |start| wake.min(start)).max(now + Duration::from_millis(1))
    }
}
