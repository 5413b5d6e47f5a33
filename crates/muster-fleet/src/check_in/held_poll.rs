//! Answering at once, or holding the poll until something is due.
//!
//! `generation` of the agent's entry rises with each wake-up. A poll remembers its value from before the query, so that a
//! wake-up between query and hold is never lost (EA72).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::entropy::random_bytes;
use muster_core::poll::GoDuration;
use tokio::time::Instant;

use super::CheckIns;
use super::due::{Baseline, Delivery, Due};
use crate::members::Members;
use crate::registry::{AgentEntry, PollSlot};

/// Outcome of a check-in.
pub enum Poll {
    /// Respond with this now.
    Due(Delivery),
    /// Nothing is due; hold the poll.
    Held(HeldPoll),
}

/// A held poll: all that remains of a check-in while nothing is due. With a hundred thousand of them, every byte
/// counts.
pub struct HeldPoll {
    check_ins: Arc<CheckIns>,
    slot: PollSlot,
    deadline: Instant,
    baseline: Baseline,
    generation: u64,
}

impl CheckIns {
    /// Returns what is due, or holds the poll.
    pub(super) async fn answer(
        self: &Arc<Self>,
        entry: &Arc<AgentEntry>,
        baseline: Baseline,
        poll: Option<GoDuration>,
    ) -> Result<Poll, Error> {
        // Read before the query: a change during it raises the generation, and the held poll queries again immediately.
        let generation = entry.generation();
        let mut hold = self.hold(poll);
        match self.due(entry, &baseline).await? {
            Due::Now(delivery) => return Ok(Poll::Due(delivery)),
            // Held only until the pause is over, or else the policy would wait for the end of the long poll.
            Due::Later(pause) => hold = hold.min(pause),
            Due::Nothing => {}
        }
        // During shutdown, held polls are answered (EA87), so no new ones may be held.
        if hold.is_zero() || self.shutdown.has_begun() {
            return Ok(Poll::Due(Delivery::Nothing));
        }
        if self.members.is_draining() {
            // Not at once: until the load balancer sends the agent elsewhere, it would poll in a loop.
            hold = hold.min(Members::hold_while_draining(&*self.entropy));
        }
        let slot = PollSlot::new(&self.registry, Arc::clone(entry), Arc::clone(&self.clock));
        let deadline = Instant::now() + hold;
        Ok(Poll::Held(HeldPoll { check_ins: Arc::clone(self), slot, deadline, baseline, generation }))
    }

    /// Returns the time to hold a poll. A default of zero disables long polling for clients that request no time.
    fn hold(&self, poll: Option<GoDuration>) -> Duration {
        let limits = self.limits;
        // A client that requests a time gets it anyway, with the protocol's minimum of one minute (EA68).
        if poll.is_none() && limits.default.is_zero() {
            return Duration::ZERO;
        }
        limits.duration(poll, Duration::ZERO, u64::from_le_bytes(random_bytes(&*self.entropy)))
    }
}

impl HeldPoll {
    /// Waits until something is due, the deadline has passed, the agent is unenrolled, a newer poll replaces this one,
    /// or the server shuts down.
    pub async fn wait(mut self) -> Result<Delivery, Error> {
        loop {
            // Before each wait: the server may have begun to stop before this poll counted as held.
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
            let over = tokio::select! {
                () = self.slot.entry().woken_after(self.generation) => false,
                () = tokio::time::sleep_until(self.deadline) => true,
            };
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
            self.generation = self.slot.entry().generation();
            // Boxed, so that a waiting poll does not reserve the space of the query's state.
            let look: Pin<Box<dyn Future<Output = Result<Due, Error>> + Send + '_>> =
                Box::pin(self.check_ins.due(self.slot.entry(), &self.baseline));
            match look.await? {
                Due::Now(_) if self.has_moved() => return Ok(Delivery::Nothing),
                Due::Now(delivery) => return Ok(delivery),
                // Reached only after a query, even at the deadline: what became due at the last moment is delivered and
                // does not wait for the next check-in.
                Due::Later(_) | Due::Nothing if over => return Ok(Delivery::Nothing),
                // Shortens the poll to the pause, or else the policy would wait for the end of the long poll.
                Due::Later(pause) => self.deadline = self.deadline.min(Instant::now() + pause),
                Due::Nothing => {}
            }
        }
    }

    /// Returns whether the agent has checked in to another server in the meantime. The connection of this poll may then
    /// be dead, and what it delivers would be lost. An agent that is still connected polls again and gets what is due.
    fn has_moved(&self) -> bool {
        self.slot.entry().record().is_some_and(|record| !self.check_ins.records.is_own(&record))
    }

    /// Returns the response of a poll that ends whatever is due.
    fn ended(&self) -> Option<Delivery> {
        if self.check_ins.shutdown.has_begun() || self.slot.is_dismissed() {
            return Some(Delivery::Nothing);
        }
        self.slot.is_superseded().then_some(Delivery::Superseded)
    }

    /// The agent.
    pub fn entry(&self) -> &Arc<AgentEntry> {
        self.slot.entry()
    }
}
