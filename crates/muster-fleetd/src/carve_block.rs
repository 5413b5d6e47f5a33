//! The head of a request with a block of a carve, which is read before the rest of the body is (FL §1.9).
//!
//! The ids authenticate the block, so that a stranger's megabytes need not be received. osqueryd sends them before the data.

use std::borrow::Cow;

use serde::Deserialize;

/// Maximum length of what stands before the data, bytes.
pub const MAX_HEAD: usize = 2048;

/// Name of the member with the data.
const DATA: &[u8] = b"\"data\"";

/// The members that stand before the data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct BlockHead<'a> {
    /// Number of the block, from 0.
    pub block_id: u64,
    /// Session id.
    #[serde(borrow)]
    pub session_id: Cow<'a, str>,
    /// Name of the query.
    #[serde(borrow)]
    pub request_id: Cow<'a, str>,
}

/// The beginning of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// More bytes are needed.
    Short,
    /// It has the members before the data, this many bytes.
    Head(usize),
    /// It is not the beginning of a block.
    Malformed,
}

/// Finds where the data of a block begins.
pub fn beginning(bytes: &[u8]) -> Beginning {
    let near = &bytes[..bytes.len().min(MAX_HEAD)];
    let is_data = |at: &usize| {
        // A value of this text would have no colon after it.
        let rest = near[at + DATA.len()..].iter().find(|byte| !byte.is_ascii_whitespace());
        near[*at..].starts_with(DATA) && rest == Some(&b':')
    };
    match (0..near.len().saturating_sub(DATA.len())).find(is_data) {
        Some(at) => Beginning::Head(at),
        None if bytes.len() >= MAX_HEAD => Beginning::Malformed,
        None => Beginning::Short,
    }
}

/// Closes the object that the head begins, so that it can be parsed.
pub fn closed(head: &[u8]) -> Vec<u8> {
    let mut text = head.trim_ascii_end().to_vec();
    if text.last() == Some(&b',') {
        text.pop();
    }
    text.push(b'}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(body: &str) -> Option<(u64, String, String)> {
        let Beginning::Head(length) = beginning(body.as_bytes()) else { return None };
        let text = closed(&body.as_bytes()[..length]);
        let head: BlockHead<'_> = serde_json::from_slice(&text).ok()?;
        Some((head.block_id, head.session_id.into_owned(), head.request_id.into_owned()))
    }

    #[test]
    fn fl39_the_ids_are_known_before_the_data() {
        let expected = Some((7, "s".to_owned(), "r".to_owned()));
        for body in [
            r#"{"block_id":7,"session_id":"s","request_id":"r","data":"QUJD"#,
            r#"{ "request_id" : "r", "session_id": "s", "block_id": 7 , "data" : ""#,
        ] {
            assert_eq!(head(body), expected, "{body}");
        }
        let quoted = head(r#"{"block_id":7,"session_id":"\"data\"","request_id":"r","data":"#);
        assert_eq!(quoted.map(|found| found.1), Some("\"data\"".to_owned()));
    }

    #[test]
    fn other_bodies_have_no_head() {
        for body in [r#"{"data":"QUJD","block_id":7}"#, r#"{"block_id":-1,"session_id":"s","request_id":"r","data":"#] {
            assert_eq!(head(body), None, "{body}");
        }
        assert_eq!(beginning(b""), Beginning::Short);
        assert_eq!(beginning(br#"{"block_id":7,"data""#), Beginning::Short);
        assert_eq!(beginning(&[b' '; MAX_HEAD]), Beginning::Malformed);
        assert_eq!(beginning(&[b' '; MAX_HEAD - 1]), Beginning::Short);
    }
}
