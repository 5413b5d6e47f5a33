//! Bounds on what agents report. An agent is not trusted: a few kilobytes of compressed JSON may stand for millions of
//! values, and what is stored of it is read again by every list, every console and every restart.
//!
//! What describes the host is refused when it exceeds its bound: no real agent comes near it. Text that grows by itself
//! (error messages, payloads of inputs) is cut or left out instead, since a refused check-in would lock the agent out.

use std::borrow::Cow;

/// Maximum size of `local_metadata` and of an enrolment's `metadata.local`, bytes.
pub const METADATA_BYTES: usize = 512 << 10;
/// Maximum number of JSON values in them.
pub const METADATA_NODES: usize = 20_000;
/// Maximum size of `components` as they are stored, bytes.
pub const COMPONENTS_BYTES: usize = 2 << 20;
/// Maximum number of JSON values in them.
pub const COMPONENTS_NODES: usize = 100_000;
/// Payloads of components and units above this many bytes are left out.
pub const PAYLOAD_BYTES: usize = 256 << 10;
/// Payloads with more JSON values than this are left out.
pub const PAYLOAD_NODES: usize = 10_000;
/// Messages and errors are cut to this many bytes.
pub const MESSAGE_BYTES: usize = 8 << 10;
/// Maximum length of a status, bytes.
pub const STATUS_BYTES: usize = 64;
/// Maximum length of a component's or unit's id and type, bytes.
pub const NAME_BYTES: usize = 1024;
/// Maximum size of `upgrade_details` and `upgrade` as they are read, bytes.
pub const UPGRADE_BYTES: usize = 256 << 10;
/// Maximum number of JSON values in them.
pub const UPGRADE_NODES: usize = 2_000;
/// What is kept of an upgrade's details, bytes.
pub const UPGRADE_KEPT_BYTES: usize = 16 << 10;
/// Rollbacks on offer that are kept.
pub const MOST_ROLLBACKS: usize = 32;
/// Maximum size of the type-specific fields of an ack, together; more are left out.
pub const RESULT_BYTES: usize = 64 << 10;
/// Maximum nesting of any of these documents.
pub const DEPTH: usize = 64;

/// A message or an error as it is stored: at most [`MESSAGE_BYTES`], and marked where it was cut.
pub fn shortened(text: &str) -> Cow<'_, str> {
    shortened_to(text, MESSAGE_BYTES)
}

/// `text` with at most `bytes` bytes, cut between two characters and marked.
pub fn shortened_to(text: &str, bytes: usize) -> Cow<'_, str> {
    const MARK: &str = "…";
    if text.len() <= bytes {
        return text.into();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..end]).into()
}

/// How large a JSON text is to whoever decodes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Number of values, containers included.
    pub nodes: usize,
    /// Deepest nesting of containers.
    pub depth: usize,
}

impl Extent {
    /// Counts what stands in `raw`, which must be valid JSON. One pass, no memory.
    pub fn of(raw: &str) -> Self {
        let (mut extent, mut depth, mut fresh) = (Self { nodes: 1, depth: 0 }, 0_usize, false);
        let bytes = raw.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                continue;
            }
            // The first thing in a container is a value, or the key of one, unless the container is empty.
            extent.nodes += usize::from(std::mem::take(&mut fresh) && !matches!(byte, b']' | b'}'));
            match byte {
                b'[' | b'{' => {
                    fresh = true;
                    depth += 1;
                    extent.depth = extent.depth.max(depth);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                b',' => extent.nodes += 1,
                b'"' => at += string_length(&bytes[at..]),
                _ => {}
            }
        }
        extent
    }
}

/// Bytes up to and with the closing quote.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(stop) = bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        at += stop;
        if bytes[at] == b'"' {
            return at + 1;
        }
        // Whatever is escaped, the byte after the backslash does not end the string.
        at = (at + 2).min(bytes.len());
    }
    bytes.len()
}

/// Checks a document against its bounds; the error names the offending size.
pub fn check(raw: &str, bytes: usize, nodes: usize) -> Result<(), String> {
    if raw.len() > bytes {
        return Err(format!("{} bytes; at most {bytes}", raw.len()));
    }
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
        fn extent_is_that_of_the_decoded_value(value in any_json()) {
            prop_assert_eq!(Extent::of(&value.to_string()), extent(&value));
            prop_assert_eq!(Extent::of(&serde_json::to_string_pretty(&value).unwrap()), extent(&value));
        }

        #[test]
        fn any_text_has_an_extent(text in r#"[{}\[\],:"\\a ]{0,24}"#) {
            let _ = Extent::of(&text);
        }

        #[test]
        fn shortened_text_keeps_its_beginning_and_its_bound(text in any::<String>(), bytes in 3_usize..40) {
            let short = shortened_to(&text, bytes);
            prop_assert!(short.len() <= bytes);
            prop_assert!(text.starts_with(short.trim_end_matches('…')));
            prop_assert_eq!(short == text, text.len() <= bytes);
        }
    }

    #[test]
    fn the_page_tells_every_bound() {
        let page = include_str!("../../../docs/bounds.md");
        let row = |begin: &str| page.lines().find(|line| line.starts_with(&format!("| {begin}"))).unwrap_or_default();
        let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
        let thousands = |count: usize| format!("{},{:03}", count / 1000, count % 1000);
        for (begin, bounds) in [
            ("metadata of", vec![kib(METADATA_BYTES), thousands(METADATA_NODES), DEPTH.to_string()]),
            ("components", vec![format!("{} MiB", COMPONENTS_BYTES >> 20), thousands(COMPONENTS_NODES)]),
            ("id and type", vec![kib(NAME_BYTES)]),
            ("status of", vec![format!("{STATUS_BYTES} bytes")]),
            ("message of", vec![kib(MESSAGE_BYTES)]),
            ("payload of", vec![kib(PAYLOAD_BYTES), thousands(PAYLOAD_NODES)]),
            ("details of", vec![kib(UPGRADE_BYTES), thousands(UPGRADE_NODES), kib(UPGRADE_KEPT_BYTES)]),
            ("rollbacks", vec![MOST_ROLLBACKS.to_string()]),
            ("fields of", vec![kib(RESULT_BYTES)]),
        ] {
            for bound in bounds {
                assert!(row(begin).contains(&bound), "{bound} in {:?}", row(begin));
            }
        }
    }

    #[test]
    fn each_bound_is_checked_and_named() {
        assert_eq!(check("[0,0]", 5, 3), Ok(()));
        assert_eq!(check("[0,0]", 4, 3), Err("5 bytes; at most 4".into()));
        assert_eq!(check("[0,0]", 5, 2), Err("3 JSON values; at most 2".into()));
        let deep = format!("{}{}", "[".repeat(DEPTH + 1), "]".repeat(DEPTH + 1));
        assert_eq!(check(&deep, 1000, 1000), Err("nested 65 deep; at most 64".into()));
    }
}
