//! The text by which agents are found: what lists show of an agent, in lower case, a fact in each line after a letter that
//! names it. Both engines search it with LIKE, in a table that contains nothing else.

use std::fmt::Write as _;

use muster_core::agent::AgentRecord;

/// A fact that has a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// `local_metadata.os.platform`.
    Platform,
    /// `local_metadata.os.family`.
    Family,
    /// `local_metadata.os.name`.
    Name,
    /// `local_metadata.os.version`.
    Version,
    /// `local_metadata.host.architecture`.
    Architecture,
}

impl Fact {
    /// All of them, in the order of [`AgentRecord::os`].
    const ALL: [Self; 5] = [Self::Platform, Self::Family, Self::Name, Self::Version, Self::Architecture];

    fn letter(self) -> char {
        match self {
            Self::Platform => 'p',
            Self::Family => 'f',
            Self::Name => 'n',
            Self::Version => 'o',
            Self::Architecture => 'a',
        }
    }

    /// Returns whether a system, as [`AgentRecord::os`] has it, has this value of the fact, or one that starts with it.
    pub(crate) fn is_met(self, system: &str, value: &str, is_prefix: bool) -> bool {
        let facts = Self::ALL.into_iter().zip(system.split('\n'));
        facts.into_iter().filter(|(fact, _)| *fact == self).any(|(_, known)| {
            let (known, value) = (known.to_ascii_lowercase(), value.to_ascii_lowercase());
            if is_prefix { known.starts_with(&value) } else { known == value }
        })
    }

    /// Returns the LIKE pattern of agents with this value of the fact, or with one that starts with it.
    pub(crate) fn pattern(self, value: &str, is_prefix: bool) -> String {
        let end = if is_prefix { "" } else { "\n" };
        // Every fact stands between line breaks, so a pattern cannot match across two of them, nor the middle of a
        // value.
        format!("%\n{}={}{end}%", self.letter(), escaped(value))
    }
}

/// Returns the text of an agent.
pub(crate) fn text(record: &AgentRecord) -> String {
    // Begins and ends with a line break, so that the first and the last line match like all others.
    let mut text = format!("\nh={}\nv={}\ni={}", record.hostname, record.agent_version, record.id);
    for (fact, value) in Fact::ALL.into_iter().zip(record.os.split('\n')) {
        let _ = write!(text, "\n{}={value}", fact.letter());
    }
    for (letter, value) in [('u', record.hardware_uuid()), ('s', record.serial())] {
        if !value.is_empty() {
            let _ = write!(text, "\n{letter}={value}");
        }
    }
    for tag in &record.tags {
        let _ = write!(text, "\nt={tag}");
    }
    text.push('\n');
    // ASCII only, like the function `lower` of both engines.
    text.make_ascii_lowercase();
    text
}

/// Returns whether two versions of an agent have the same text in the same space.
pub(crate) fn is_same(before: &AgentRecord, after: &AgentRecord) -> bool {
    before.space == after.space
        && before.hostname == after.hostname
        && before.agent_version == after.agent_version
        && before.os == after.os
        && before.hardware == after.hardware
        && before.tags == after.tags
}

/// Returns the LIKE pattern of agents whose text contains these words, with anything where `*` was.
pub(crate) fn containing(words: &str) -> String {
    format!("%{}%", words.split('*').map(escaped).collect::<Vec<_>>().join("%"))
}

/// Returns the LIKE pattern of values that contain this text.
pub(crate) fn literally(text: &str) -> String {
    format!("%{}%", escaped(text))
}

/// Returns the LIKE pattern of values of this form, where `*` stands for anything.
pub(crate) fn wildcard(pattern: &str) -> String {
    pattern.split('*').map(escaped).collect::<Vec<_>>().join("%")
}

/// Escapes what LIKE interprets, with a backslash, and converts to lower case as the text is.
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        // The statements name the backslash with ESCAPE: SQLite has no default for it.
        if matches!(character, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character.to_ascii_lowercase());
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_system_are_compared_like_the_lines_of_the_text() {
        let met = |system, fact: Fact, value, is_prefix| fact.is_met(system, value, is_prefix);
        let debian = "debian\nDebian\nDebian GNU/Linux\n12\nx86_64";
        assert!(met(debian, Fact::Family, "debian", false) && met(debian, Fact::Name, "DEBIAN", true));
        assert!(!met(debian, Fact::Name, "debian", false) && !met(debian, Fact::Platform, "12", false));
        // Without any fact, the text has a line for the platform alone.
        assert!(met("", Fact::Platform, "", false) && !met("", Fact::Version, "", true));
    }

    #[test]
    fn what_like_interprets_is_escaped() {
        assert_eq!(containing("50%_A*b"), "%50\\%\\_a%b%");
        assert_eq!(wildcard("Web-*"), "web-%");
        assert_eq!(Fact::Platform.pattern("Linux", false), "%\np=linux\n%");
        assert_eq!(Fact::Name.pattern("ubu", true), "%\nn=ubu%");
    }
}
