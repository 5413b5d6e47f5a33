//! The hints to one host.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use muster_core::error_chain::chain;
use tokio::time::Instant;

use super::{Announced, Hints, Reason};
use crate::registry::{AgentEntry, PollSlot};

/// Time after which a hint is repeated, while the work is still due (FL171). As often as hosts ask that poll.
const REPEAT: Duration = Duration::from_secs(10);
/// Minimum time between two hints for different work.
const GAP: Duration = Duration::from_secs(1);
/// Interval at which work is looked for that is due by time, such as details every hour.
const LOOK: Duration = Duration::from_secs(300);
/// Interval at which an osqueryd is looked for that has yet to enroll.
const LOOK_FOR_OSQUERY: Duration = Duration::from_secs(30);

/// What happened to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The host is to be told that work is due.
    Hint(Reason),
    /// The deadline of the caller has passed.
    Deadline,
    /// The orbit was deleted or unenrolled.
    Revoked,
    /// The connection must end. The orbit may connect again, possibly to another server.
    Ended,
}

/// The hints to one host. With a hundred thousand of them, every byte counts.
pub struct HintChannel {
    hints: Arc<Hints>,
    slot: PollSlot,
    generation: u64,
    /// Time of the next look for work.
    look_at: Instant,
    last: Option<(Reason, Instant)>,
    /// What the orbit was told of its configuration.
    told: Announced,
}

impl HintChannel {
    pub(super) fn new(hints: Arc<Hints>, slot: PollSlot) -> Self {
        let generation = slot.entry().generation();
        Self { hints, slot, generation, look_at: Instant::now(), last: None, told: Announced::default() }
    }

    /// Returns the next event. If the future is dropped, nothing is lost.
    pub async fn next(&mut self, deadline: Instant) -> Event {
        loop {
            if let Some(end) = self.end() {
                return end;
            }
            let now = Instant::now();
            if now >= deadline {
                return Event::Deadline;
            }
            if now >= self.look_at {
                // Before the look: a change during it raises the generation, and the next one follows at once.
                let generation = self.slot.entry().generation();
                let found = self.look().await;
                self.generation = generation;
                if let Some(reason) = self.take(found, now) {
                    return Event::Hint(reason);
                }
                continue;
            }
            tokio::select! {
                () = self.slot.entry().woken_after(self.generation) => self.woken(),
                () = tokio::time::sleep_until(self.look_at.min(deadline)) => {}
            }
        }
    }

    fn orbit(&self) -> &Arc<AgentEntry> {
        self.slot.entry()
    }

    fn end(&self) -> Option<Event> {
        if !self.orbit().record().is_some_and(|record| record.active) {
            return Some(Event::Revoked);
        }
        let is_over = self.hints.shutdown.has_begun() || self.slot.is_dismissed() || self.slot.is_superseded();
        is_over.then_some(Event::Ended)
    }

    /// Plans a look, not too soon after the last hint.
    fn woken(&mut self) {
        self.generation = self.orbit().generation();
        let soonest = self.last.as_ref().map_or_else(Instant::now, |(_, at)| *at + GAP);
        self.look_at = self.look_at.min(soonest);
    }

    /// Decides what to do about the work that was found, and plans the next look. Returns the hint to send.
    fn take(&mut self, found: Found, now: Instant) -> Option<Reason> {
        let reason = match found {
            Found::Nothing => {
                self.look_at = now + LOOK;
                return None;
            }
            Found::NoOsquery => {
                self.look_at = now + LOOK_FOR_OSQUERY;
                return None;
            }
            Found::Config(announced) => {
                self.told = announced;
                // Queries may be due as well, which the same look did not look for.
                self.look_at = now;
                return Some(Reason::Config);
            }
            Found::Work(reason) => reason,
        };
        if let Some((last, at)) = &self.last
            && *last == reason
            && now < *at + REPEAT
        {
            self.look_at = *at + REPEAT;
            return None;
        }
        self.last = Some((reason.clone(), now));
        self.look_at = now + REPEAT;
        Some(reason)
    }

    /// Looks up what is due. Boxed, so that a waiting channel does not reserve the space of the look-up's state.
    fn look(&self) -> Pin<Box<dyn Future<Output = Found> + Send + '_>> {
        Box::pin(async {
            let announced = self.hints.announced_to(self.orbit());
            if announced.is_news_after(self.told) {
                return Found::Config(announced);
            }
            match self.hints.records.osquery_beside(self.orbit()).await {
                Ok(Some(osquery)) => self.hints.due(&osquery).await.map_or(Found::Nothing, Found::Work),
                Ok(None) => Found::NoOsquery,
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "failed to read the osquery of a host; retrying");
                    Found::NoOsquery
                }
            }
        })
    }
}

/// Result of a look-up.
enum Found {
    /// This work is due for osqueryd.
    Work(Reason),
    /// The configuration of orbit has changed.
    Config(Announced),
    /// No work is due.
    Nothing,
    /// The host has no osqueryd, or it can't be read now.
    NoOsquery,
}
