//! Random number generators: one of the operating system, and a seeded one for tests.

use std::sync::Mutex;

use muster_core::Entropy;
use rand::{Rng, SeedableRng};

/// The operating system's random number generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Entropy for System {
    fn fill(&self, buffer: &mut [u8]) {
        rand::rng().fill_bytes(buffer);
    }
}

/// A deterministic generator, which returns the same values for the same seed.
#[derive(Debug)]
pub struct Seeded(Mutex<rand::rngs::StdRng>);

impl Seeded {
    /// Creates a generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(rand::rngs::StdRng::seed_from_u64(seed)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fill_bytes(buffer);
    }
}
