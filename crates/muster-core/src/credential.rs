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

/// One credential of an agent: a live one, or one of those that it had before.
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
    /// The last request with it; up to five minutes old, as presence is.
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
    /// A secret without an id, which the server gives to orbit or osqueryd.
    NodeKey,
    /// A secret without an id, which the agent makes and renews, for the program that a person of the host sees.
    DeviceToken,
}

/// A live credential as an agent's record carries it, so that a request is compared without a read of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCredential {
    /// Id of the key.
    pub key_id: KeyId,
    /// What it is.
    pub kind: CredentialKind,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// When it was issued.
    pub issued_at: Timestamp,
}

impl LiveCredential {
    /// The credential that this key is to be from now on.
    pub fn of(key: &ApiKey, kind: CredentialKind, now: Timestamp) -> Self {
        Self { key_id: key.id.clone(), kind, hash: key.hash(), issued_at: now }
    }
}

/// The live credentials of an agent, the oldest first: at most [`Self::MOST`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveCredentials(Vec<LiveCredential>);

/// An agent has as many live credentials as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent has {} live credentials; no more are issued until one is revoked", LiveCredentials::MOST)]
pub struct TooManyCredentials;

impl LiveCredentials {
    /// Most live credentials of an agent.
    pub const MOST: usize = 8;

    /// A single one.
    pub fn one(credential: LiveCredential) -> Self {
        Self(vec![credential])
    }

    /// One more. It replaces the one of the same key.
    pub fn issue(&mut self, credential: LiveCredential) -> Result<(), TooManyCredentials> {
        self.revoke(&credential.key_id);
        if self.0.len() >= Self::MOST {
            return Err(TooManyCredentials);
        }
        self.0.push(credential);
        self.0.sort_by(|a, b| (a.issued_at, &a.key_id).cmp(&(b.issued_at, &b.key_id)));
        Ok(())
    }

    /// Ends one; false if it is not live.
    pub fn revoke(&mut self, key: &KeyId) -> bool {
        let before = self.0.len();
        self.0.retain(|credential| credential.key_id != *key);
        self.0.len() < before
    }

    /// Ends all.
    pub fn revoke_all(&mut self) {
        self.0.clear();
    }

    /// The one that the key is, if its secret is right.
    pub fn matching(&self, key: &ApiKey) -> Option<&LiveCredential> {
        self.0.iter().find(|credential| credential.key_id == key.id).filter(|credential| key.matches(&credential.hash))
    }

    /// The first one of a kind.
    pub fn first(&self, kind: CredentialKind) -> Option<&LiveCredential> {
        self.0.iter().find(|credential| credential.kind == kind)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, LiveCredential> {
        self.0.iter()
    }
}

impl FromIterator<LiveCredential> for LiveCredentials {
    /// As the store has them: their number was checked when they were issued.
    fn from_iter<I: IntoIterator<Item = LiveCredential>>(credentials: I) -> Self {
        let mut all: Vec<_> = credentials.into_iter().collect();
        all.sort_by(|a, b| (a.issued_at, &a.key_id).cmp(&(b.issued_at, &b.key_id)));
        Self(all)
    }
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

    /// A secret that comes without an id, as node keys and device tokens do. Its id is made of its hash, so that it is
    /// found as every other key is, and who reads the id learns no more than who reads the stored hash.
    pub fn opaque(secret: &str) -> Self {
        let SecretHash(hash) = SecretHash::of(format!("key id of {secret}").as_bytes());
        let id = URL_SAFE_NO_PAD.encode(&hash[..15]);
        Self { id: KeyId::trusted(format!("o-{id}")), secret: Zeroizing::new(secret.to_owned()) }
    }

    /// The secret alone, for protocols whose keys have no id.
    pub fn secret(&self) -> &str {
        &self.secret
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

    /// The hash as text: URL-safe base64 without padding.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
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
    fn an_opaque_secret_is_always_the_same_key() {
        let hash = SecretHash::of(b"x");
        assert_eq!(SecretHash::decode(&hash.encode()), Some(hash));
        let (key, again) = (ApiKey::opaque("node key"), ApiKey::opaque("node key"));
        assert_eq!(key.id, again.id);
        assert!(again.matches(&key.hash()) && !key.id.as_str().contains("node"));
        assert_ne!(ApiKey::opaque("node kez").id, key.id);
    }

    #[test]
    fn live_credentials_are_bounded_and_end_one_by_one() {
        let credential = |n: usize| LiveCredential {
            key_id: KeyId::trusted(format!("k{n}")),
            kind: CredentialKind::NodeKey,
            hash: SecretHash([n as u8; 32]),
            issued_at: Timestamp::from_micros(n as i64),
        };
        let mut live = LiveCredentials::default();
        for n in 0..LiveCredentials::MOST {
            live.issue(credential(n)).unwrap();
        }
        assert_eq!(live.issue(credential(100)), Err(TooManyCredentials));
        live.issue(credential(3)).expect("the same key takes its own place");
        assert!(live.revoke(&KeyId::trusted("k0")) && !live.revoke(&KeyId::trusted("k0")));
        assert_eq!(live.first(CredentialKind::NodeKey), Some(&credential(1)));
        live.revoke_all();
        assert!(live.is_empty());
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
