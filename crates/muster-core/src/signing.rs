//! Signatures of policies and actions: ECDSA on P-256 with SHA-256 (EA §10.9).
//!
//! The signature covers the exact bytes of `signed.data`, which are never serialized again, so no canonical JSON is
//! needed (EA80). Key pairs and nonces come from the generator of aws-lc, which takes no [`Entropy`](crate::Entropy).

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING};
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::action::{Action, ActionType, Signed};
use crate::id::{ActionId, AgentId};
use crate::time::Timestamp;

/// Signing error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The stored private key is invalid.
    #[error("the signing key is not a P-256 key in PKCS#8")]
    Key,
    /// The library failed.
    #[error("signing failed")]
    Sign,
    /// An action's `data` is not JSON.
    #[error("the action's data is not JSON")]
    Data,
}

/// Verification error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Data, signature or key is not padded base64.
    #[error("not base64")]
    Encoding,
    /// The signature does not match.
    #[error("the signature does not match")]
    Signature,
}

/// Signing key pair of the installation. Agents that pinned its public key reject everything that is signed with
/// another one, so it must be part of every backup.
pub struct Signer {
    pair: EcdsaKeyPair,
    public_key: String,
}

impl Signer {
    /// Generates a key pair, and returns it with its private key in PKCS#8, which the caller seals and stores.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), SigningError> {
        // PKCS#8 is the form that is stored; the pair is then loaded from it, which proves that it can be read back.
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .map_err(|_| SigningError::Key)?;
        // The library wipes its own copy on drop; this one is wiped by `Zeroizing`.
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// Loads a private key from [`Signer::generate`].
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, SigningError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).map_err(|_| SigningError::Key)?;
        let der = pair.public_key().as_der().map_err(|_| SigningError::Key)?;
        // Encoded once, because every compiled policy contains it.
        let public_key = STANDARD.encode(der.as_ref());
        Ok(Self { pair, public_key })
    }

    /// Returns the public key as base64 of its DER SubjectPublicKeyInfo, for `agent.protection.signing_key`.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Signs the bytes.
    pub fn sign(&self, bytes: &[u8]) -> Result<Signed, SigningError> {
        let signature = self.pair.sign(&SystemRandom::new(), bytes).map_err(|_| SigningError::Sign)?;
        Ok(Signed { data: STANDARD.encode(bytes), signature: STANDARD.encode(signature.as_ref()) })
    }

    /// Signs an action for `agents`: the delivered document without `signed`. References to secrets in `data` stay
    /// references (EA84), because the signed copy is stored.
    pub fn sign_action(&self, action: &Action, agents: &[AgentId]) -> Result<Signed, SigningError> {
        // Raw, so that the signed document contains the stored text unchanged.
        let data: Option<&RawValue> =
            action.data.as_deref().map(serde_json::from_str).transpose().map_err(|_| SigningError::Data)?;
        let document = ActionDocument {
            action_id: &action.id,
            agents,
            data,
            expiration: action.expiration.map(Timestamp::to_rfc3339_millis),
            start_time: action.start_time.map(Timestamp::to_rfc3339_seconds),
            timestamp: action.created_at.to_rfc3339_millis(),
            kind: action.kind,
        };
        self.sign(&serde_json::to_vec(&document).map_err(|_| SigningError::Data)?)
    }
}

/// Signed document of an action.
#[derive(Serialize)]
struct ActionDocument<'a> {
    // Field order does not matter for the signature: the serialized bytes themselves are sent.
    action_id: &'a ActionId,
    agents: &'a [AgentId],
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    #[serde(rename = "@timestamp")]
    timestamp: String,
    #[serde(rename = "type")]
    kind: ActionType,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public_key)
    }
}

/// Verifies `signed` with a public key (base64 of DER) and returns the signed bytes. Callers must use these bytes, not
/// the unsigned fields next to them.
pub fn verify(public_key: &str, signed: &Signed) -> Result<Vec<u8>, VerifyError> {
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| VerifyError::Encoding);
    // Base64 with padding only: a signature must have one form.
    let (key, data, signature) = (decode(public_key)?, decode(&signed.data)?, decode(&signed.signature)?);
    // Also rejects keys of other curves and formats.
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
        .verify(&data, &signature)
        .map_err(|_| VerifyError::Signature)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing;

    fn action() -> Action {
        Action {
            expiration: Timestamp::parse_rfc3339("2026-02-01T00:00:00Z").ok(),
            data: Some(r#"{"b": 1, "a":"$co.elastic.secret{x}"}"#.into()),
            ..testing::action(
                "act-1",
                ActionType::Unenroll,
                Timestamp::parse_rfc3339("2026-01-02T03:04:05.678Z").unwrap(),
            )
        }
    }

    #[test]
    fn ea80_signed_bytes_are_sent_unchanged() {
        let (signer, pkcs8) = Signer::generate().unwrap();
        let signed = signer.sign(b"  {\"any\" : 1}\n").unwrap();
        assert_eq!(verify(signer.public_key(), &signed).unwrap(), b"  {\"any\" : 1}\n");
        let again = Signer::from_pkcs8(&pkcs8).unwrap();
        assert_eq!(again.public_key(), signer.public_key());
        assert!(verify(again.public_key(), &signed).is_ok());
    }

    #[test]
    fn ea80_another_key_or_a_changed_byte_is_rejected() {
        let (signer, _) = Signer::generate().unwrap();
        let (other, _) = Signer::generate().unwrap();
        let signed = signer.sign(b"{}").unwrap();
        assert_eq!(verify(other.public_key(), &signed), Err(VerifyError::Signature));
        let changed = Signed { data: STANDARD.encode("{ }"), ..signed.clone() };
        assert_eq!(verify(signer.public_key(), &changed), Err(VerifyError::Signature));
        let garbage = Signed { signature: "%".into(), ..signed };
        assert_eq!(verify(signer.public_key(), &garbage), Err(VerifyError::Encoding));
        assert_eq!(Signer::from_pkcs8(b"no key").unwrap_err(), SigningError::Key);
    }

    #[test]
    fn ea80_ea84_a_signed_action_lists_its_agents_and_keeps_references() {
        let (signer, _) = Signer::generate().unwrap();
        let signed = signer.sign_action(&action(), &[AgentId::trusted("a"), AgentId::trusted("b")]).unwrap();
        let bytes = verify(signer.public_key(), &signed).unwrap();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let expected = json!({
            "action_id": "act-1", "type": "UNENROLL", "agents": ["a", "b"], "@timestamp": "2026-01-02T03:04:05.678Z",
            "expiration": "2026-02-01T00:00:00.000Z", "data": {"a": "$co.elastic.secret{x}", "b": 1}
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn the_private_key_is_never_printed() {
        let (signer, pkcs8) = Signer::generate().unwrap();
        let printed = format!("{signer:?}");
        assert!(!printed.contains(&STANDARD.encode(&pkcs8[..])));
        assert!(printed.contains(signer.public_key()));
    }
}
