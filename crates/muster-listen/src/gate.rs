//! A concurrency limit without a queue: entering a full gate fails immediately.
//!
//! A queue would only move the wait to where the client can't see it. A refused client gets a 429 or a closed connection
//! and retries after its own backoff.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Limits how many holders of a [`Pass`] there are at a time.
#[derive(Debug)]
pub struct Gate {
    limit: usize,
    inside: AtomicUsize,
}

/// Admission through a gate; released on drop.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Gate {
    /// Creates a gate that admits `limit` at a time.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, inside: AtomicUsize::new(0) })
    }

    /// Number of passes held now.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    /// Returns a pass, or `None` when the gate is full.
    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        // Added first and taken back: with a check before the addition, two threads could both see the last free slot.
        // Relaxed is enough, since the counter guards no other memory.
        if self.inside.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.inside.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Pass(Arc::clone(self)))
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
    fn a_full_gate_refuses_until_a_pass_is_dropped() {
        let gate = Gate::new(2);
        let first = gate.enter().unwrap();
        let _second = gate.enter().unwrap();
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 2);
        drop(first);
        assert!(gate.enter().is_some());
    }
}
