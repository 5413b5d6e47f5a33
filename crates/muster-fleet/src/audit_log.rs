//! The service of the audit log: look through it, and check that it is whole (M25).
//!
//! The log belongs to the installation and not to a space: its lines are one chain, which only the whole of it proves.

use std::sync::Arc;

use muster_core::Error;
use muster_core::audit::{AuditEvent, chain_hash};
use muster_core::authorization::{AuditRead, Grant};
use muster_core::time::Timestamp;

use super::watched_store::WatchedStore;

/// Lines read at once.
const BATCH: u32 = 1000;
/// Lines that one request looks through at most: what matches may be rare, and the log long.
const LOOKED_THROUGH: u64 = 50_000;

/// A line in its place in the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditLine {
    /// Its number; later lines have higher ones.
    pub seq: i64,
    /// What it says.
    pub event: AuditEvent,
    /// SHA-256 over the hash of the line before and this line.
    pub hash: [u8; 32],
}

/// Which lines. Empty fields do not filter.
#[derive(Clone, Debug, Default)]
pub struct AuditQuestion {
    /// By this actor: `local:root`, `agent:<id>` …
    pub actor: Option<String>,
    /// Of this kind: `policy.update` …
    pub action: Option<String>,
    /// About this object: `policy:<id>` …
    pub subject: Option<String>,
    /// At or after this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Only those before the line of this number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

impl AuditQuestion {
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
    /// Where the list goes on: `before` of the next question. `None`: the log has no older line. A page may be short,
    /// or empty, and go on all the same.
    pub next: Option<i64>,
}

/// What a check of the chain came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditVerdict {
    /// Lines that were checked and are as they were written.
    pub lines: u64,
    /// Hash of the last of them; `None`: there is none. Kept elsewhere, it shows later that no line was cut off since.
    pub head: Option<[u8; 32]>,
    /// Number of the first line that was changed, or before which one is missing. `None`: the chain is whole.
    pub broken_at: Option<i64>,
}

/// The audit log, as people read it.
pub struct Audit {
    store: Arc<WatchedStore>,
}

impl Audit {
    pub(crate) fn new(store: Arc<WatchedStore>) -> Self {
        Self { store }
    }

    /// Lines that match, newest first.
    pub async fn list(&self, grant: &Grant<AuditRead>, question: &AuditQuestion) -> Result<AuditPage, Error> {
        let mut page = AuditPage::default();
        let mut before = question.before.unwrap_or(i64::MAX);
        for _ in 0..LOOKED_THROUGH / u64::from(BATCH) {
            let batch = self.store.audit(grant).audit_events_before(before, BATCH).await?;
            let is_last = batch.len() < BATCH as usize;
            for (seq, text, hash) in batch {
                if page.lines.len() >= question.limit as usize {
                    page.next = Some(before);
                    return Ok(page);
                }
                before = seq;
                page.lines.extend(read(seq, &text, hash).filter(|line| question.matches(&line.event)));
            }
            if is_last {
                return Ok(page);
            }
        }
        page.next = Some(before);
        Ok(page)
    }

    /// Checks every line against the chain, from the first.
    pub async fn verify(&self, grant: &Grant<AuditRead>) -> Result<AuditVerdict, Error> {
        let (mut verdict, mut after) = (AuditVerdict::default(), 0);
        loop {
            let batch = self.store.audit(grant).audit_events(after, BATCH).await?;
            let is_last = batch.len() < BATCH as usize;
            after = batch.last().map_or(after, |(seq, _, _)| *seq);
            verdict.follow(batch);
            if is_last || verdict.broken_at.is_some() {
                return Ok(verdict);
            }
        }
    }
}

impl AuditVerdict {
    /// Goes on with the next lines, up to the first that does not fit.
    fn follow(&mut self, lines: Vec<(i64, String, [u8; 32])>) {
        for (seq, text, hash) in lines {
            let previous = self.head.as_ref().map_or(&[][..], |head| head.as_slice());
            if chain_hash(previous, text.as_bytes()) != hash {
                self.broken_at = Some(seq);
                return;
            }
            (self.lines, self.head) = (self.lines + 1, Some(hash));
        }
    }
}

/// A line that can't be read is left out, so that it hides no other; [`Audit::verify`] tells of it.
fn read(seq: i64, text: &str, hash: [u8; 32]) -> Option<AuditLine> {
    match serde_json::from_str(text) {
        Ok(event) => Some(AuditLine { seq, event, hash }),
        Err(error) => {
            tracing::error!(seq, %error, "a line of the audit log is damaged");
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
        verdict.follow(lines);
        (verdict.lines, verdict.broken_at)
    }

    #[test]
    fn m25_a_changed_and_a_removed_line_break_the_chain_where_they_are() {
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
    fn a_check_in_pieces_is_the_same_check() {
        let lines = chain(&["a", "b", "c", "d"]);
        let (mut whole, mut pieces) = (AuditVerdict::default(), AuditVerdict::default());
        whole.follow(lines.clone());
        lines.chunks(3).for_each(|some| pieces.follow(some.to_vec()));
        assert_eq!(whole, pieces);
    }
}
