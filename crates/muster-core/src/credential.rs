//! API keys: `id:secret`, base64, sent as `Authorization: ApiKey …` (EA §1.6).
//!
//! A secret is 256 random bits, so one SHA-256 of it is all that is stored and no slow hash is needed.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::entropy::{Entropy, random_bytes};
use crate::id::KeyId;
use crate::time::Timestamp;

/// Quotes that shells, spreadsheets and word processors put around a token.
const QUOTES: [char; 7] = ['"', '\'', '`', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}'];

/// A presented or freshly made API key. Its secret is wiped on drop and never printed.
#[derive(Clone)]
pub struct ApiKey {
    /// Id of the key.
    pub id: KeyId,
    secret: Zeroizing<String>,
}

/// SHA-256 of a key's secret text: all that is stored of it (M10).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(pub [u8; 32]);

/// One credential of an agent: the live one, or one of those that it had before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Id of the key.
    pub key_id: KeyId,
    /// What it is.
    pub kind: CredentialKind,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// When it was issued.
    pub created_at: Timestamp,
    /// The last check-in with it that was written down, once it is revoked. A live one is in use.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked; `None`: it is live.
    pub revoked_at: Option<Timestamp>,
}

/// What an agent authenticates with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// An API key: id and secret.
    #[default]
    AccessKey,
    /// A secret without an id, looked up by its hash.
    NodeKey,
}

/// Why a token is invalid. No message repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing.
    #[error("the token is empty")]
    Empty,
    /// It came with the quotes around it.
    #[error("the token is in quotes; send it without them")]
    Quoted,
    /// Not base64: cut short, or something else.
    #[error("the token is not base64; send it exactly as it was printed")]
    NotBase64,
    /// Base64 of bytes that are not UTF-8.
    #[error("the token does not decode to text; send it exactly as it was printed")]
    NotText,
    /// Base64 of something other than `id:secret`.
    #[error("the token does not decode to id:secret; send it exactly as it was printed")]
    NotIdAndSecret,
}

impl ApiKey {
    /// Makes a key: 15 random bytes of id, 32 of secret, both in URL-safe base64.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let id = URL_SAFE_NO_PAD.encode(random_bytes::<15>(entropy));
        let secret = Zeroizing::new(random_bytes::<32>(entropy));
        Self { id: KeyId::trusted(id), secret: Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice())) }
    }

    /// Reads what follows `ApiKey ` in the header (EA12, EA13).
    pub fn parse(token: &str) -> Result<Self, TokenError> {
        let token = token.trim();
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.starts_with(QUOTES) || token.ends_with(QUOTES) {
            return Err(TokenError::Quoted);
        }
        // Wiped like the secret that it holds, however this ends.
        let bytes = Zeroizing::new(STANDARD.decode(token).map_err(|_| TokenError::NotBase64)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| TokenError::NotText)?;
        let (id, secret) = text.split_once(':').ok_or(TokenError::NotIdAndSecret)?;
        // EA13 asks for exactly one colon; ids and secrets that we make have none.
        if secret.contains(':') {
            return Err(TokenError::NotIdAndSecret);
        }
        Ok(Self { id: KeyId::trusted(id), secret: Zeroizing::new(secret.to_owned()) })
    }

    /// The token to hand out: base64 of `id:secret`.
    pub fn token(&self) -> String {
        STANDARD.encode(Zeroizing::new(format!("{}:{}", self.id, self.secret.as_str())).as_bytes())
    }

    /// What is stored of the secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.secret.as_bytes())
    }

    /// Whether this key's secret is the one with that hash, in constant time.
    pub fn matches(&self, stored: &SecretHash) -> bool {
        self.hash().0.ct_eq(&stored.0).into()
    }
}

impl SecretHash {
    /// The SHA-256 of `secret`.
    pub fn of(secret: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
        Self(hash)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}:…)", self.id)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter;
    impl Entropy for Counter {
        fn fill(&self, buffer: &mut [u8]) {
            for (i, byte) in buffer.iter_mut().enumerate() {
                *byte = i as u8;
            }
        }
    }

    #[test]
    fn a_key_survives_its_token_and_never_prints_its_secret() {
        let key = ApiKey::generate(&Counter);
        let again = ApiKey::parse(&key.token()).unwrap();
        assert_eq!(again.id, key.id);
        assert!(again.matches(&key.hash()));
        assert!(!format!("{key:?}").contains(key.secret.as_str()));
    }

    #[test]
    fn malformed_tokens_are_told_apart() {
        assert_eq!(ApiKey::parse(" ").unwrap_err(), TokenError::Empty);
        assert_eq!(ApiKey::parse("%%%").unwrap_err(), TokenError::NotBase64);
        assert_eq!(ApiKey::parse(&STANDARD.encode([0xff, 0xfe])).unwrap_err(), TokenError::NotText);
        assert_eq!(ApiKey::parse(&STANDARD.encode("nocolon")).unwrap_err(), TokenError::NotIdAndSecret);
        assert_eq!(ApiKey::parse(&STANDARD.encode("a:b:c")).unwrap_err(), TokenError::NotIdAndSecret);
        for quotes in ["\"\"", "''", "\u{201c}\u{201d}"] {
            let (open, close) = quotes.split_at(quotes.len() / 2);
            let quoted = format!("{open}{}{close}", STANDARD.encode("a:b"));
            assert_eq!(ApiKey::parse(&quoted).unwrap_err(), TokenError::Quoted, "{quoted}");
        }
    }
}
