//! Checks an enrollment token before it is sent. Pasted tokens often contain line breaks or quotes, or are not tokens
//! at all.
//!
//! No message contains any part of the token, because other people can read terminals and logs.

use muster_core::credential::{ApiKey, TokenError};

/// Why an enrollment token is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// The token is empty or contains only white space.
    #[error("the enrollment token is empty")]
    Empty,
    /// The token contains a line break.
    #[error("the enrollment token contains a line break")]
    LineBreak,
    /// The token contains spaces, tabs, or invisible characters.
    #[error("the enrollment token contains white space or control characters")]
    Space,
    /// The token begins with `ApiKey`, as in the header of a request.
    #[error("the enrollment token begins with `ApiKey`, which is not part of the token")]
    Header,
    /// The token is `id:secret`, without base64 encoding.
    #[error("the enrollment token contains a colon: it is not base64-encoded")]
    Decoded,
    /// The token contains quotes, is not base64, or is the base64 of something else.
    #[error(transparent)]
    Malformed(#[from] TokenError),
}

/// Checks that `token` has the format of an enrollment token.
pub fn check(token: &str) -> Result<(), BadToken> {
    if token.trim().is_empty() {
        return Err(BadToken::Empty);
    }
    if token.contains(['\n', '\r']) {
        return Err(BadToken::LineBreak);
    }
    if token.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("apikey")) {
        return Err(BadToken::Header);
    }
    // Tokens that are copied from web pages or Windows files can contain zero-width characters or a byte order mark.
    if token.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}')) {
        return Err(BadToken::Space);
    }
    match ApiKey::parse(token) {
        Ok(_) => Ok(()),
        Err(TokenError::NotBase64) if token.contains(':') => Err(BadToken::Decoded),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_exactly_as_printed_is_accepted() {
        let good = "dG9rOmVu";
        assert_eq!(check(good), Ok(()));
        for (token, reason) in [
            ("", BadToken::Empty),
            ("  \n", BadToken::Empty),
            ("dG9rOmVu\n", BadToken::LineBreak),
            ("dG9rOmVu\r", BadToken::LineBreak),
            ("dG9r\r\nOmVu", BadToken::LineBreak),
            (" dG9rOmVu", BadToken::Space),
            ("dG9r OmVu", BadToken::Space),
            ("\u{feff}dG9rOmVu", BadToken::Space),
            ("dG9rOmVu\u{200b}", BadToken::Space),
            ("dG9r\u{0}OmVu", BadToken::Space),
            ("ApiKey dG9rOmVu", BadToken::Header),
            ("tok:en", BadToken::Decoded),
            ("\"dG9rOmVu\"", BadToken::Malformed(TokenError::Quoted)),
            ("'dG9rOmVu'", BadToken::Malformed(TokenError::Quoted)),
            ("\u{201c}dG9rOmVu\u{201d}", BadToken::Malformed(TokenError::Quoted)),
            ("my-token!", BadToken::Malformed(TokenError::NotBase64)),
            ("dG9rOmV", BadToken::Malformed(TokenError::NotBase64)),
            ("//79", BadToken::Malformed(TokenError::NotText)),
            ("aGVsbG8=", BadToken::Malformed(TokenError::NotIdAndSecret)),
        ] {
            assert_eq!(check(token), Err(reason), "{token:?}");
        }
    }

    #[test]
    fn no_message_contains_the_token() {
        for token in ["s3cretXYZ!", "s3cretXYZ:x", "\"s3cretXYZ\"", "s3cretXYZ\n"] {
            assert!(!check(token).unwrap_err().to_string().contains("s3cretXYZ"), "{token:?}");
        }
    }
}
