//! Changes.

use std::ops::ControlFlow;

use muster_protocol::management::change::{Change, Changes, FollowChanges, ListChanges};
use reqwest::Method;

use crate::{Client, Result};

/// Maximum length of an event in bytes.
const MAX_EVENT: usize = 64 << 10;

impl Client {
    /// Returns the changes after a number.
    pub async fn changes(&self, query: &ListChanges) -> Result<Changes> {
        let request = self.request(Method::GET, self.v1_url(&["changes"])?).query(query);
        self.answer(request).await
    }

    /// Follows the changes after a number, or from now on. `see` receives each change. Returns when the server ends the stream, or
    /// `see` breaks.
    pub async fn follow_changes(
        &self,
        after: Option<i64>,
        see: &mut (dyn FnMut(Change) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        let request = self.request(Method::GET, self.v1_url(&["changes", "_stream"])?).query(&FollowChanges { after });
        let mut response = self.send(request).await?;
        let mut lines = Lines::default();
        while let Some(piece) = response.chunk().await.map_err(|e| self.broken(e))? {
            for line in lines.push(&piece) {
                // Other lines are ids, kinds of events and comments.
                let change = line.strip_prefix(b"data: ").and_then(|data| serde_json::from_slice(data).ok());
                if change.is_some_and(|change| see(change).is_break()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Splits a stream into lines.
#[derive(Default)]
struct Lines {
    /// The beginning of a line whose end has not arrived.
    rest: Vec<u8>,
}

impl Lines {
    /// Returns the lines that a piece completes.
    fn push(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(piece);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            // No event of this server is so long: another server is at the other end.
            if self.rest.len() > MAX_EVENT {
                self.rest.clear();
            }
            return Vec::new();
        };
        let rest = self.rest.split_off(end + 1);
        let complete = std::mem::replace(&mut self.rest, rest);
        complete[..end].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_wherever_the_pieces_end() {
        let text = b"id: 1\ndata: {}\n\nid: 2\n";
        for cut in 0..=text.len() {
            let mut lines = Lines::default();
            let found = [lines.push(&text[..cut]), lines.push(&text[cut..])].concat();
            assert_eq!(found, [&b"id: 1"[..], b"data: {}", b"", b"id: 2"], "{cut}");
        }
        let mut lines = Lines::default();
        lines.push(&[b'x'; MAX_EVENT + 1]);
        assert!(lines.rest.is_empty());
    }
}
