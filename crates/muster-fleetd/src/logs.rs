//! Lines of osquery's logs, and where they go.

use std::future::Future;
use std::pin::Pin;

use muster_core::{Error, raw_json};

/// Kind of a log (FL §1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogKind {
    /// Results of scheduled queries.
    Result,
    /// Messages of osquery itself.
    Status,
}

impl LogKind {
    /// Parses the `log_type` of a request.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "result" => Some(Self::Result),
            "status" => Some(Self::Status),
            _ => None,
        }
    }
}

/// Future of [`LogDestination::store`].
pub type Storing<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Where lines of logs go.
pub trait LogDestination: Send + Sync {
    /// Stores lines, each with its line feed. When it returns `Ok`, they are safe: osqueryd discards them. After an error it
    /// sends them again, so that lines may be stored twice, but none is lost (FL23).
    fn store(&self, kind: LogKind, lines: Vec<u8>) -> Storing<'_>;
}

/// Returns the lines of a request, each as one line of JSON. Lines without the form of their kind are left out: osqueryd would
/// send a request that is refused again for ever (FL162).
pub fn lines(kind: LogKind, data: &str) -> Vec<u8> {
    let mut lines = Vec::with_capacity(data.len());
    raw_json::each_element(data, |line| {
        let has_form = match kind {
            LogKind::Result => raw_json::text(line, &["name"]).is_some(),
            LogKind::Status => line.starts_with('{'),
        };
        if has_form {
            // Within JSON strings, line breaks are escaped: these are between values.
            lines.extend(line.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
            lines.push(b'\n');
        }
        true
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fl162_lines_without_a_form_are_left_out_and_the_others_are_unchanged() {
        let data = "[{\"name\":\"pack/x\",\"columns\":{\"a\":\"\\n\"}}, 5, {\"x\":1},\n {\"name\" :\n\"y\"}, {\"name\":7}, null]";
        let kept = String::from_utf8(lines(LogKind::Result, data)).unwrap();
        assert_eq!(kept, "{\"name\":\"pack/x\",\"columns\":{\"a\":\"\\n\"}}\n{\"name\" : \"y\"}\n");
        let status = lines(LogKind::Status, r#"[{"severity":"0","line":"1"},[],"x"]"#);
        assert_eq!(status, b"{\"severity\":\"0\",\"line\":\"1\"}\n", "FL163");
        for none in ["", "null", "{}", "[", "[1"] {
            assert_eq!(lines(LogKind::Status, none), b"", "{none}");
        }
    }
}
