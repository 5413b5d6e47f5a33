//! Tags: free text, case-sensitive, each once, in order of first appearance.

use muster_core::Error;
use muster_core::lifecycle::changed_tags;

/// Longest tag, bytes.
const MAX_TAG_BYTES: usize = 256;
/// Most tags on one agent or key.
const MAX_TAGS: usize = 256;

/// Checks tags from outside and leaves out the second of two that are equal.
pub fn clean_tags(field: &str, tags: &[String]) -> Result<Vec<String>, Error> {
    let mut clean: Vec<String> = Vec::new();
    for (at, tag) in tags.iter().map(|tag| tag.trim()).enumerate() {
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES || tag.chars().any(char::is_control) {
            let reason = format!("a tag has 1 to {MAX_TAG_BYTES} bytes and no control characters");
            return Err(Error::invalid(format!("{field}[{at}]"), reason));
        }
        if !clean.iter().any(|known| known == tag) {
            clean.push(tag.to_owned());
        }
    }
    if clean.len() > MAX_TAGS {
        return Err(Error::invalid(field, format!("at most {MAX_TAGS} tags")));
    }
    Ok(clean)
}

/// Tags to add and to take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagChange {
    /// To add.
    pub add: Vec<String>,
    /// To take away.
    pub remove: Vec<String>,
}

impl TagChange {
    /// Checks a change from outside.
    pub fn parse(add: &[String], remove: &[String]) -> Result<Self, Error> {
        let change = Self { add: clean_tags("tagsToAdd", add)?, remove: clean_tags("tagsToRemove", remove)? };
        if change.add.is_empty() && change.remove.is_empty() {
            return Err(Error::invalid("tagsToAdd", "tagsToAdd and tagsToRemove are both empty"));
        }
        Ok(change)
    }

    /// The tags after the change. One added and one taken away: renamed in place.
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
    fn mg32_each_tag_stands_once_in_order_of_first_appearance() {
        assert_eq!(clean_tags("tags", &words("b a b A a")).unwrap(), ["b", "a", "A"]);
    }

    #[test]
    fn bad_tags_are_refused_by_place() {
        let error = clean_tags("tags", &["ok".into(), " ".into()]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("tags[1]"));
        assert!(clean_tags("tags", &["\u{1b}[31m".into()]).is_err());
        assert!(TagChange::parse(&[], &[]).is_err());
    }
}
