//! Counters and latencies of a share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::event::{Counts, Event, now_us};
use crate::histogram::Histogram;

/// Counters, latencies, and the channel for events.
pub struct Tally {
    /// Enrolled agents.
    pub enrolled: AtomicU64,
    /// Check-ins without a response yet.
    pub waiting: AtomicU64,
    connects: AtomicU64,
    check_ins: AtomicU64,
    acks: AtomicU64,
    gone: AtomicU64,
    // Events that are rare, or several values that change together, are behind a lock. Counters on the hot path are
    // atomic.
    errors: Mutex<BTreeMap<String, u64>>,
    latencies: Mutex<BTreeMap<&'static str, Histogram>>,
    revisions: Mutex<HashMap<String, Times>>,
    agents: u64,
    events: UnboundedSender<Event>,
}

/// Times at which the agents received and acknowledged a policy revision, in microseconds since 1970.
#[derive(Default)]
struct Times {
    received: Vec<u64>,
    acked: Vec<u64>,
}

impl Tally {
    /// Creates the tally of a share with this number of agents.
    #[must_use]
    pub fn new(agents: u64, events: UnboundedSender<Event>) -> Self {
        Self {
            enrolled: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            check_ins: AtomicU64::new(0),
            acks: AtomicU64::new(0),
            gone: AtomicU64::new(0),
            errors: Mutex::default(),
            latencies: Mutex::default(),
            revisions: Mutex::default(),
            agents,
            events,
        }
    }

    /// Counts a new connection.
    pub fn connected(&self, took: Duration) {
        self.connects.fetch_add(1, Relaxed);
        self.took("connect", took);
    }

    /// Counts an enrollment.
    pub fn enrolled(&self, took: Duration) {
        self.enrolled.fetch_add(1, Relaxed);
        self.took("enroll", took);
    }

    /// Counts a response to a check-in.
    pub fn checked_in(&self, took: Duration) {
        self.check_ins.fetch_add(1, Relaxed);
        self.took("check_in", took);
    }

    /// Counts a response to a request of fleetd.
    pub fn requested(&self, operation: &'static str, took: Duration) {
        self.check_ins.fetch_add(1, Relaxed);
        self.took(operation, took);
    }

    /// Counts acks that the server accepted.
    pub fn acked<'a>(&self, actions: impl Iterator<Item = &'a str>, took: Duration) {
        // Once per request, regardless of the number of acks.
        self.took("ack", took);
        for action in actions {
            self.acks.fetch_add(1, Relaxed);
            if action.starts_with("policy:") {
                self.revision_acked(action);
            }
        }
    }

    /// Records that an agent received a policy revision.
    pub fn received(&self, action_id: &str) {
        lock(&self.revisions).entry(action_id.to_owned()).or_default().received.push(now_us());
    }

    /// Reports an action other than a policy.
    pub fn action(&self, agent_id: &str, action_id: &str, kind: &str) {
        let (agent_id, action_id, kind) = (agent_id.to_owned(), action_id.to_owned(), kind.to_owned());
        self.tell(Event::Action { at_us: now_us(), agent_id, action_id, kind });
    }

    /// Reports that the server rejected the credentials of an agent.
    pub fn rejected(&self, agent_id: &str) {
        self.tell(Event::Rejected { at_us: now_us(), agent_id: agent_id.to_owned() });
    }

    /// Counts an unenrolled agent.
    pub fn left(&self) {
        self.gone.fetch_add(1, Relaxed);
    }

    /// Counts a failure.
    pub fn failed(&self, kind: &str) {
        let mut errors = lock(&self.errors);
        // Names of errors come from the server, so that their number must be limited.
        let known = errors.len() < 64 || errors.contains_key(kind);
        *errors.entry(if known { kind } else { "other" }.to_owned()).or_default() += 1;
    }

    /// Returns the current counters.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            enrolled: self.enrolled.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            connects: self.connects.load(Relaxed),
            check_ins: self.check_ins.load(Relaxed),
            acks: self.acks.load(Relaxed),
            gone: self.gone.load(Relaxed),
            errors: lock(&self.errors).clone(),
        }
    }

    /// Returns the latencies so far.
    #[must_use]
    pub fn latencies(&self) -> BTreeMap<String, Histogram> {
        lock(&self.latencies)
            .iter()
            .map(|(operation, histogram)| ((*operation).to_owned(), histogram.clone()))
            .collect()
    }

    /// Resets the check-ins at the start of the measured part.
    pub fn begin_check_ins(&self) {
        self.check_ins.store(0, Relaxed);
        // Latencies of other operations are kept: they are measured during the setup.
        lock(&self.latencies)
            .retain(|operation, _| matches!(*operation, "connect" | "enroll" | "ack" | "device_token"));
    }

    /// Sends an event. If there is no receiver, the run is ending, and the event is dropped.
    pub fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn took(&self, operation: &'static str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        lock(&self.latencies).entry(operation).or_default().record(micros);
    }

    fn revision_acked(&self, action: &str) {
        let mut revisions = lock(&self.revisions);
        let times = revisions.entry(action.to_owned()).or_default();
        times.acked.push(now_us());
        // The last agent has acknowledged the revision.
        if times.acked.len() as u64 == self.agents {
            // Removed after it is reported, so that a long run does not collect the times of every revision.
            let Times { received, acked } = revisions.remove(action).unwrap_or_default();
            self.tell(Event::Revision { action_id: action.to_owned(), received_us: received, acked_us: acked });
        }
    }
}

/// A counter stays valid even if the holder of its lock panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a check-in as waiting until it is dropped, which includes cancellation.
pub struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    /// Counts one more.
    #[must_use]
    pub fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Relaxed);
        Self(counter)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_reported_once_the_last_agent_has_acknowledged_it() {
        let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
        let tally = Tally::new(2, events);
        tally.acked(["policy:p:1", "other"].into_iter(), Duration::ZERO);
        assert!(told.try_recv().is_err());
        tally.acked(std::iter::once("policy:p:1"), Duration::ZERO);
        let Ok(Event::Revision { action_id, acked_us, .. }) = told.try_recv() else { panic!("no event") };
        assert_eq!((action_id.as_str(), acked_us.len(), tally.counts().acks), ("policy:p:1", 2, 3));
    }

    #[test]
    fn waiting_ends_with_the_check_in() {
        let counter = AtomicU64::new(0);
        let waiting = Waiting::new(&counter);
        assert_eq!(counter.load(Relaxed), 1);
        drop(waiting);
        assert_eq!(counter.load(Relaxed), 0);
    }

    #[test]
    fn the_number_of_error_kinds_is_limited() {
        let (events, _told) = tokio::sync::mpsc::unbounded_channel();
        let tally = Tally::new(1, events);
        (0..1000).for_each(|n| tally.failed(&n.to_string()));
        assert_eq!((tally.counts().errors.len(), tally.counts().errors["other"]), (65, 936));
    }
}
