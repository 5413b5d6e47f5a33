//! What this process knows about the end of the change log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::port::Currency;

/// Confirmations that wait for their changes to be handled: at one each 25 ms, more than six seconds.
const MOST_WAITING: usize = 256;

/// The newest number of the change log, how recently it was confirmed, and until when all changes are handled.
pub(crate) struct Feed {
    newest: watch::Sender<i64>,
    handled: AtomicI64,
    /// `None` if no other process writes.
    confirmed: Option<Confirmed>,
}

/// Instants that are read without a lock.
struct Confirmed {
    base: Instant,
    /// When the newest number was last queried, in nanoseconds after `base`.
    at: AtomicU64,
    /// Until when all changes are handled, in nanoseconds after `base`.
    caught_up: AtomicU64,
    /// Confirmed numbers that are not handled yet, oldest first, each with the time of its query.
    waiting: Mutex<VecDeque<(i64, u64)>>,
}

impl Confirmed {
    fn instant(&self, nanos: &AtomicU64) -> Instant {
        self.base + Duration::from_nanos(nanos.load(Ordering::Acquire))
    }

    /// Adds a confirmation, or only looks which of them are handled.
    fn settle(&self, handled: i64, confirmation: Option<(i64, u64)>) {
        // Each change is a single step, so that a poisoned queue is still consistent.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(confirmation) = confirmation {
            // The newest is replaced, or else a server that is always a little behind would never catch up.
            if waiting.len() == MOST_WAITING {
                waiting.pop_back();
            }
            waiting.push_back(confirmation);
        }
        // A confirmation counts from when it was asked, not from when it was handled: later changes are unknown.
        while let Some((_, asked)) = waiting.pop_front_if(|(seq, _)| *seq <= handled) {
            self.caught_up.fetch_max(asked, Ordering::Release);
        }
    }
}

impl Feed {
    /// Creates the feed of a store that only this process writes.
    pub(crate) fn exclusive(newest: i64) -> Self {
        Self { newest: watch::Sender::new(newest), handled: AtomicI64::new(newest), confirmed: None }
    }

    /// Creates the feed of a shared store, whose end was queried at `asked`.
    pub(crate) fn shared(newest: i64, asked: Instant) -> Self {
        let (at, caught_up, waiting) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
        let confirmed = Some(Confirmed { base: asked, at, caught_up, waiting });
        Self { confirmed, ..Self::exclusive(newest) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<i64> {
        self.newest.subscribe()
    }

    /// Publishes the number of the newest change. It never decreases: the writer and the follower of a shared database
    /// both publish, in any order.
    pub(crate) fn publish(&self, seq: i64) {
        self.newest.send_if_modified(|known| {
            let is_new = seq > *known;
            *known = seq.max(*known);
            is_new
        });
    }

    /// Publishes the result of a query that was sent at `asked`.
    pub(crate) fn confirm(&self, seq: i64, asked: Instant) {
        // The number first: whoever finds the new instant must find at least this number.
        // The time of asking, not of the answer: changes that were committed in between are not covered.
        self.publish(seq);
        if let Some(confirmed) = &self.confirmed {
            let nanos = asked.saturating_duration_since(confirmed.base).as_nanos();
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            confirmed.at.fetch_max(nanos, Ordering::Release);
            confirmed.settle(self.handled(), Some((seq, nanos)));
        }
    }

    pub(crate) fn currency(&self) -> Currency {
        let until = |confirmed: &Confirmed| Currency::Until(confirmed.instant(&confirmed.at));
        self.confirmed.as_ref().map_or(Currency::Always, until)
    }

    /// Returns until when all changes are handled.
    pub(crate) fn caught_up(&self) -> Currency {
        let until = |confirmed: &Confirmed| Currency::Until(confirmed.instant(&confirmed.caught_up));
        self.confirmed.as_ref().map_or(Currency::Always, until)
    }

    /// Records that this node has handled the changes up to `seq`.
    pub(crate) fn set_handled(&self, seq: i64) {
        self.handled.fetch_max(seq, Ordering::AcqRel);
        if let Some(confirmed) = &self.confirmed {
            confirmed.settle(self.handled(), None);
        }
    }

    pub(crate) fn handled(&self) -> i64 {
        self.handled.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that wakes after a minute knows the newest number at once, but has handled none of the changes.
    #[test]
    fn a_confirmation_counts_once_its_changes_are_handled() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let feed = Feed::shared(5, begin);
        feed.confirm(5, after(1));
        assert_eq!(feed.caught_up(), Currency::Until(after(1)));
        feed.confirm(9, after(61));
        feed.confirm(12, after(62));
        assert_eq!((feed.currency(), feed.caught_up()), (Currency::Until(after(62)), Currency::Until(after(1))));
        feed.set_handled(8);
        assert_eq!(feed.caught_up(), Currency::Until(after(1)));
        feed.set_handled(11);
        assert_eq!(feed.caught_up(), Currency::Until(after(61)));
        feed.set_handled(12);
        assert_eq!(feed.caught_up(), Currency::Until(after(62)));
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_stay() {
        let begin = Instant::now();
        let feed = Feed::shared(0, begin);
        for seq in 1..=1000_u32 {
            feed.confirm(seq.into(), begin + Duration::from_secs(seq.into()));
        }
        let waiting = feed.confirmed.as_ref().map(|confirmed| confirmed.waiting.lock().unwrap().len());
        assert_eq!(waiting, Some(MOST_WAITING));
        feed.set_handled(100);
        assert_eq!(feed.caught_up(), Currency::Until(begin + Duration::from_secs(100)));
        feed.set_handled(1000);
        assert_eq!(feed.caught_up(), Currency::Until(begin + Duration::from_secs(1000)));
    }
}
