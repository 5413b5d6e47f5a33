//! The service of the audit log: listing and verification (M25).
//!
//! The log belongs to the installation and not to a space: all lines form one hash chain, which can be verified only as
//! a whole.

use std::sync::Arc;

use muster_core::Error;
use muster_core::audit::{AuditEvent, chain_hash};
use muster_core::authorization::{AuditRead, Grant};
use muster_core::error_chain::chain;
use muster_core::time::Timestamp;

use super::watched_store::WatchedStore;

/// Lines per read.
const BATCH: u32 = 1000;
/// Maximum lines that one request scans: matches may be rare and the log long.
const MAX_SCANNED: u64 = 50_000;

/// An audit event with its position in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditLine {
    /// Its number, ascending.
    pub seq: i64,
    /// The event.
    pub event: AuditEvent,
    /// SHA-256 over the previous line's hash and this line's text.
    pub hash: [u8; 32],
}

/// Filter and paging. Empty fields do not filter.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Only events of this actor: `local:root`, `agent:<id>` …
    pub actor: Option<String>,
    /// Only events of this action: `policy.update` …
    pub action: Option<String>,
    /// Only events about this object: `policy:<id>` …
    pub subject: Option<String>,
    /// Only events at or after this time.
    pub since: Option<Timestamp>,
    /// Only events before this time.
    pub until: Option<Timestamp>,
    /// Only events before the line with this number.
    pub before: Option<i64>,
    /// Maximum number of lines.
    pub limit: u32,
}

impl AuditQuery {
    fn matches(&self, event: &AuditEvent) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.actor, &event.actor)
            && is(&self.action, &event.action)
            && is(&self.subject, &event.subject)
            && self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at < until)
    }
}

/// Part of the log, newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditPage {
    /// The lines.
    pub lines: Vec<AuditLine>,
    /// `before` of the next page; `None` at the end of the log. A short or empty page may still have a next one,
    /// because the scan is limited.
    pub next: Option<i64>,
}

/// Result of a verification of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditVerdict {
    /// Number of lines verified before the first error.
    pub lines: u64,
    /// Hash of the last verified line; `None` for an empty log. A copy that is kept elsewhere proves later that the log
    /// was not truncated, which the chain alone can't show.
    pub head: Option<[u8; 32]>,
    /// Number of the first line that was modified or that follows a missing one; `None` if the chain is intact.
    pub broken_at: Option<i64>,
}

/// The audit log.
pub struct Audit {
    store: Arc<WatchedStore>,
}

impl Audit {
    pub(crate) fn new(store: Arc<WatchedStore>) -> Self {
        Self { store }
    }

    /// Returns matching lines, newest first.
    pub async fn list(&self, grant: &Grant<AuditRead>, query: &AuditQuery) -> Result<AuditPage, Error> {
        let mut page = AuditPage::default();
        let mut before = query.before.unwrap_or(i64::MAX);
        for _ in 0..MAX_SCANNED / u64::from(BATCH) {
            // Filtered here and not in SQL: the lines are stored as text, which the hash covers, without other columns.
            let batch = self.store.audit(grant).audit_events_before(before, BATCH).await?;
            let is_last = batch.len() < BATCH as usize;
            for (seq, text, hash) in batch {
                // Tested before a line is taken: a page that is full at the log's last line has no next page.
                if page.lines.len() >= query.limit as usize {
                    page.next = Some(before);
                    return Ok(page);
                }
                before = seq;
                page.lines.extend(read(seq, &text, hash).filter(|line| query.matches(&line.event)));
            }
            if is_last {
                return Ok(page);
            }
        }
        page.next = Some(before);
        Ok(page)
    }

    /// Verifies every line of the chain from the first.
    pub async fn verify(&self, grant: &Grant<AuditRead>) -> Result<AuditVerdict, Error> {
        let (mut verdict, mut after) = (AuditVerdict::default(), 0);
        loop {
            let batch = self.store.audit(grant).audit_events(after, BATCH).await?;
            let is_last = batch.len() < BATCH as usize;
            after = batch.last().map_or(after, |(seq, _, _)| *seq);
            verdict.extend(batch);
            if is_last || verdict.broken_at.is_some() {
                return Ok(verdict);
            }
        }
    }
}

impl AuditVerdict {
    /// Verifies the next lines, up to the first mismatch.
    fn extend(&mut self, lines: Vec<(i64, String, [u8; 32])>) {
        for (seq, text, hash) in lines {
            // The hash covers the stored text, not the decoded event: decoding and encoding again may change the bytes.
            let previous = self.head.as_ref().map_or(&[][..], |head| head.as_slice());
            if chain_hash(previous, text.as_bytes()) != hash {
                self.broken_at = Some(seq);
                return;
            }
            (self.lines, self.head) = (self.lines + 1, Some(hash));
        }
    }
}

/// Decodes a line. A corrupt one is logged and skipped, so that it does not make the rest of the log unreadable;
/// [`Audit::verify`] reports it.
fn read(seq: i64, text: &str, hash: [u8; 32]) -> Option<AuditLine> {
    match serde_json::from_str(text) {
        Ok(event) => Some(AuditLine { seq, event, hash }),
        Err(error) => {
            tracing::error!(seq, error = %chain(&error), "an event of the audit log is corrupt");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(texts: &[&str]) -> Vec<(i64, String, [u8; 32])> {
        let mut previous: Vec<u8> = Vec::new();
        let line = |(seq, text): (i64, &&str)| {
            let hash = chain_hash(&previous, text.as_bytes());
            previous = hash.to_vec();
            (seq, (*text).to_owned(), hash)
        };
        (1..).zip(texts).map(line).collect()
    }

    fn verdict(lines: Vec<(i64, String, [u8; 32])>) -> (u64, Option<i64>) {
        let mut verdict = AuditVerdict::default();
        verdict.extend(lines);
        (verdict.lines, verdict.broken_at)
    }

    #[test]
    fn m25_modified_or_removed_line_breaks_the_chain_at_its_position() {
        let whole = chain(&["a", "b", "c", "d"]);
        assert_eq!(verdict(whole.clone()), (4, None));
        let mut changed = whole.clone();
        changed[1].1 = "B".into();
        assert_eq!(verdict(changed), (1, Some(2)));
        let mut removed = whole.clone();
        removed.remove(2);
        assert_eq!(verdict(removed), (2, Some(4)));
        let mut without_first = whole;
        without_first.remove(0);
        assert_eq!(verdict(without_first), (0, Some(2)));
    }

    #[test]
    fn verification_in_batches_gives_the_same_result() {
        let lines = chain(&["a", "b", "c", "d"]);
        let (mut whole, mut pieces) = (AuditVerdict::default(), AuditVerdict::default());
        whole.extend(lines.clone());
        lines.chunks(3).for_each(|some| pieces.extend(some.to_vec()));
        assert_eq!(whole, pieces);
    }
}
