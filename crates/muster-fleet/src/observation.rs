//! The period in which the servers of the fleet could observe their agents, and corrections after the clock was set.
//!
//! It begins when this server starts, and anew when another server leaves: the agents of that one need time to find
//! another. Presence of agents that are connected to other servers is in the store.
//!
//! Timeouts of days use the wall clock. Administrators, NTP and resumed virtual machines set it, and it advances while
//! the server is down. An absence must count only for the time in which the server could have seen the agent;
//! otherwise an outage of three days would unenroll the whole fleet.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::status::{Status, last_sighting, offline_after, transition};
use muster_core::time::{Clock, Timestamp};
use muster_store::query::{AgentCondition, AgentFilter};

use super::authority::System;
use super::bulk_update::Basis;
use super::records::Records;
use super::status_timer::Statuses;
use super::update::AgentChange;

/// Minimum step in microseconds that counts as a clock that was set. Smaller differences are slewing.
const STEP: i64 = 30_000_000;
/// Maximum back-off of an agent whose server did not respond, 10 minutes (EA §10.1), plus time to connect.
pub(super) const BACK_OFF: Duration = Duration::from_secs(15 * 60);
/// Records corrected by one commit.
const BATCH: u32 = 500;

/// The period in which agents were observed without interruption, by the steady clock.
pub(super) struct Observation(Mutex<State>);

#[derive(Clone, Copy)]
struct State {
    /// Wall clock minus steady clock, in microseconds. It changes only if the wall clock is set or slewed.
    offset: i64,
    /// Start of the period, by the steady clock.
    since: Duration,
}

fn offset(clock: &dyn Clock) -> i64 {
    let steady = i64::try_from(clock.steady().as_micros()).unwrap_or(i64::MAX);
    clock.now().as_micros().saturating_sub(steady)
}

impl Observation {
    /// Starts the period now.
    pub fn new(clock: &dyn Clock) -> Self {
        Self(Mutex::new(State { offset: offset(clock), since: clock.steady() }))
    }

    /// Returns by how many microseconds the clock was set since the last call, and restarts the period; `None` if it
    /// was not set.
    fn detect_step(&self, clock: &dyn Clock) -> Option<i64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = offset(clock);
        // The new offset is stored even for small steps, so that slewing never adds up to a step.
        let step = offset.saturating_sub(std::mem::replace(&mut state.offset, offset));
        if step.abs() < STEP {
            return None;
        }
        state.since = clock.steady();
        Some(step)
    }

    /// Restarts the period: for some time, agents could not be seen.
    pub fn restart(&self, clock: &dyn Clock) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).since = clock.steady();
    }

    /// Returns the time from which absences count: one full back-off after this start, or after the clock was last set.
    pub fn absences_count_from(&self, clock: &dyn Clock) -> Timestamp {
        self.window(clock).1
    }

    /// Returns the start of the period and the end of the back-off that follows it, as wall-clock times.
    fn window(&self, clock: &dyn Clock) -> (Timestamp, Timestamp) {
        let since = self.0.lock().unwrap_or_else(PoisonError::into_inner).since;
        // Derived from the steady clock on each call. A stored wall-clock time would be wrong after a step.
        let began = clock.now().minus(clock.steady().saturating_sub(since));
        (began, began.plus(BACK_OFF))
    }
}

/// Returns the time until which the agent's silence proves nothing; `None` if that has passed or it was seen since.
///
/// Agents whose server does not respond wait up to ten minutes between attempts (EA §10.1). An agent that was not seen
/// since this start, or since the clock was set, gets that time to come back.
pub(super) fn undecided_until(
    record: &AgentRecord,
    seen: Option<Timestamp>,
    observation: &Observation,
    clock: &dyn Clock,
) -> Option<Timestamp> {
    let now = clock.now();
    let (began, judged) = observation.window(clock);
    // One whose requests are rare has missed none before its interval is over.
    let judged = judged.max(began.plus(offline_after(record)));
    let last = last_sighting(record, seen, now).unwrap_or(record.enrolled_at);
    (last < began && now < judged).then_some(judged)
}

impl Records {
    /// The record that may be written for `after`: an agent that would be away only because it had no chance to be seen
    /// keeps its status until it had one. Every change of a record passes here, whoever makes it.
    pub(super) fn spared(&self, before: &AgentRecord, after: AgentRecord, seen: Option<Timestamp>) -> AgentRecord {
        match undecided_until(before, seen, &self.observation, &*self.clock) {
            Some(judged) if after.active => spare(before, after, judged),
            _ => after,
        }
    }
}

fn spare(before: &AgentRecord, mut after: AgentRecord, judged: Timestamp) -> AgentRecord {
    let is_away = |status| matches!(status, Status::Offline | Status::Inactive);
    if is_away(after.status) && !is_away(before.status) {
        // Only this transition is undone. Others, such as the end of an upgrade, are not about presence.
        (after.status, after.status_since) = (before.status, before.status_since);
    }
    after.status_deadline = Some(judged);
    after
}

impl Statuses {
    /// Returns the time from which absences count.
    pub(crate) fn absences_count_from(&self) -> Timestamp {
        self.records.observation.absences_count_from(&*self.clock)
    }

    /// Detects whether the wall clock was set, and shifts the times of sightings with it.
    pub(super) async fn follow_clock(&self) -> Result<(), Error> {
        let Some(step) = self.records.observation.detect_step(&*self.clock) else { return Ok(()) };
        let seconds = step / 1_000_000;
        tracing::warn!(seconds, "the clock was changed; restarting timeouts");
        // Presence in memory first: the correction of the records below uses it.
        self.registry.clock_was_set(step, self.clock.now());
        self.correct_future_sightings().await.map(drop)
    }

    /// Corrects records with a last sighting in the future, which would stay online until the clock gets there. Returns
    /// their number.
    pub(super) async fn correct_future_sightings(&self) -> Result<u64, Error> {
        let mut corrected = 0;
        let enrolled = !AgentCondition::Statuses(vec![Status::Unenrolled]);
        let filter = AgentFilter::all([enrolled, AgentCondition::SeenAfter(self.clock.now())]);
        let mut after = None;
        while !self.shutdown.has_begun() {
            let ids = self.store.everywhere(&System).agent_ids(&filter, after.as_ref(), BATCH).await?;
            let Some(last) = ids.last().cloned() else { break };
            let decide = |before: &AgentRecord, now| {
                let seen = self.registry.last_seen(&before.id, now);
                let is_ahead = before.active && before.last_checkin.unwrap_or(before.enrolled_at) > now;
                AgentChange { record: is_ahead.then(|| reevaluated(before, seen, now)), writes: Vec::new() }
            };
            self.records.change_many(&System, &ids, Basis::Store, &decide).await?;
            corrected += ids.len() as u64;
            after = Some(last);
        }
        Ok(corrected)
    }
}

/// Returns the record with corrected times and the status for the current time.
pub(super) fn reevaluated(record: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> AgentRecord {
    let mut after = record.clone();
    after.version += 1;
    (after.last_checkin, after.enrolled_at) = corrected_times(record, seen, now);
    transition(&mut after, seen, now);
    after
}

/// Returns the times of last check-in and enrollment, neither of them in the future.
fn corrected_times(record: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> (Option<Timestamp>, Timestamp) {
    (last_sighting(record, seen, now), record.enrolled_at.min(now))
}

#[cfg(test)]
mod tests;
