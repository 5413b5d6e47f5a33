//! Uninstall tokens: with one, a protected agent can be uninstalled on its host (MG §4.5).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::entropy::{Entropy, random_bytes};
use crate::hex;
use crate::id::{PolicyId, SpaceId, UninstallTokenId};
use crate::time::Timestamp;

/// An uninstall token of a policy. It is not deleted with the policy, because agents may still be protected by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UninstallToken {
    /// Its id.
    pub id: UninstallTokenId,
    /// The space of the policy.
    pub space: SpaceId,
    /// The policy.
    pub policy_id: PolicyId,
    /// Number among the tokens of the policy, from 1. Agents accept the newest one that reached them.
    pub number: i64,
    /// Hash in compiled policies: base64 of the SHA-256 of the text (MG80).
    pub hash: String,
    /// The encrypted text.
    pub sealed: Vec<u8>,
    /// Creation time.
    pub created_at: Timestamp,
}

/// Generates the text of a token: 32 hexadecimal digits.
pub fn generate(entropy: &dyn Entropy) -> Zeroizing<String> {
    let bytes = Zeroizing::new(random_bytes::<16>(entropy));
    Zeroizing::new(hex::encode(&*bytes))
}

/// Returns the hash of the text of a token.
pub fn hash(token: &str) -> String {
    STANDARD.encode(digest(&SHA256, token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sequence;

    #[test]
    fn mg80_a_token_is_hexadecimal_and_its_hash_is_base64_of_sha_256() {
        let token = generate(&Sequence::new());
        assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", *token);
        assert_eq!(hash("abc"), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }
}
