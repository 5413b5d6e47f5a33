//! The system clock and random number generator. Tests use their own.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use muster_core::Entropy;
use muster_core::time::{Clock, Timestamp};

/// The system's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

/// Origin of [`SystemClock::steady`].
static FIRST_LOOK: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
    }

    /// Does not advance while the host sleeps. A resume then looks like a clock that was set, which is what is needed:
    /// no agent could be seen in that time.
    fn steady(&self) -> Duration {
        FIRST_LOOK.elapsed()
    }
}

/// The operating system's random number generator.
#[derive(Debug, Default)]
pub struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        // A panic and not an error: no caller could go on with predictable keys.
        self.0.fill(buffer).expect("the operating system's random generator answers");
    }
}
