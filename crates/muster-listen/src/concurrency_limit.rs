//! A concurrency limit without a queue. Entering at the limit fails immediately.
//!
//! In a queue, a client would wait without knowing why. A rejected client gets a 429 or a closed connection, and
//! retries after its own back-off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Limits the number of concurrent [`Pass`]es.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    limit: usize,
    inside: AtomicUsize,
}

/// Admission under a limit; released on drop.
#[derive(Debug)]
pub struct Pass(Arc<ConcurrencyLimit>);

impl ConcurrencyLimit {
    /// Creates a limit that admits `limit` at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, inside: AtomicUsize::new(0) })
    }

    /// Returns the current number of passes.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    /// Returns a pass, or `None` at the limit.
    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        // The counter is incremented first and decremented on failure. If it was checked first, two threads could both
        // see the last free slot. Relaxed ordering is sufficient, because the counter protects no other memory.
        if self.inside.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.inside.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Pass(Arc::clone(self)))
    }

    /// Returns a pass even at the limit. Another pass must be about to be dropped.
    pub fn enter_in_exchange(self: &Arc<Self>) -> Pass {
        self.inside.fetch_add(1, Ordering::Relaxed);
        Pass(Arc::clone(self))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_limit_it_rejects_until_a_pass_is_dropped() {
        let limit = ConcurrencyLimit::new(2);
        let first = limit.enter().unwrap();
        let _second = limit.enter().unwrap();
        assert!(limit.enter().is_none());
        assert_eq!(limit.inside(), 2);
        drop(first);
        assert!(limit.enter().is_some());
    }
}
