//! How much output of a program is written to its log: a program in a tight loop must neither wear out the disk nor occupy the
//! agent.

use std::time::Duration;

use tokio::time::Instant;

/// Output that may be written at once, bytes.
const BURST: u64 = 10 << 20;
/// Output that may be written in the long run, bytes per second.
const RATE: u64 = 1 << 20;
/// Pause between two reads of a program whose output is dropped. It slows the program down, but does not stop it.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// The budget of one stream.
#[derive(Debug)]
pub(super) struct OutputBudget {
    left: u64,
    at: Instant,
    dropped: u64,
}

/// What to do with a part of the output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Write it, after this line about what was dropped before.
    Write(Option<String>),
    /// Drop it.
    Drop,
}

impl OutputBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now, dropped: 0 }
    }

    /// Decides about `length` bytes.
    pub(super) fn spend(&mut self, length: usize, now: Instant) -> Decision {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let earned = (now - self.at).as_micros().saturating_mul(RATE.into()) / 1_000_000;
        self.left = self.left.saturating_add(u64::try_from(earned).unwrap_or(BURST)).min(BURST);
        self.at = now;
        // After a gap, a second's worth is written at once, so that the log consists of whole passages.
        let needed = if self.dropped > 0 { length.max(RATE) } else { length };
        if self.left < needed {
            self.dropped += length;
            return Decision::Drop;
        }
        self.left -= length;
        Decision::Write(self.note())
    }

    /// Returns a line about what was dropped since the last one, if anything.
    pub(super) fn note(&mut self) -> Option<String> {
        let dropped = std::mem::take(&mut self.dropped);
        (dropped > 0)
            .then(|| format!("\n[muster-agent dropped {dropped} bytes: the output exceeds {RATE} bytes per second]\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_floods_writes_a_burst_and_then_a_limited_rate() {
        let begun = Instant::now();
        let mut budget = OutputBudget::new(begun);
        let (mut written, mut notes) = (0, 0);
        // 100 MB/s for ten seconds.
        for step in 0..10_000_u64 {
            if let Decision::Write(note) = budget.spend(100_000, begun + Duration::from_millis(step)) {
                written += 100_000;
                notes += u64::from(note.is_some());
            }
        }
        assert!((BURST + 8 * RATE..=BURST + 10 * RATE).contains(&written), "{written}");
        assert!((8..=10).contains(&notes), "{notes}");
        assert!(budget.note().unwrap().contains("dropped") && budget.note().is_none());
    }

    #[test]
    fn nothing_of_a_program_that_writes_little_is_dropped() {
        let begun = Instant::now();
        let mut budget = OutputBudget::new(begun);
        for second in 0..1000 {
            assert_eq!(budget.spend(1_000_000, begun + Duration::from_secs(second)), Decision::Write(None));
        }
    }
}
