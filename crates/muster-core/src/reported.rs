//! Limits on the documents that agents report. Agents are not trusted: a few kilobytes of compressed JSON can decode to
//! millions of values, and whatever is stored is read again by every list and every restart.
//!
//! A document that describes the host is rejected if it exceeds its limit, which no real agent comes near. Text that
//! can grow without the agent's fault (error messages, payloads of inputs) is truncated or dropped instead, because a
//! rejected check-in would lock the agent out.

use std::borrow::Cow;

/// Maximum size of `local_metadata` and of an enrollment's `metadata.local`, bytes.
pub const METADATA_BYTES: usize = 512 << 10;
/// Maximum number of JSON values in them.
pub const METADATA_NODES: usize = 20_000;
/// Maximum size of `components` as they are stored, bytes.
pub const COMPONENTS_BYTES: usize = 2 << 20;
/// Maximum number of JSON values in them.
pub const COMPONENTS_NODES: usize = 100_000;
/// Maximum size of a component's or unit's payload, bytes; a larger one is dropped.
pub const PAYLOAD_BYTES: usize = 256 << 10;
/// Maximum number of JSON values in a payload; a larger one is dropped.
pub const PAYLOAD_NODES: usize = 10_000;
/// Maximum size of messages and errors, bytes; longer ones are truncated.
pub const MESSAGE_BYTES: usize = 8 << 10;
/// Maximum length of a status, bytes.
pub const STATUS_BYTES: usize = 64;
/// Maximum length of a component's or unit's id and type, bytes.
pub const NAME_BYTES: usize = 1024;
/// Maximum size of `upgrade_details` and `upgrade` in a request, bytes.
pub const UPGRADE_BYTES: usize = 256 << 10;
/// Maximum number of JSON values in them.
pub const UPGRADE_NODES: usize = 2_000;
/// Maximum size of stored upgrade details, bytes.
pub const UPGRADE_KEPT_BYTES: usize = 16 << 10;
/// Maximum number of available rollbacks that are stored.
pub const MOST_ROLLBACKS: usize = 32;
/// Maximum total size of the type-specific fields of an ack, bytes; larger ones are dropped.
pub const RESULT_BYTES: usize = 64 << 10;
/// Maximum nesting of any of these documents.
pub const DEPTH: usize = 64;

/// Returns whether a character controls a terminal or the direction of text, or takes no space, so that a text could look
/// like another one. No object may have one in its name: two people would see the same name and could not type it. The joiners U+200C and U+200D are not among them: Persian, Indic scripts and emoji need them.
pub fn is_deceptive(c: char) -> bool {
    let directs = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let takes_no_space = matches!(c, '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{feff}');
    c.is_control() || directs || takes_no_space
}

/// Returns whether a text has a character that people see. A link with another text could not be found on a page.
pub fn is_visible(text: &str) -> bool {
    // Hyphens and letters that take space at most, and selectors of variants.
    let is_blank = |c: char| {
        matches!(c, '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{200c}' | '\u{200d}' | '\u{2800}' | '\u{3164}')
            || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
    };
    text.chars().any(|c| !c.is_whitespace() && !is_deceptive(c) && !is_blank(c))
}

/// Truncates a message or an error to [`MESSAGE_BYTES`], with a mark at the end.
pub fn shortened(text: &str) -> Cow<'_, str> {
    shortened_to(text, MESSAGE_BYTES)
}

/// Truncates `text` to at most `bytes` bytes at a character boundary, with a mark at the end.
pub fn shortened_to(text: &str, bytes: usize) -> Cow<'_, str> {
    const MARK: &str = "…";
    if text.len() <= bytes {
        return text.into();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..end]).into()
}

/// Size of a JSON text once it is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Number of values, containers included.
    pub nodes: usize,
    /// Deepest nesting of containers.
    pub depth: usize,
}

impl Extent {
    /// Counts the values in `raw`, which must be valid JSON, in one pass and without allocating.
    pub fn of(raw: &str) -> Self {
        let (mut extent, mut depth, mut fresh) = (Self { nodes: 1, depth: 0 }, 0_usize, false);
        let bytes = raw.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                continue;
            }
            // A container has one value more than commas, unless it is empty: count the first one when its first byte
            // appears. In objects, this is the key, and the colon needs no attention.
            extent.nodes += usize::from(std::mem::take(&mut fresh) && !matches!(byte, b']' | b'}'));
            match byte {
                b'[' | b'{' => {
                    fresh = true;
                    depth += 1;
                    extent.depth = extent.depth.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b',' => extent.nodes += 1,
                // Skip strings as a whole: they can contain brackets and commas.
                b'"' => at += string_length(&bytes[at..]),
                _ => {}
            }
        }
        extent
    }
}

/// Length up to and including the closing quote.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(stop) = bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        at += stop;
        if bytes[at] == b'"' {
            return at + 1;
        }
        // The byte after a backslash never ends the string. Of `\uXXXX`, the digits are skipped as plain bytes.
        at = (at + 2).min(bytes.len());
    }
    bytes.len()
}

/// Checks a document against its limits. The error names the offending size and the limit.
pub fn check(raw: &str, bytes: usize, nodes: usize) -> Result<(), String> {
    if raw.len() > bytes {
        return Err(format!("{} bytes; at most {bytes}", raw.len()));
    }
    // Bytes come first: they bound the time of the count.
    let extent = Extent::of(raw);
    if extent.nodes > nodes {
        return Err(format!("{} JSON values; at most {nodes}", extent.nodes));
    }
    if extent.depth > DEPTH {
        return Err(format!("nested {} deep; at most {DEPTH}", extent.depth));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn extent(value: &Value) -> Extent {
        let inner: Vec<Extent> = match value {
            Value::Array(items) => items.iter().map(extent).collect(),
            Value::Object(members) => members.values().map(extent).collect(),
            _ => return Extent { nodes: 1, depth: 0 },
        };
        let depth = 1 + inner.iter().map(|one| one.depth).max().unwrap_or(0);
        Extent { nodes: 1 + inner.iter().map(|one| one.nodes).sum::<usize>(), depth }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from)];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn extent_matches_the_decoded_value(value in any_json()) {
            prop_assert_eq!(Extent::of(&value.to_string()), extent(&value));
            prop_assert_eq!(Extent::of(&serde_json::to_string_pretty(&value).unwrap()), extent(&value));
        }

        #[test]
        fn any_text_has_an_extent_without_a_panic(text in r#"[{}\[\],:"\\a ]{0,24}"#) {
            let _ = Extent::of(&text);
        }

        #[test]
        fn truncated_text_keeps_its_prefix_and_the_limit(text in any::<String>(), bytes in 3_usize..40) {
            let short = shortened_to(&text, bytes);
            prop_assert!(short.len() <= bytes);
            prop_assert!(text.starts_with(short.trim_end_matches('…')));
            prop_assert_eq!(short == text, text.len() <= bytes);
        }
    }

    #[test]
    fn documentation_lists_every_limit() {
        let page = include_str!("../../../docs/bounds.md");
        let row = |begin: &str| page.lines().find(|line| line.starts_with(&format!("| {begin}"))).unwrap_or_default();
        let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
        let thousands = |count: usize| format!("{},{:03}", count / 1000, count % 1000);
        for (begin, bounds) in [
            ("host metadata", vec![kib(METADATA_BYTES), thousands(METADATA_NODES), DEPTH.to_string()]),
            ("components", vec![format!("{} MiB", COMPONENTS_BYTES >> 20), thousands(COMPONENTS_NODES)]),
            ("component or unit: id and type", vec![kib(NAME_BYTES)]),
            ("agent, component or unit: status", vec![format!("{STATUS_BYTES} bytes")]),
            ("agent, component or unit: message", vec![kib(MESSAGE_BYTES)]),
            ("component or unit: payload", vec![kib(PAYLOAD_BYTES), thousands(PAYLOAD_NODES)]),
            ("upgrade details, as received", vec![kib(UPGRADE_BYTES), thousands(UPGRADE_NODES)]),
            ("upgrade details, as stored", vec![kib(UPGRADE_KEPT_BYTES)]),
            ("versions available for rollback", vec![MOST_ROLLBACKS.to_string()]),
            ("ack: fields", vec![kib(RESULT_BYTES)]),
        ] {
            for bound in bounds {
                assert!(row(begin).contains(&bound), "{bound} in {:?}", row(begin));
            }
        }
    }

    #[test]
    fn texts_without_a_visible_character_are_recognized() {
        for blank in ["", " \t", "\u{200b}", "\u{200c}\u{200d}\u{2060}", "\u{feff}", "\u{3164}", "\u{202e}"] {
            assert!(!is_visible(blank), "{blank:?}");
        }
        assert!(is_visible("\u{200b}a") && is_visible("👨\u{200d}👩") && is_visible("\u{fffd}"));
        assert!(is_deceptive('\u{200b}') && is_deceptive('\u{feff}') && !is_deceptive('\u{200d}'));
    }

    #[test]
    fn each_limit_is_enforced_and_named() {
        assert_eq!(check("[0,0]", 5, 3), Ok(()));
        assert_eq!(check("[0,0]", 4, 3), Err("5 bytes; at most 4".into()));
        assert_eq!(check("[0,0]", 5, 2), Err("3 JSON values; at most 2".into()));
        let deep = format!("{}{}", "[".repeat(DEPTH + 1), "]".repeat(DEPTH + 1));
        assert_eq!(check(&deep, 1000, 1000), Err("nested 65 deep; at most 64".into()));
    }
}
