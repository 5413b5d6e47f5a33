//! Documents that an agent reports in check-ins: their fingerprints, and the few facts that are read from them. They
//! are parsed as a stream and kept as text; a tree of their values is never built, because it would take a multiple of
//! their size.

pub mod components;
pub mod metadata;

use std::hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState};
use std::sync::LazyLock;

/// Short fingerprint of a document, for detecting changes without keeping the document in memory.
pub type Digest = [u8; 16];

/// Returns the fingerprint of the exact text: cheap, and sufficient to see that nothing changed.
pub fn text_digest(raw: &str) -> Digest {
    bytes_digest(&[raw.as_bytes()])
}

/// Returns the fingerprint of a sequence of byte strings.
pub fn bytes_digest(fields: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new();
    fields.iter().for_each(|field| hasher.field(field));
    hasher.finish()
}

/// Returns the length of the object at the beginning of `rest` if its text has this [`text_digest`], which means that
/// it was parsed before and can be skipped.
pub fn known_text(rest: &[u8], digest: &Digest) -> Option<usize> {
    // The fingerprint contains the length, so the end of the object is known without parsing it.
    let (_, length) = digest.split_last_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let text = rest.get(..length).and_then(|text| std::str::from_utf8(text).ok())?;
    // The end is only a guess from the old length until the hash of these bytes matches.
    (text.starts_with('{') && text_digest(text) == *digest).then_some(length)
}

/// Keyed hash of the standard library, and the number of bytes. The key is random for each process: fingerprints stay
/// in memory, and agents can't construct collisions.
struct Hasher {
    hasher: DefaultHasher,
    bytes: u64,
}

static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Hasher {
    fn new() -> Self {
        Self { hasher: KEY.build_hasher(), bytes: 0 }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.write(bytes);
    }

    /// Hashes a field with its length, so that different sequences of fields never have the same input.
    fn field(&mut self, bytes: &[u8]) {
        self.hasher.write_usize(bytes.len());
        self.update(bytes);
    }

    fn finish(self) -> Digest {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&self.hasher.finish().to_le_bytes());
        // The length is kept as it is, not hashed: `known_text` reads it back.
        digest[8..].copy_from_slice(&self.bytes.to_le_bytes());
        digest
    }
}
