//! Pauses between attempts, like those of real agents.

use std::time::Duration;

/// Back-off with equal jitter: half of the ceiling, plus a random part of the other half. The ceiling doubles with each
/// failure.
#[derive(Clone, Debug)]
pub struct BackOff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
}

impl BackOff {
    /// Creates a back-off that begins with `first` and never exceeds `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, ceiling: first * 2 }
    }

    /// Returns the next pause.
    pub fn next_pause(&mut self) -> Duration {
        let ceiling = self.ceiling.min(self.max.max(self.first));
        self.ceiling = ceiling * 2;
        ceiling / 2 + ceiling.mul_f64(rand::random::<f64>() / 2.0)
    }

    /// Resets the ceiling after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.first * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_within_its_jitter_and_resets() {
        let seconds = Duration::from_secs;
        let mut back_off = BackOff::new(seconds(60), seconds(600));
        for range in [60..=120, 120..=240, 240..=480, 300..=600, 300..=600] {
            let pause = back_off.next_pause().as_secs_f64();
            assert!(pause >= f64::from(*range.start()) && pause <= f64::from(*range.end()), "{pause} not in {range:?}");
        }
        back_off.reset();
        assert!(back_off.next_pause() <= seconds(120));
    }
}
