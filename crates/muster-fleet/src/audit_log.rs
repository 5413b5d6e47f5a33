//! The service of the audit log: listing and verification (M25).
//!
//! The log belongs to the installation. Its chains can be verified only as a whole; its events can be read by space.

use std::sync::Arc;

use muster_core::Error;
use muster_core::audit::{AuditEvent, ChainCheck, ChainFault, ChainHead, SEAL};
use muster_core::authorization::{AuditRead, Forbidden, Grant, OpContext, PrivilegeName};
use muster_core::error_chain::chain;
use muster_core::hex;
use muster_core::id::SpaceId;
use muster_core::time::{Clock, Timestamp};
use muster_store::{AuditLink, AuditStore};

use super::authority::System;
use super::signing_keys::SigningKeys;
use super::watched_store::WatchedStore;

/// Lines per read.
const BATCH: u32 = 1000;
/// Maximum lines that one request scans: matches may be rare and the log long.
const MAX_SCANNED: u64 = 50_000;

/// Maximum events about an object among which its last change is looked for.
const LAST: u32 = 50;
/// Ends of the names of events that change nothing.
const UNCHANGED: [&str; 2] = [".test", ".reveal"];

/// An audit event with its number.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditLine {
    /// Its number, ascending. Between events of several nodes within the same second, the order means nothing.
    pub seq: i64,
    /// The event.
    pub event: AuditEvent,
    /// SHA-256 over the hash of the previous line of its chain and this line's text.
    pub hash: [u8; 32],
}

/// What a caller may read of the log.
#[derive(Clone, Debug)]
pub struct AuditView {
    pub(super) grant: Grant<AuditRead>,
    /// Only events of this space; `None` for the whole log.
    pub(super) space: Option<SpaceId>,
}

impl AuditView {
    /// Returns the view of a caller in its space: the events of this space. Whoever may read the log in all spaces reads all of it in
    /// the default space, which is that of requests without a space.
    pub fn of(context: &OpContext) -> Result<Self, Forbidden> {
        // The whole log only where requests without a space go: elsewhere, the space in the request selects its
        // events.
        match Self::whole(context) {
            Ok(whole) if *context.space() == SpaceId::default() => Ok(whole),
            _ => Self::of_space(context),
        }
    }

    /// Returns the view of a caller of the events of its space, also if that is the default space.
    pub fn of_space(context: &OpContext) -> Result<Self, Forbidden> {
        Ok(Self { grant: context.grant()?, space: Some(context.space().clone()) })
    }

    /// Returns the view of the whole log. Fails unless the caller may read it in all spaces.
    pub fn whole(context: &OpContext) -> Result<Self, Forbidden> {
        Ok(Self { grant: context.grant_everywhere()?, space: None })
    }

    pub(super) fn shows(&self, event: &AuditEvent) -> bool {
        self.space.is_none() || self.space == event.space
    }
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

/// Result of a verification of all chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditVerdict {
    /// Number of verified lines.
    pub lines: u64,
    /// Last verified line of each chain. A copy that is kept elsewhere proves later that the chains were not truncated:
    /// an end that no other chain has sealed could be removed without a trace.
    pub heads: Vec<ChainHead>,
    /// The first defect that was found; `None` if the log is intact.
    pub broken: Option<AuditDefect>,
}

/// A defect of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditDefect {
    /// The chain.
    pub chain: String,
    /// The position in it.
    pub position: i64,
    /// What is wrong there.
    pub fault: ChainFault,
}

/// The audit log.
pub struct Audit {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) signing: Arc<SigningKeys>,
}

impl Audit {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, signing: Arc<SigningKeys>) -> Self {
        Self { store, clock, signing }
    }

    /// Returns matching lines, newest first.
    pub async fn list(&self, view: &AuditView, query: &AuditQuery) -> Result<AuditPage, Error> {
        let mut page = AuditPage::default();
        let mut before = query.before.unwrap_or(i64::MAX);
        // Bounded, so that a rare filter over a long log returns an empty page with a continuation instead of running
        // for minutes.
        for _ in 0..MAX_SCANNED / u64::from(BATCH) {
            // Otherwise filtered here and not in SQL: the lines are stored as text, which the hash covers.
            let store = self.store.audit(view);
            let batch = match &query.subject {
                Some(subject) => store.audit_events_of(subject, before, BATCH).await?,
                None => store.audit_events_before(before, BATCH).await?,
            };
            let is_last = batch.len() < BATCH as usize;
            for (seq, text, hash) in batch {
                // Tested before a line is taken: a page that is full at the log's last line has no next page.
                if page.lines.len() >= query.limit as usize {
                    page.next = Some(before);
                    return Ok(page);
                }
                before = seq;
                page.lines.extend(
                    read(seq, &text, hash).filter(|line| view.shows(&line.event) && query.matches(&line.event)),
                );
            }
            if is_last {
                return Ok(page);
            }
        }
        page.next = Some(before);
        Ok(page)
    }

    /// Returns who changed an object last, and when. To be called for an object that the caller has found to change it: who may
    /// overwrite a change may also know whose it is, without the right to read the log.
    pub async fn last_change(&self, subject: &str) -> Result<Option<(String, Timestamp)>, Error> {
        let lines = self.store.everywhere(&System).audit_events_of(subject, i64::MAX, LAST).await?;
        let mut events = lines.into_iter().filter_map(|(seq, text, hash)| read(seq, &text, hash));
        let is_change = |event: &AuditEvent| !UNCHANGED.iter().any(|verb| event.action.ends_with(verb));
        Ok(events.find(|line| is_change(&line.event)).map(|line| (line.event.actor, line.event.at)))
    }

    /// Verifies every chain from its first line, and every seal, up to the first defect. Needs the view of the whole log.
    pub async fn verify(&self, view: &AuditView) -> Result<AuditVerdict, Error> {
        // A part of a chain proves nothing: each hash covers all events before it.
        if view.space.is_some() {
            return Err(Forbidden(PrivilegeName::AuditRead).into());
        }
        let store = self.store.audit(view);
        let mut verdict = AuditVerdict::default();
        for ChainHead { chain, .. } in store.audit_heads().await? {
            verdict.broken = verify_chain(store, &chain, &mut verdict).await?;
            if verdict.broken.is_some() {
                break;
            }
        }
        Ok(verdict)
    }
}

async fn verify_chain(
    store: &dyn AuditStore,
    chain: &str,
    verdict: &mut AuditVerdict,
) -> Result<Option<AuditDefect>, Error> {
    let mut check = ChainCheck::new(chain);
    loop {
        let links = store.audit_links(chain, check.position(), BATCH).await?;
        let is_last = links.len() < BATCH as usize;
        for link in links {
            if let Err(fault) = check.next(link.position, &link.event, &link.hash) {
                return Ok(Some(AuditDefect { chain: chain.to_owned(), position: check.position() + 1, fault }));
            }
            verdict.lines += 1;
            if is_hidden(&link) {
                return Ok(Some(AuditDefect {
                    chain: chain.to_owned(),
                    position: check.position(),
                    fault: ChainFault::Hidden,
                }));
            }
            if let Some(defect) = verify_seal(store, &link.event).await? {
                return Ok(Some(defect));
            }
        }
        if is_last {
            // An empty chain has no end that could be kept.
            if check.position() > 0 {
                verdict.heads.push(ChainHead::new(chain, check.position(), check.hash()));
            }
            return Ok(None);
        }
    }
}

/// Returns whether an event is stored under another subject than its own.
fn is_hidden(link: &AuditLink) -> bool {
    #[derive(serde::Deserialize)]
    struct Subject<'a> {
        #[serde(borrow)]
        subject: std::borrow::Cow<'a, str>,
    }
    // What is not an event is found nowhere, whatever it is stored under.
    serde_json::from_str::<Subject<'_>>(&link.event).is_ok_and(|event| event.subject != link.subject)
}

/// Verifies that what a seal holds is still there. That its chain leads up to it is verified with that chain.
async fn verify_seal(store: &dyn AuditStore, text: &str) -> Result<Option<AuditDefect>, Error> {
    // Few lines are seals: the others are not decoded.
    if !text.contains(SEAL) {
        return Ok(None);
    }
    // What is not an event was reported by the check of its chain.
    let Ok(event) = serde_json::from_str::<AuditEvent>(text) else { return Ok(None) };
    for ChainHead { chain, position, hash } in event.sealed_heads() {
        let found = store.audit_hash(&chain, position).await?;
        if found.as_ref().map(|found| hex::encode(found)) != Some(hash) {
            return Ok(Some(AuditDefect { chain, position, fault: ChainFault::Sealed }));
        }
    }
    Ok(None)
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
