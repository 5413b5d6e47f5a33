//! What this process knows about the end of the change log.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::port::Currency;

/// The newest number of the change log, and how recently it was confirmed.
pub(crate) struct Feed {
    newest: watch::Sender<i64>,
    handled: AtomicI64,
    /// `None` if no other process writes.
    confirmed: Option<Confirmed>,
}

/// An instant that can be replaced without a lock.
struct Confirmed {
    base: Instant,
    /// Nanoseconds after `base`.
    at: AtomicU64,
}

impl Feed {
    /// Creates the feed of a store that only this process writes.
    pub(crate) fn exclusive(newest: i64) -> Self {
        Self { newest: watch::Sender::new(newest), handled: AtomicI64::new(newest), confirmed: None }
    }

    /// Creates the feed of a shared store, whose end was queried at `asked`.
    pub(crate) fn shared(newest: i64, asked: Instant) -> Self {
        let confirmed = Some(Confirmed { base: asked, at: AtomicU64::new(0) });
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
        self.publish(seq);
        if let Some(confirmed) = &self.confirmed {
            let nanos = asked.saturating_duration_since(confirmed.base).as_nanos();
            confirmed.at.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Release);
        }
    }

    pub(crate) fn currency(&self) -> Currency {
        self.confirmed.as_ref().map_or(Currency::Always, |confirmed| {
            Currency::Until(confirmed.base + Duration::from_nanos(confirmed.at.load(Ordering::Acquire)))
        })
    }

    /// Records that this node has handled the changes up to `seq`.
    pub(crate) fn set_handled(&self, seq: i64) {
        self.handled.fetch_max(seq, Ordering::AcqRel);
    }

    pub(crate) fn handled(&self) -> i64 {
        self.handled.load(Ordering::Acquire)
    }
}
