//! Encryption of values that must be read back (policy secrets, retrievable tokens, the signing key)
//! with the master key, which is kept in a separate file and never in the database.
//!
//! AES-256-GCM with the layout: one byte format, eight bytes key id, twelve bytes nonce, ciphertext with tag. The
//! location of the value is authenticated as well, so that a value moved to another row or column does not decrypt.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use crate::entropy::{Entropy, random_bytes};
use crate::id::{AgentId, ClusterId, EnrollmentKeyId, KeyId, ProviderId, SecretId, UninstallTokenId};

// The first byte, so that another algorithm can be added without touching sealed values.
const FORMAT: u8 = 1;
const KEY_ID_LEN: usize = 8;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;

/// Length of the master key in bytes.
pub const MASTER_KEY_LEN: usize = 32;

/// Error of sealing or opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The length of the master key is not [`MASTER_KEY_LEN`].
    #[error("the master key must have {MASTER_KEY_LEN} bytes")]
    BadKey,
    /// Truncated, or in the format of a newer version.
    #[error("not a sealed value of a known format")]
    Format,
    /// Sealed with another master key.
    #[error("sealed with another master key")]
    OtherKey,
    /// Modified, or moved from another location.
    #[error("the sealed value was changed or belongs elsewhere")]
    Forged,
}

/// Location of a sealed value, which is authenticated with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's id.
    pub row: &'a str,
    /// The column.
    pub column: &'a str,
}

impl<'a> Place<'a> {
    /// A secret of a policy, an output or an action.
    pub fn secret(id: &'a SecretId) -> Self {
        Self { table: "secrets", row: id.as_str(), column: "sealed" }
    }

    /// The token of an enrollment key that may be shown again.
    pub fn enrollment_token(id: &'a EnrollmentKeyId) -> Self {
        Self { table: "enrollment_keys", row: id.as_str(), column: "sealed_token" }
    }

    /// An uninstall token.
    pub fn uninstall_token(id: &'a UninstallTokenId) -> Self {
        Self { table: "uninstall_tokens", row: id.as_str(), column: "sealed" }
    }

    /// The key of an agent at an output.
    pub fn output_key(id: &'a KeyId) -> Self {
        Self { table: "output_keys", row: id.as_str(), column: "sealed" }
    }

    /// How a cluster is reached.
    pub fn output_cluster(id: &'a ClusterId) -> Self {
        Self { table: "output_clusters", row: id.as_str(), column: "sealed" }
    }

    /// The recovery key of the disk of an agent's host.
    pub fn disk_key(id: &'a AgentId) -> Self {
        Self { table: "disk_keys", row: id.as_str(), column: "sealed" }
    }

    /// A request with an idempotency key. `row` consists of the caller and the key.
    pub fn keyed_request(row: &'a str) -> Self {
        Self { table: "idempotency_keys", row, column: "sealed" }
    }

    /// The client secret at an OpenID provider.
    pub fn client_secret(id: &'a ProviderId) -> Self {
        Self { table: "oidc_providers", row: id.as_str(), column: "sealed_secret" }
    }

    /// A login that was begun, in the cookie of a browser.
    pub fn log_in(id: &'a ProviderId) -> Self {
        Self { table: "log_ins", row: id.as_str(), column: "cookie" }
    }

    /// A setting.
    pub fn setting(name: &'a str) -> Self {
        Self { table: "settings", row: name, column: "value" }
    }

    fn associated_data(&self) -> Vec<u8> {
        let parts = [self.table, self.row, self.column];
        // With lengths, so that moving a character from one part to the next changes the data.
        parts.iter().flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.bytes())).collect()
    }
}

/// Seals and opens values with a master key.
pub struct Sealer {
    key: LessSafeKey,
    key_id: [u8; KEY_ID_LEN],
}

impl Sealer {
    /// Creates a sealer from the bytes of the master key. The caller wipes its copy.
    pub fn new(master_key: &[u8]) -> Result<Self, SealError> {
        if master_key.len() != MASTER_KEY_LEN {
            return Err(SealError::BadKey);
        }
        let key = UnboundKey::new(&AES_256_GCM, master_key).map_err(|_| SealError::BadKey)?;
        Ok(Self { key: LessSafeKey::new(key), key_id: key_id(master_key) })
    }

    /// Generates a master key.
    pub fn generate_key(entropy: &dyn Entropy) -> Zeroizing<[u8; MASTER_KEY_LEN]> {
        Zeroizing::new(random_bytes(entropy))
    }

    /// Seals `value` for `place`.
    pub fn seal(&self, place: Place<'_>, value: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, SealError> {
        // Random nonces of 96 bits are safe for 2^32 values per key, far more than a server seals.
        let nonce: [u8; NONCE_LEN] = random_bytes(entropy);
        let mut sealed = Vec::with_capacity(HEADER_LEN + value.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.key_id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let aad = Aad::from(place.associated_data());
        let body = &mut sealed[HEADER_LEN..];
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, body)
            .map_err(|_| SealError::Forged)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a value that was sealed for `place`.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (header, body) = sealed.split_at_checked(HEADER_LEN).ok_or(SealError::Format)?;
        if header[0] != FORMAT {
            return Err(SealError::Format);
        }
        // Not secret, so no constant-time comparison. It turns a wrong key file into a clear error instead of `Forged`.
        if header[1..=KEY_ID_LEN] != self.key_id {
            return Err(SealError::OtherKey);
        }
        let nonce = Nonce::try_assume_unique_for_key(&header[1 + KEY_ID_LEN..]).map_err(|_| SealError::Format)?;
        // Decrypted in a buffer that is wiped, also if the value turns out to be forged.
        let mut plain = Zeroizing::new(body.to_vec());
        let aad = Aad::from(place.associated_data());
        let length = self.key.open_in_place(nonce, aad, &mut plain).map_err(|_| SealError::Forged)?.len();
        // Decrypted in place; the tag is at the end of the buffer.
        plain.truncate(length);
        Ok(plain)
    }
}

// The prefix makes this hash useless for anything else that is derived from the key.
/// Returns the id of a master key, which does not reveal the key.
fn key_id(master_key: &[u8]) -> [u8; KEY_ID_LEN] {
    let mut context = Context::new(&SHA256);
    context.update(b"muster master key id");
    context.update(master_key);
    let mut id = [0; KEY_ID_LEN];
    id.copy_from_slice(&context.finish().as_ref()[..KEY_ID_LEN]);
    id
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sequence;

    const PLACE: Place<'static> = Place { table: "secrets", row: "a", column: "sealed" };

    fn sealed() -> (Sealer, Vec<u8>) {
        let entropy = Sequence::new();
        let sealer = Sealer::new(&*Sealer::generate_key(&entropy)).unwrap();
        let sealed = sealer.seal(PLACE, b"hunter2", &entropy).unwrap();
        (sealer, sealed)
    }

    #[test]
    fn a_sealed_value_opens_only_in_its_place() {
        let (sealer, sealed) = sealed();
        assert_eq!(sealer.open(PLACE, &sealed).unwrap().as_slice(), b"hunter2");
        for moved in [
            Place { row: "b", ..PLACE },
            Place { column: "x", ..PLACE },
            Place { table: "settings", ..PLACE },
            Place { table: "secretsa", row: "", ..PLACE },
        ] {
            assert_eq!(sealer.open(moved, &sealed).unwrap_err(), SealError::Forged, "{moved:?}");
        }
    }

    #[test]
    fn every_changed_byte_and_every_truncation_is_detected() {
        let (sealer, sealed) = sealed();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x40;
            assert!(sealer.open(PLACE, &changed).is_err(), "byte {at}");
            assert!(sealer.open(PLACE, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_master_key_is_recognized_and_invalid_ones_are_rejected() {
        let (_, sealed) = sealed();
        assert_eq!(Sealer::new(&[7; 32]).unwrap().open(PLACE, &sealed).unwrap_err(), SealError::OtherKey);
        assert_eq!(Sealer::new(&[7; 31]).unwrap_err(), SealError::BadKey);
    }

    #[test]
    fn the_value_is_not_visible_and_nonces_differ() {
        let (sealer, first) = sealed();
        let entropy = Sequence::new();
        entropy.fill(&mut [0; 99]);
        let second = sealer.seal(PLACE, b"hunter2", &entropy).unwrap();
        assert_ne!(first, second);
        assert!(!first.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(format!("{sealer:?}"), "Sealer(…)");
    }
}
