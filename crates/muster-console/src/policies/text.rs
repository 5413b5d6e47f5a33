//! The text of a policy's file, as the editor shows it.

use muster_core::policy::{Policy, file};
use muster_core::reported::is_deceptive;
use muster_core::yaml;
use serde_json::{Value, json};

/// Returns the file of a policy. Comments are not part of a policy, so it has none.
pub fn text_of(policy: &Policy) -> String {
    of_fields(&file::fields_of(policy))
}

/// Returns a file with these fields, in their order.
pub fn of_fields(fields: &[(&'static str, Value)]) -> String {
    fields.iter().map(|(name, value)| of_object(&json!({ *name: value }))).collect()
}

/// Returns an object as YAML that is read back as the same object.
pub fn of_object(value: &Value) -> String {
    let text = plain(value);
    // The reader of policy files is stricter than YAML. What it would read differently is written as JSON, which is YAML too.
    let is_same = yaml::parse_value(&text).is_ok_and(|read| read == *value);
    if is_same && !text.chars().any(is_invisible) { text } else { escaped(value) }
}

/// Returns a value as YAML.
pub fn plain(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// Returns an object as JSON without its braces, without any character that a page would not show.
fn escaped(value: &Value) -> String {
    let members = value.as_object().into_iter().flatten();
    let json: String = members.map(|(name, value)| format!("{}: {value:#}\n", json!(name))).collect();
    let escape = |c: char| if is_invisible(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() };
    json.chars().map(escape).collect()
}

/// Returns whether pages replace a character, so that a text with it cannot be edited.
pub fn is_invisible(c: char) -> bool {
    is_deceptive(c) && !matches!(c, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use muster_core::testing::{at, policy};

    use super::*;

    #[test]
    fn every_string_of_a_policy_survives_the_editor() {
        let tricky = [
            "yes",
            "off",
            "0600",
            "1.10",
            "1e3",
            "null",
            "~",
            "",
            " lead",
            "trail ",
            "a: b",
            "#x",
            "- x",
            "'q'",
            "\"d\"",
            "two\nlines\n",
            "two\nlines",
            "\ttab",
            "${env.X}",
            "$co.elastic.secret{A}",
            "2001-01-01",
            "=",
            "<<",
            "*a",
            "&a",
            "!t",
            "%",
            "@",
            "`",
            "{",
            "[",
            "ä 日本",
            "a\u{202e}b",
            "\u{7}",
            "\r\n",
            "0x1f",
            "1_000",
            ".5",
            "NaN",
            "---",
            "...",
            "? x",
            "|",
            ">",
            "x\n\n  y\n",
        ];
        let config = json!({"inputs": tricky.iter().map(|text| json!({"id": text, *text: [text]})).collect::<Vec<_>>(),
            "numbers": [0, -1, 1.5, 9_007_199_254_740_991_i64, true, null, {}, [], {"a": {}}, {"b": []}]});
        let one = Policy { config, ..policy("web", at(1)) };
        let text = text_of(&one);
        assert!(!text.chars().any(is_invisible), "{text}");
        let (read, _) = file::read(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        assert_eq!(read.config, Some(one.config), "{text}");
    }
}
