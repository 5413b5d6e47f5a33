//! Local rules about what a policy may run: `capabilities.yml` (AG §4.3). The first rule that matches decides.

use serde::Deserialize;

use crate::yaml;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Allow,
    Deny,
}

#[derive(Clone, Debug, Deserialize)]
struct Rule {
    rule: Verdict,
    #[serde(default)]
    input: Option<String>,
    #[serde(default)]
    output: Option<String>,
    // Other kinds of rules apply to other parts of the agent.
    #[serde(flatten)]
    _other: serde::de::IgnoredAny,
}

/// The local rules; by default everything is allowed.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Capabilities {
    #[serde(default)]
    capabilities: Vec<Rule>,
}

impl Capabilities {
    /// Parses the rules.
    pub fn parse(text: &str) -> Result<Self, String> {
        yaml::read(text).map_err(|error| error.to_string())
    }

    /// Returns whether inputs of this type may run.
    pub fn allow_input(&self, kind: &str) -> bool {
        self.allow(kind, |rule| rule.input.as_deref())
    }

    /// Returns whether outputs of this type may be used.
    pub fn allow_output(&self, kind: &str) -> bool {
        self.allow(kind, |rule| rule.output.as_deref())
    }

    fn allow(&self, kind: &str, pattern: fn(&Rule) -> Option<&str>) -> bool {
        let decides = |rule: &&Rule| pattern(rule).is_some_and(|pattern| matches(pattern, kind));
        self.capabilities.iter().find(decides).is_none_or(|rule| rule.rule == Verdict::Allow)
    }
}

/// Returns whether a pattern with `*` matches the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        // The earliest place leaves the most for the parts that follow.
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_rule_decides() {
        let text = "version: 0.1.0\ncapabilities:\n- rule: allow\n  input: system/metrics\n- rule: deny\n  input: system/*\n\
                    - rule: deny\n  output: kafka\n- rule: deny\n  upgrade: \"${version} == '8.0.0'\"\n";
        let rules = Capabilities::parse(text).unwrap();
        let allowed = ["system/metrics", "system/logs", "log"].map(|kind| rules.allow_input(kind));
        assert_eq!(allowed, [true, false, true]);
        assert_eq!((rules.allow_output("kafka"), rules.allow_output("elasticsearch")), (false, true));
        assert!(Capabilities::default().allow_input("log"));
        assert!(Capabilities::parse("capabilities: [{rule: maybe}]").is_err());
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "log", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("log", "logs", false),
            ("*a", "aba", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
