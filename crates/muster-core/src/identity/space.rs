//! Spaces: tenants.

use crate::id::SpaceId;
use crate::time::Timestamp;

/// Maximum length of the id of a space, bytes.
const MAX_ID: usize = 64;

/// A space. The default space always exists, also without a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Id, which is part of URLs.
    pub id: SpaceId,
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Number of changes, for preconditions.
    pub version: i64,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

impl Space {
    /// Returns the default space, as it is before anybody renames it.
    pub fn default_space() -> Self {
        let start = Timestamp::from_micros(0);
        Self {
            id: SpaceId::default(),
            name: "Default".into(),
            description: String::new(),
            version: 0,
            created_at: start,
            updated_at: start,
        }
    }
}

/// Error for an invalid id of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {MAX_ID} lower-case letters, digits, `_` or `-`, and not begin with `-`")]
pub struct BadSpaceId;

/// Validates the id of a new space (MG §8.2).
pub fn new_space_id(text: &str) -> Result<SpaceId, BadSpaceId> {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    // Commands would take a leading hyphen for an option.
    let fits = (1..=MAX_ID).contains(&text.len()) && !text.starts_with('-');
    if plain && fits { Ok(SpaceId::trusted(text)) } else { Err(BadSpaceId) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_spaces_are_segments_of_urls() {
        assert_eq!(new_space_id("team_1-eu"), Ok(SpaceId::trusted("team_1-eu")));
        for bad in ["", "Blue", "a b", "a/b", "a.b", "-a", "ä", &"x".repeat(65)] {
            assert_eq!(new_space_id(bad), Err(BadSpaceId), "{bad:?}");
        }
    }
}
