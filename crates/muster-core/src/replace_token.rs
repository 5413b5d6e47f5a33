//! Replace tokens, with which a reinstalled host takes over its record (EA §3.4). People choose them, so they need a
//! slow hash: `$pbkdf2-sha512$<iterations>$<salt>$<key>`, with salt and key in base64 without padding (EA43).

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::entropy::{Entropy, random_bytes};

/// Number of iterations for new hashes.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(210_000).expect("210 000 is not zero");
/// Maximum number of iterations in a stored hash. More would block a thread for minutes, so such a hash is corrupt.
const MAX_ITERATIONS: u32 = 10_000_000;
const LABEL: &str = "pbkdf2-sha512";
const KEY_BYTES: usize = 32;
/// Minimum length of key and salt in a stored hash.
const MIN_KEY_BYTES: usize = 14;
const MIN_SALT_BYTES: usize = 16;

/// Hashes `token` with a new salt. Deliberately slow: do not call it on a runtime thread.
pub fn hash(token: &str, iterations: NonZeroU32, entropy: &dyn Entropy) -> String {
    let salt = random_bytes::<64>(entropy);
    let mut key = [0; KEY_BYTES];
    pbkdf2::derive(PBKDF2_HMAC_SHA512, iterations, &salt, token.as_bytes(), &mut key);
    format!("${LABEL}${iterations}${}${}", STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(key))
}

/// Returns whether `token` matches the hash, in constant time. A malformed hash matches nothing.
/// As slow as [`hash`].
pub fn verify(token: &str, stored: &str) -> bool {
    // The stored number of iterations counts, so that older hashes stay valid when the constant is raised.
    let Some((iterations, salt, key)) = read(stored) else { return false };
    pbkdf2::verify(PBKDF2_HMAC_SHA512, iterations, &salt, token.as_bytes(), &key).is_ok()
}

fn read(stored: &str) -> Option<(NonZeroU32, Vec<u8>, Vec<u8>)> {
    let mut parts = stored.strip_prefix('$')?.split('$');
    if parts.next()? != LABEL {
        return None;
    }
    let iterations: NonZeroU32 = parts.next()?.parse().ok()?;
    let salt = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    let key = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    // A short key would match many tokens: two bytes, one in 65,536.
    let valid = parts.next().is_none()
        && iterations.get() <= MAX_ITERATIONS
        && salt.len() >= MIN_SALT_BYTES
        && key.len() >= MIN_KEY_BYTES;
    valid.then_some((iterations, salt, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sequence;

    const FEW: NonZeroU32 = NonZeroU32::new(1000).unwrap();

    #[test]
    fn ea43_tokens_are_hashed_in_the_reference_format_and_verified() {
        let entropy = Sequence::new();
        let stored = hash("correct horse", FEW, &entropy);
        assert!(stored.starts_with("$pbkdf2-sha512$1000$") && !stored.contains('='));
        assert!(verify("correct horse", &stored));
        assert!(!verify("correct horsf", &stored));
        assert!(!verify("", &stored));
        assert_ne!(stored, hash("correct horse", FEW, &entropy), "every hash has its own salt");
    }

    #[test]
    fn ea43_hashes_of_other_implementations_are_verified() {
        // Computed with Python: hashlib.pbkdf2_hmac("sha512", b"replace-me", b"0123456789abcdef", 1000, 32).
        let stored = "$pbkdf2-sha512$1000$MDEyMzQ1Njc4OWFiY2RlZg$g1x8/ay/zZ5MXB+DnkxWcCIs7UhBsxiYAkTOLX0cmGU";
        assert!(verify("replace-me", stored));
    }

    #[test]
    fn ea40_malformed_hashes_match_no_token() {
        let good = hash("t", FEW, &Sequence::new());
        for bad in [
            String::new(),
            good.replacen('$', "", 1),
            good.replace("sha512", "sha256"),
            good.replace("1000", "0"),
            good.replace("1000", "4294967295"),
            format!("{good}$"),
            "$pbkdf2-sha512$1000$c2FsdA$a2V5".into(),
            "$pbkdf2-sha512$1000$%$%".into(),
        ] {
            assert!(!verify("t", &bad), "{bad}");
        }
    }
}
