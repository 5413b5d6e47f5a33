//! How long this server has watched its agents without a gap, and what follows when its clock is set.
//!
//! Timeouts of days are counted over the wall clock, which is set by people, by NTP and by resumed virtual machines, and
//! goes on while the server is down. An agent's absence can be held against it only for as long as somebody was there
//! to see it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::status::{Status, last_sighting, transition};
use muster_core::time::{Clock, Timestamp};
use muster_store::query::AgentFilter;

use super::authority::System;
use super::many::Basis;
use super::records::Records;
use super::status_timer::Statuses;
use super::update::AgentChange;

/// A smaller difference between two looks is a clock that is slewed, not set.
const STEP: i64 = 30_000_000;
/// The longest wait of an agent whose server did not answer, 10 minutes (EA §10.1), and time to connect.
pub(super) const BACK_OFF: Duration = Duration::from_secs(15 * 60);
/// Records corrected at once.
const AT_ONCE: u32 = 500;

/// How long this server has watched, by the steady clock.
pub(super) struct Vigil(Mutex<State>);

#[derive(Clone, Copy)]
struct State {
    /// The wall clock less the steady one, in microseconds.
    offset: i64,
    since: Duration,
}

fn offset(clock: &dyn Clock) -> i64 {
    let steady = i64::try_from(clock.steady().as_micros()).unwrap_or(i64::MAX);
    clock.now().as_micros().saturating_sub(steady)
}

impl Vigil {
    /// Begins now.
    pub fn new(clock: &dyn Clock) -> Self {
        Self(Mutex::new(State { offset: offset(clock), since: clock.steady() }))
    }

    /// By how many microseconds the clock was set since the last look. The watch then begins anew.
    fn look(&self, clock: &dyn Clock) -> Option<i64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = offset(clock);
        let step = offset.saturating_sub(std::mem::replace(&mut state.offset, offset));
        if step.abs() < STEP {
            return None;
        }
        state.since = clock.steady();
        Some(step)
    }

    /// The time since which agents had a chance to be seen: this start, or the last time that the clock was set, and one
    /// full back-off.
    pub fn counts_from(&self, clock: &dyn Clock) -> Timestamp {
        self.counts_between(clock).1
    }

    /// The beginning of the watch, and the end of the back-off that follows it.
    fn counts_between(&self, clock: &dyn Clock) -> (Timestamp, Timestamp) {
        let since = self.0.lock().unwrap_or_else(PoisonError::into_inner).since;
        let began = clock.now().minus(clock.steady().saturating_sub(since));
        (began, began.plus(BACK_OFF))
    }
}

/// The time at which an agent had its chance to be seen by this server, if that is yet to come: then nothing is
/// concluded from its silence.
///
/// Agents whose server does not answer wait up to ten minutes between two attempts (EA §10.1). One that was not seen
/// since this start, or since the clock was set, gets that time.
pub(super) fn judged_at(
    record: &AgentRecord,
    seen: Option<Timestamp>,
    vigil: &Vigil,
    clock: &dyn Clock,
) -> Option<Timestamp> {
    let now = clock.now();
    let (began, judged) = vigil.counts_between(clock);
    let last = last_sighting(record, seen, now).unwrap_or(record.enrolled_at);
    (last < began && now < judged).then_some(judged)
}

impl Records {
    /// The record that may be written for `after`: an agent that would be away only because it had no chance to be seen
    /// keeps its status until it had one. Every change of a record passes here, whoever makes it.
    pub(super) fn spared(&self, before: &AgentRecord, after: AgentRecord, seen: Option<Timestamp>) -> AgentRecord {
        match judged_at(before, seen, &self.vigil, &*self.clock) {
            Some(judged) if after.active => spare(before, after, judged),
            _ => after,
        }
    }
}

fn spare(before: &AgentRecord, mut after: AgentRecord, judged: Timestamp) -> AgentRecord {
    let is_away = |status| matches!(status, Status::Offline | Status::Inactive);
    if is_away(after.status) && !is_away(before.status) {
        (after.status, after.status_since) = (before.status, before.status_since);
    }
    after.status_deadline = Some(judged);
    after
}

impl Statuses {
    /// The time since which agents had a chance to be seen by this server.
    pub(crate) fn absences_count_from(&self) -> Timestamp {
        self.records.vigil.counts_from(&*self.clock)
    }

    /// Follows the wall clock when it is set: times of sightings are moved with it.
    pub(super) async fn follow_clock(&self) -> Result<(), Error> {
        let Some(step) = self.records.vigil.look(&*self.clock) else { return Ok(()) };
        let seconds = step / 1_000_000;
        tracing::warn!(seconds, "the clock was changed: timeouts start again from now");
        self.registry.clock_was_set(step, self.clock.now());
        self.correct_future_sightings().await.map(drop)
    }

    /// Corrects records whose last sighting lies in the future, and lets time go on for them.
    pub(super) async fn correct_future_sightings(&self) -> Result<u64, Error> {
        let mut corrected = 0;
        let filter = AgentFilter {
            without_statuses: vec![Status::Unenrolled],
            seen_after: Some(self.clock.now()),
            ..AgentFilter::default()
        };
        let mut after = None;
        while !self.stopping.has_begun() {
            let ids = self.store.everywhere(&System).agent_ids(&filter, after.as_ref(), AT_ONCE).await?;
            let Some(last) = ids.last().cloned() else { break };
            let decide = |before: &AgentRecord, now| {
                let seen = self.registry.last_seen(&before.id, now);
                let is_ahead = before.active && before.last_checkin.unwrap_or(before.enrolled_at) > now;
                AgentChange { record: is_ahead.then(|| looked_at(before, seen, now)), writes: Vec::new() }
            };
            self.records.change_many(&System, &ids, Basis::Store, &decide).await?;
            corrected += ids.len() as u64;
            after = Some(last);
        }
        Ok(corrected)
    }
}

/// The record after a look at the time.
pub(super) fn looked_at(record: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> AgentRecord {
    let mut after = record.clone();
    after.version += 1;
    (after.last_checkin, after.enrolled_at) = corrected_times(record, seen, now);
    transition(&mut after, seen, now);
    after
}

/// What a correction leaves of the record's times.
fn corrected_times(record: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> (Option<Timestamp>, Timestamp) {
    (last_sighting(record, seen, now), record.enrolled_at.min(now))
}

#[cfg(test)]
mod tests;
