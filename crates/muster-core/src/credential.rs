//! API keys: `id:secret`, base64, sent as `Authorization: ApiKey …` (EA §1.6).
//!
//! A generated secret has at least 192 random bits, so a single SHA-256 can be stored: guessing is hopeless, and no slow hash is
//! needed. Enroll secrets that people bring along have at least 16 bytes.

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

/// Quotes that end up around pasted tokens. Word processors use the curly ones.
const QUOTES: [char; 7] = ['"', '\'', '`', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}'];

/// API key with its secret, as presented or generated. The secret is wiped on drop and never printed.
#[derive(Clone)]
pub struct ApiKey {
    /// Id of the key.
    pub id: KeyId,
    // Private, so that only this module decides where the secret can go.
    secret: Zeroizing<String>,
}

/// SHA-256 of the secret of a key. The secret itself is not stored (M10).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(pub [u8; 32]);

/// A live or revoked credential of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Id of the key.
    pub key_id: KeyId,
    /// Kind.
    pub kind: CredentialKind,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// Time of issue.
    pub created_at: Timestamp,
    /// Time of the last request with it. Written with presence, so it can be up to five minutes old.
    pub last_used_at: Option<Timestamp>,
    /// Time of revocation; `None` if it is live.
    pub revoked_at: Option<Timestamp>,
}

/// Kind of a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    // One host can have several at once, such as the node keys of orbit and osqueryd.
    /// API key with id and secret.
    #[default]
    AccessKey,
    /// Secret without an id, which the server issues to orbit or osqueryd.
    NodeKey,
    /// Secret without an id, which the agent generates and renews for the desktop program of its user.
    DeviceToken,
}

/// A live credential in an agent's record, so that authentication needs no read of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCredential {
    /// Id of the key.
    pub key_id: KeyId,
    /// Kind.
    pub kind: CredentialKind,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// Time of issue.
    pub issued_at: Timestamp,
    /// SHA-256 of the names in the client certificate that it must be presented with, if it is bound to one.
    pub certificate: Option<SecretHash>,
}

impl LiveCredential {
    /// Creates a credential for `key`, issued at `now`.
    pub fn of(key: &ApiKey, kind: CredentialKind, now: Timestamp) -> Self {
        Self { key_id: key.id.clone(), kind, hash: key.hash(), issued_at: now, certificate: None }
    }
}

/// The live credentials of an agent, oldest first; at most [`Self::MOST`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveCredentials(Vec<LiveCredential>);

/// Error for an agent that has the maximum number of live credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent has {} live credentials; no more are issued until one is revoked", LiveCredentials::MOST)]
pub struct TooManyCredentials;

impl LiveCredentials {
    /// Maximum number of live credentials of an agent.
    pub const MOST: usize = 8;

    /// Creates a list with one credential.
    pub fn one(credential: LiveCredential) -> Self {
        Self(vec![credential])
    }

    /// Adds a credential, replacing one with the same key id.
    pub fn issue(&mut self, credential: LiveCredential) -> Result<(), TooManyCredentials> {
        // Replacing comes before the limit: renewing one of eight credentials must work.
        self.revoke(&credential.key_id);
        // Refused instead of revoking the oldest one: that could be the key that the agent is using.
        if self.0.len() >= Self::MOST {
            return Err(TooManyCredentials);
        }
        self.0.push(credential);
        // Not the order of insertion, if the clock was set back in between.
        self.0.sort_by(|a, b| (a.issued_at, &a.key_id).cmp(&(b.issued_at, &b.key_id)));
        Ok(())
    }

    /// Revokes a credential; returns false if it is not live.
    pub fn revoke(&mut self, key: &KeyId) -> bool {
        let before = self.0.len();
        self.0.retain(|credential| credential.key_id != *key);
        self.0.len() < before
    }

    /// Revokes all credentials.
    pub fn revoke_all(&mut self) {
        self.0.clear();
    }

    /// Returns the credential of `key`, if the secret matches.
    pub fn matching(&self, key: &ApiKey) -> Option<&LiveCredential> {
        self.0.iter().find(|credential| credential.key_id == key.id).filter(|credential| key.matches(&credential.hash))
    }

    /// Returns the oldest credential of a kind.
    pub fn first(&self, kind: CredentialKind) -> Option<&LiveCredential> {
        self.0.iter().find(|credential| credential.kind == kind)
    }

    /// Returns whether there are no credentials.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the credentials, oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, LiveCredential> {
        self.0.iter()
    }
}

impl FromIterator<LiveCredential> for LiveCredentials {
    /// Collects stored credentials. Their number was checked when they were issued.
    fn from_iter<I: IntoIterator<Item = LiveCredential>>(credentials: I) -> Self {
        let mut all: Vec<_> = credentials.into_iter().collect();
        all.sort_by(|a, b| (a.issued_at, &a.key_id).cmp(&(b.issued_at, &b.key_id)));
        Self(all)
    }
}

/// Reason why a token is invalid. No message contains any part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Empty.
    #[error("the token is empty")]
    Empty,
    /// It has quotes around it.
    #[error("the token is in quotes; send it without them")]
    Quoted,
    /// Not base64, for instance because it was truncated.
    #[error("the token is not base64; send it exactly as it was printed")]
    NotBase64,
    /// Base64 of bytes that are not UTF-8.
    #[error("the token does not decode to UTF-8; send it exactly as it was printed")]
    NotText,
    /// Base64 of something other than `id:secret`.
    #[error("the token does not decode to id:secret; send it exactly as it was printed")]
    NotIdAndSecret,
}

impl ApiKey {
    /// Generates a key with 15 random bytes of id and 32 of secret, both in URL-safe base64.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::with_id(&random_bytes::<15>(entropy), entropy)
    }

    /// Generates a key whose id starts with the time in milliseconds (6 bytes), for the reason given at
    /// [`time_ordered_uuid`](crate::entropy::time_ordered_uuid). The secret is as random as that of any other key.
    pub fn time_ordered(now: Timestamp, entropy: &dyn Entropy) -> Self {
        let mut id = random_bytes::<15>(entropy);
        // Big-endian, so that ids of about the same time share a prefix.
        id[..6].copy_from_slice(&now.as_unix_millis().to_be_bytes()[2..]);
        Self::with_id(&id, entropy)
    }

    fn with_id(id: &[u8; 15], entropy: &dyn Entropy) -> Self {
        let secret = Zeroizing::new(random_bytes::<32>(entropy));
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice()));
        Self { id: KeyId::trusted(URL_SAFE_NO_PAD.encode(id)), secret }
    }

    /// Parses the token after `ApiKey ` in the header (EA12, EA13).
    pub fn parse(token: &str) -> Result<Self, TokenError> {
        // Pasted tokens end with line breaks.
        let token = token.trim();
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.starts_with(QUOTES) || token.ends_with(QUOTES) {
            return Err(TokenError::Quoted);
        }
        // Contains the secret, so it is wiped on every return path.
        let bytes = Zeroizing::new(STANDARD.decode(token).map_err(|_| TokenError::NotBase64)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| TokenError::NotText)?;
        // The id is used for the look-up only and need not be a valid id: an unknown one is rejected there.
        let (id, secret) = text.split_once(':').ok_or(TokenError::NotIdAndSecret)?;
        // EA13 requires exactly one colon. Generated ids and secrets contain none.
        if secret.contains(':') {
            return Err(TokenError::NotIdAndSecret);
        }
        Ok(Self { id: KeyId::trusted(id), secret: Zeroizing::new(secret.to_owned()) })
    }

    /// Generates a secret without an id: 24 random bytes in base64, the form of fleetd's enroll secrets and node keys.
    pub fn generate_opaque(entropy: &dyn Entropy) -> Self {
        let secret = Zeroizing::new(random_bytes::<24>(entropy));
        Self::opaque(&Zeroizing::new(STANDARD.encode(secret.as_slice())))
    }

    /// Creates a key from a secret without an id, such as a node key or a device token. The id is derived from the
    /// secret by a hash, so that the key is looked up like any other one. It reveals no more than the stored hash.
    pub fn opaque(secret: &str) -> Self {
        // The prefix separates this hash from the stored one, of which the id would otherwise show the first bytes.
        let SecretHash(hash) = SecretHash::of(format!("key id of {secret}").as_bytes());
        let id = URL_SAFE_NO_PAD.encode(&hash[..15]);
        Self { id: KeyId::trusted(format!("o-{id}")), secret: Zeroizing::new(secret.to_owned()) }
    }

    /// Returns the secret, for protocols whose keys have no id.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Returns the token: base64 of `id:secret`.
    pub fn token(&self) -> String {
        STANDARD.encode(Zeroizing::new(format!("{}:{}", self.id, self.secret.as_str())).as_bytes())
    }

    /// Returns the hash to store.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.secret.as_bytes())
    }

    /// Returns whether the secret matches the hash, in constant time.
    pub fn matches(&self, stored: &SecretHash) -> bool {
        // Hashing first makes both sides equally long, and an attacker can't choose the compared bytes.
        self.hash().0.ct_eq(&stored.0).into()
    }
}

impl SecretHash {
    /// Computes the SHA-256 of `secret`.
    pub fn of(secret: &[u8]) -> Self {
        let mut hash = [0; 32];
        // The secret text is hashed, not its decoded bytes, because agents present the text.
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
        Self(hash)
    }

    /// Encodes the hash in URL-safe base64 without padding.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Decodes the output of [`Self::encode`].
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
    fn a_key_round_trips_through_its_token_and_never_prints_its_secret() {
        let key = ApiKey::generate(&Counter);
        let again = ApiKey::parse(&key.token()).unwrap();
        assert_eq!(again.id, key.id);
        assert!(again.matches(&key.hash()));
        assert!(!format!("{key:?}").contains(key.secret.as_str()));
    }

    #[test]
    fn an_opaque_secret_always_gives_the_same_key() {
        let hash = SecretHash::of(b"x");
        assert_eq!(SecretHash::decode(&hash.encode()), Some(hash));
        let (key, again) = (ApiKey::opaque("node key"), ApiKey::opaque("node key"));
        assert_eq!(key.id, again.id);
        assert!(again.matches(&key.hash()) && !key.id.as_str().contains("node"));
        assert_ne!(ApiKey::opaque("node kez").id, key.id);
    }

    #[test]
    fn live_credentials_are_bounded_and_revocable() {
        let credential = |n: usize| LiveCredential {
            key_id: KeyId::trusted(format!("k{n}")),
            kind: CredentialKind::NodeKey,
            hash: SecretHash([n as u8; 32]),
            issued_at: Timestamp::from_micros(n as i64),
            certificate: None,
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
    fn malformed_tokens_have_distinct_errors() {
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
