//! A bound on how many may be inside at a time; who finds it full is turned away at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A gate that lets in so many.
#[derive(Debug)]
pub struct Gate {
    limit: usize,
    inside: AtomicUsize,
}

/// Being inside; dropping it is leaving.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Gate {
    /// A gate for `limit`.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, inside: AtomicUsize::new(0) })
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    /// Lets one in unless it is full.
    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
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
    fn a_full_gate_turns_away_and_opens_when_one_leaves() {
        let gate = Gate::new(2);
        let first = gate.enter().unwrap();
        let _second = gate.enter().unwrap();
        assert!(gate.enter().is_none());
        assert_eq!(gate.inside(), 2);
        drop(first);
        assert!(gate.enter().is_some());
    }
}
