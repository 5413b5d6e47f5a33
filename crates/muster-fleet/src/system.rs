//! The real clock and the real generator; tests pass their own.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use muster_core::Entropy;
use muster_core::time::{Clock, Timestamp};

/// The system's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
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
