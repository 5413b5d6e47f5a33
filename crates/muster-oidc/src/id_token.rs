//! Signatures of ID tokens (RFC 7515). What their claims must say is decided in the core.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use muster_core::reported::shortened_to;
use muster_fleet::identity::openid::ProviderError;
use serde_json::{Map, Value};

/// Maximum length of a foreign name in a message, bytes.
const SHOWN: usize = 80;

/// Reads the header of a token. Algorithms without a public key are rejected: `none`, and those of the HMAC family, with
/// which a public key could be abused as a secret.
pub(crate) fn header(token: &str) -> Result<Header, ProviderError> {
    let first = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    // Parsed here as well, so that an algorithm that the library does not know can be named.
    let raw: Map<String, Value> =
        first.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or(ProviderError::NoToken)?;
    let name = raw.get("alg").and_then(Value::as_str).ok_or(ProviderError::NoToken)?;
    let refused = || ProviderError::Algorithm(shortened_to(name, SHOWN).into_owned());
    let header = jsonwebtoken::decode_header(token).map_err(|_| refused())?;
    match header.alg {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Err(refused()),
        _ => Ok(header),
    }
}

/// Returns whether one of the keys may have signed a token with this header.
pub(crate) fn has_key(keys: &[Jwk], header: &Header) -> bool {
    candidates(keys, header).next().is_some()
}

fn candidates<'a>(keys: &'a [Jwk], header: &'a Header) -> impl Iterator<Item = &'a Jwk> {
    keys.iter().filter(move |key| {
        // A token need not name its key (RFC 7515, section 4.1.4).
        let named = header.kid.is_none() || key.common.key_id == header.kid;
        let signs = !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
        named && signs && fits(&key.algorithm, header.alg)
    })
}

fn fits(key: &AlgorithmParameters, algorithm: Algorithm) -> bool {
    match key {
        AlgorithmParameters::RSA(_) => matches!(
            algorithm,
            Algorithm::RS256
                | Algorithm::RS384
                | Algorithm::RS512
                | Algorithm::PS256
                | Algorithm::PS384
                | Algorithm::PS512
        ),
        AlgorithmParameters::EllipticCurve(_) => matches!(algorithm, Algorithm::ES256 | Algorithm::ES384),
        AlgorithmParameters::OctetKeyPair(_) => algorithm == Algorithm::EdDSA,
        // A shared secret: whoever can verify with it can also sign.
        AlgorithmParameters::OctetKey(_) => false,
    }
}

/// Verifies a token; returns its claims.
pub(crate) fn verify(token: &str, header: &Header, keys: &[Jwk]) -> Result<Map<String, Value>, ProviderError> {
    let mut validation = Validation::new(header.alg);
    // The core checks the claims, by the clock of the server.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let mut tried = false;
    for key in candidates(keys, header) {
        tried = true;
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        if let Ok(verified) = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation) {
            return Ok(verified.claims);
        }
    }
    if tried {
        return Err(ProviderError::Signature);
    }
    let name = header.kid.as_deref().unwrap_or_default();
    Err(ProviderError::UnknownKey(shortened_to(name, SHOWN).into_owned()))
}
