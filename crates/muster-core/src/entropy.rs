//! Randomness comes in through this trait, so that tests are repeatable.

/// A source of random bytes. In production the operating system's generator; in tests a seeded one.
pub trait Entropy: Send + Sync {
    /// Fills `buffer` with random bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// `N` random bytes from `entropy`.
pub fn random_bytes<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// A random UUID (version 4) in text form.
pub fn random_uuid(entropy: &dyn Entropy) -> String {
    uuid::Builder::from_random_bytes(random_bytes(entropy)).into_uuid().to_string()
}
