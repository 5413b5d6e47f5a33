//! The documents that an agent reports with each check-in: their fingerprints, and the few facts read from them. They
//! are read as they stream by and kept as text; no tree of their values is ever built.

pub mod components;
pub mod metadata;

use std::hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState};
use std::sync::LazyLock;

/// A short fingerprint of a document, to notice changes without keeping the document in memory.
pub type Digest = [u8; 16];

/// The fingerprint of a document's very bytes: cheap, and enough to see that nothing changed.
pub fn text_digest(raw: &str) -> Digest {
    bytes_digest(&[raw.as_bytes()])
}

/// The fingerprint of a few byte strings in a row.
pub fn bytes_digest(fields: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new();
    fields.iter().for_each(|field| hasher.field(field));
    hasher.finish()
}

/// Length of the object at the beginning of `rest` if its text has this [`text_digest`]: then it was read before.
pub fn known_text(rest: &[u8], digest: &Digest) -> Option<usize> {
    let (_, length) = digest.split_last_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let text = rest.get(..length).and_then(|text| std::str::from_utf8(text).ok())?;
    (text.starts_with('{') && text_digest(text) == *digest).then_some(length)
}

/// The keyed hash of the standard library, and the number of bytes. The key is this process's own: fingerprints are kept
/// in memory only, and an agent that does not know the key can't even fool itself.
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

    /// A field with its length before it, so that two fields never read like two others.
    fn field(&mut self, bytes: &[u8]) {
        self.hasher.write_usize(bytes.len());
        self.update(bytes);
    }

    fn finish(self) -> Digest {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&self.hasher.finish().to_le_bytes());
        digest[8..].copy_from_slice(&self.bytes.to_le_bytes());
        digest
    }
}
