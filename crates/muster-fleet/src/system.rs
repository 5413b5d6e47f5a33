//! The real clock and the real generator; tests pass their own.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use muster_core::Entropy;
use muster_core::time::{Clock, Timestamp};

/// The system's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

/// What [`SystemClock::steady`] counts from.
static FIRST_LOOK: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
    }

    /// Stands still while the host sleeps, so that waking up looks like a clock that was set: nobody was watching then.
    fn steady(&self) -> Duration {
        FIRST_LOOK.elapsed()
    }
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.fill(buffer).expect("the operating system's random generator answers");
    }
}
