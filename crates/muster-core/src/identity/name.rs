//! Names of users, roles and spaces.

use crate::reported::is_deceptive;

/// Maximum length of a name, bytes.
const MAX_NAME: usize = 128;
/// Maximum length of a text for people, bytes.
const MAX_TEXT: usize = 255;

/// Error for an invalid name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// A character that is not allowed, or a wrong length.
    #[error("must have 1 to {MAX_NAME} letters, digits, or any of . _ - @ +, and begin with a letter or a digit")]
    Characters,
    /// Too long, or with characters that make it look like another text.
    #[error(
        "must have at most {MAX_TEXT} bytes, and no control characters, bidirectional control characters or zero-width spaces"
    )]
    Text,
}

/// Validates the name of an account, and returns it in lower case: two names that differ in case only would be mistaken
/// for each other.
pub fn check_name(name: &str) -> Result<String, BadName> {
    let name = name.trim().to_ascii_lowercase();
    let begins = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    // ASCII only, because letters of other scripts look like Latin ones. Without a colon, which ends the name in Basic
    // credentials.
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte));
    if begins && plain && name.len() <= MAX_NAME { Ok(name) } else { Err(BadName::Characters) }
}

/// Validates a text for people, such as a description.
pub fn check_display(text: &str) -> Result<String, BadName> {
    let text = text.trim();
    if text.len() > MAX_TEXT || text.chars().any(is_deceptive) { Err(BadName::Text) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_safe_in_paths_and_credentials() {
        assert_eq!(check_name(" Ann.Lee@example.org "), Ok("ann.lee@example.org".into()));
        for bad in ["", "-a", ".", "a:b", "a b", "a/b", "ännchen", "a\nb", &"x".repeat(129)] {
            assert_eq!(check_name(bad), Err(BadName::Characters), "{bad:?}");
        }
        assert_eq!(check_display(" Änne  L. "), Ok("Änne  L.".into()));
        assert_eq!(check_display("a\u{7}"), Err(BadName::Text));
        assert_eq!(check_display("a\u{202e}b"), Err(BadName::Text));
        assert_eq!(check_display(&"x".repeat(256)), Err(BadName::Text));
    }
}
