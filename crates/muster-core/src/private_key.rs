//! Private keys that are encrypted with a passphrase: PKCS#8 (RFC 5958) with PBES2 (RFC 8018), in PEM.

use pkcs8::der::pem::LineEnding;
use pkcs8::{EncryptedPrivateKeyInfo, SecretDocument};
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// Label of a key that is not encrypted.
const PLAIN: &str = "PRIVATE KEY";

/// Why a key cannot be decrypted.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// It is not encrypted, or in another format.
    #[error(
        "the key is not an encrypted PKCS#8 key in PEM, as `openssl pkcs8 -topk8` writes it, so that a passphrase has no use"
    )]
    Other,
    /// It is corrupt.
    #[error("the encrypted key is corrupt: {0}")]
    Malformed(pkcs8::Error),
    /// The passphrase is wrong, or the key uses an algorithm that is not supported.
    #[error("the key cannot be decrypted with this passphrase: {0}")]
    Decrypt(pkcs8::Error),
}

/// Returns whether a PEM text contains a PKCS#8 key that is encrypted.
pub fn is_encrypted(pem: &str) -> bool {
    pem.contains(BEGIN)
}

/// Returns the first encrypted key of a PEM text without its encryption, in PEM. Passphrases of files end with the line.
pub fn decrypt(pem: &str, passphrase: &str) -> Result<Zeroizing<String>, BadKey> {
    let corrupt = |error: pkcs8::der::Error| BadKey::Malformed(error.into());
    let start = pem.find(BEGIN).ok_or(BadKey::Other)?;
    let length = pem[start..].find(END).ok_or(BadKey::Other)? + END.len();
    let (_, document) = SecretDocument::from_pem(&pem[start..start + length]).map_err(corrupt)?;
    let encrypted = EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(BadKey::Malformed)?;
    let key = encrypted.decrypt(passphrase).map_err(BadKey::Decrypt)?;
    key.to_pem(PLAIN, LineEnding::LF).map_err(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ENCRYPTED_KEY as ENCRYPTED, PASSPHRASE};

    #[test]
    fn ag13_a_key_of_openssl_is_decrypted_with_its_passphrase_only() {
        let with_others = format!("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n{ENCRYPTED}");
        for pem in [ENCRYPTED, with_others.as_str()] {
            let key = decrypt(pem, PASSPHRASE).unwrap();
            assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"), "it is a key");
            assert!(!is_encrypted(&key) && is_encrypted(pem));
        }
        let wrong = decrypt(ENCRYPTED, "other").unwrap_err();
        assert!(matches!(wrong, BadKey::Decrypt(_)) && !wrong.to_string().contains("canary"), "{wrong}");
        assert!(matches!(decrypt("-----BEGIN PRIVATE KEY-----\n", "x"), Err(BadKey::Other)));
        assert!(matches!(decrypt(&ENCRYPTED.replace("MI", "M!"), "x"), Err(BadKey::Malformed(_))));
    }
}
