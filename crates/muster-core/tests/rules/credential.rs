//! API keys in headers (EA §1.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::credential::{ApiKey, SecretHash, TokenError};
use muster_core::testing::Sequence;
use muster_core::time::Timestamp;
use proptest::prelude::*;

proptest! {
    #[test]
    fn ea12_any_header_is_parsed_without_a_panic(token in any::<String>()) {
        let _ = ApiKey::parse(&token);
    }

    #[test]
    fn ea12_a_token_is_base64_of_id_and_secret(id in "[^:]{0,12}", secret in "[^:]{0,12}", space in "[ \t]{0,2}") {
        let token = STANDARD.encode(format!("{id}:{secret}"));
        let key = ApiKey::parse(&format!("{space}{token}{space}")).unwrap();
        prop_assert_eq!((key.id.as_str(), key.token()), (id.as_str(), token));
        prop_assert_eq!(key.hash(), SecretHash::of(secret.as_bytes()));
    }

    #[test]
    fn ea13_any_other_number_of_colons_is_malformed(parts in prop::collection::vec("[^:]{0,4}", 1..6)) {
        prop_assume!(parts.len() != 2);
        let token = STANDARD.encode(parts.join(":"));
        let expected = if token.is_empty() { TokenError::Empty } else { TokenError::NotIdAndSecret };
        prop_assert_eq!(ApiKey::parse(&token).unwrap_err(), expected);
    }

    #[test]
    fn ea12_tokens_that_are_not_utf8_are_invalid(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
        let parsed = ApiKey::parse(&STANDARD.encode(&bytes));
        prop_assert_eq!(parsed.is_err_and(|error| error == TokenError::NotText), std::str::from_utf8(&bytes).is_err());
    }

    #[test]
    fn only_the_whole_secret_matches(secret in "[a-zA-Z0-9_-]{1,43}", other in "[a-zA-Z0-9_-]{1,43}") {
        let key = |secret: &str| ApiKey::parse(&STANDARD.encode(format!("id:{secret}"))).unwrap();
        let stored = key(&secret).hash();
        prop_assert_eq!(key(&other).matches(&stored), other == secret);
        prop_assert!(!key(&secret[1..]).matches(&stored), "truncated");
        prop_assert!(!key(&format!("{secret}\0")).matches(&stored), "with a NUL");
    }
}

#[test]
fn generated_keys_differ_and_do_not_reveal_their_secret() {
    let entropy = Sequence::new();
    let now = Timestamp::from_micros(1_800_000_000_000_000);
    let make = |number| if number < 50 { ApiKey::generate(&entropy) } else { ApiKey::time_ordered(now, &entropy) };
    let keys: Vec<ApiKey> = (0..100).map(make).collect();
    let mut tokens: Vec<String> = keys.iter().map(ApiKey::token).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), keys.len());
    for key in keys {
        let text = String::from_utf8(STANDARD.decode(key.token()).unwrap()).unwrap();
        let (id, secret) = text.split_once(':').unwrap();
        assert_eq!((id.len(), secret.len()), (20, 43), "15 and 32 bytes in base64");
        assert!(!format!("{key:?} {:?}", key.hash()).contains(secret));
    }
}
