//! Source of randomness, passed as a parameter so that tests are reproducible.

/// Source of random bytes: the operating system's generator in production, a seeded one in tests.
pub trait Entropy: Send + Sync {
    /// Fills `buffer` with random bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// Returns `N` random bytes.
pub fn random_bytes<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Returns a random UUID (version 4) as a string.
pub fn random_uuid(entropy: &dyn Entropy) -> String {
    uuid::Builder::from_random_bytes(random_bytes(entropy)).into_uuid().to_string()
}
