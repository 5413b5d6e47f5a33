//! Validation of tags: free text, case-sensitive, unique, in order of first appearance.

use muster_core::Error;
use muster_core::lifecycle::changed_tags;

/// Maximum length of a tag in bytes.
const MAX_TAG_BYTES: usize = 256;
/// Maximum number of tags on one agent or key.
const MAX_TAGS: usize = 256;

/// Validates tags of a request and removes duplicates.
pub fn clean_tags(field: &str, tags: &[String]) -> Result<Vec<String>, Error> {
    let mut clean: Vec<String> = Vec::new();
    for (at, tag) in tags.iter().map(|tag| tag.trim()).enumerate() {
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.chars().any(char::is_control) {
            // Control characters would reach the terminal of everyone who lists agents.
            let reason = format!("a tag has 1 to {MAX_TAG_BYTES} bytes and no control characters");
            return Err(Error::invalid(format!("{field}[{at}]"), reason));
        }
        if !clean.iter().any(|known| known == tag) {
            // Checked before the next search for a duplicate, which compares with all of them.
            if clean.len() == MAX_TAGS {
                return Err(Error::invalid(field, format!("at most {MAX_TAGS} tags")));
            }
            clean.push(tag.to_owned());
        }
    }
    Ok(clean)
}

/// Tags to add and to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagChange {
    /// Tags to add.
    pub add: Vec<String>,
    /// Tags to remove.
    pub remove: Vec<String>,
}

impl TagChange {
    /// Validates the change of a request.
    pub fn parse(add: &[String], remove: &[String]) -> Result<Self, Error> {
        let change = Self { add: clean_tags("tagsToAdd", add)?, remove: clean_tags("tagsToRemove", remove)? };
        if change.add.is_empty() && change.remove.is_empty() {
            return Err(Error::invalid("tagsToAdd", "tagsToAdd and tagsToRemove are both empty"));
        }
        Ok(change)
    }

    /// Returns the tags after the change. If one tag is added and one removed, it is renamed in place.
    pub fn apply(&self, tags: &[String]) -> Vec<String> {
        changed_tags(tags, &self.add, &self.remove)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn mg32_duplicate_tags_are_removed_and_the_order_is_kept() {
        assert_eq!(clean_tags("tags", &words("b a b A a")).unwrap(), ["b", "a", "A"]);
    }

    #[test]
    fn invalid_tag_is_reported_with_its_index() {
        let error = clean_tags("tags", &["ok".into(), " ".into()]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("tags[1]"));
        assert!(clean_tags("tags", &["\u{1b}[31m".into()]).is_err());
        assert!(TagChange::parse(&[], &[]).is_err());
    }

    #[test]
    fn number_of_tags_is_limited_before_they_are_compared() {
        let many: Vec<String> = (0..=MAX_TAGS).map(|number| format!("t{number}")).collect();
        assert_eq!(clean_tags("tags", &many[1..]).unwrap().len(), MAX_TAGS);
        // The first tag above the maximum is rejected; the ones after it are not read.
        let error = clean_tags("tags", &[&many[..], &[String::new()]].concat()).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("tags"));
    }
}
