//! A login at an OpenID provider that was begun in a browser, which keeps it in an encrypted cookie until it comes back.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::entropy::{Entropy, random_bytes};
use crate::id::ProviderId;
use crate::time::Timestamp;

/// Time in which a login must be completed.
pub const LOG_IN_LIFETIME: Duration = Duration::from_secs(600);
/// Maximum length of the path to which a browser returns, bytes.
const MAX_RETURN: usize = 512;
/// Where a browser goes if it named no path.
const START: &str = "/";

/// A login that has begun. Its random values have 256 bits each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingLogIn {
    /// The provider.
    pub provider: ProviderId,
    /// Ties the response of the provider to the browser.
    pub state: String,
    /// Ties the ID token to the login.
    pub nonce: String,
    /// Proof that the code is redeemed by whoever asked for it (RFC 7636).
    pub verifier: String,
    /// Path to which the browser goes afterwards.
    pub return_to: String,
    /// End of its validity, microseconds since 1970.
    pub expires_at: i64,
}

impl PendingLogIn {
    /// Begins a login. A path that could lead to another site is replaced by the start page.
    pub fn begin(provider: ProviderId, return_to: Option<&str>, now: Timestamp, entropy: &dyn Entropy) -> Self {
        let secret = || URL_SAFE_NO_PAD.encode(random_bytes::<32>(entropy));
        Self {
            provider,
            state: secret(),
            nonce: secret(),
            verifier: secret(),
            return_to: return_to.filter(|path| is_local(path)).unwrap_or(START).to_owned(),
            expires_at: now.plus(LOG_IN_LIFETIME).as_micros(),
        }
    }

    /// Returns the PKCE challenge of the verifier (RFC 7636, method S256).
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()))
    }

    /// Returns whether a response with this state belongs to it.
    pub fn has_state(&self, state: &str) -> bool {
        self.state.as_bytes().ct_eq(state.as_bytes()).into()
    }
}

/// Returns whether a browser stays on this site. `//host` and `/\host` are other hosts to browsers.
fn is_local(path: &str) -> bool {
    let second = path.as_bytes().get(1);
    let printable = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    path.starts_with('/') && second != Some(&b'/') && printable && path.len() <= MAX_RETURN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sequence;

    #[test]
    fn a_log_in_never_returns_to_another_site() {
        let to = |path: &str| {
            let provider = ProviderId::trusted("corp");
            PendingLogIn::begin(provider, Some(path), Timestamp::from_micros(0), &Sequence::new()).return_to
        };
        assert_eq!(to("/device?code=A"), "/device?code=A");
        for other in
            ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nb", "", "a", &"/x".repeat(300)]
        {
            assert_eq!(to(other), "/", "{other:?}");
        }
    }

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let provider = ProviderId::trusted("corp");
        let begun = PendingLogIn::begin(provider, None, Timestamp::from_micros(0), &Sequence::new());
        assert_ne!(begun.state, begun.nonce);
        assert!(begun.has_state(&begun.state) && !begun.has_state(&begun.nonce) && !begun.has_state(""));
        // RFC 7636, appendix B.
        assert_eq!(PendingLogIn { verifier, ..begun }.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
