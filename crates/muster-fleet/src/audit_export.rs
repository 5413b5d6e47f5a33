//! Export of the audit log to a signed file, as a stream of lines (M25).
//!
//! The chains are read up to the positions that they had when the export began. Each piece is read when the previous one was sent, so
//! that a slow client costs no memory.

use std::sync::Arc;

use bytes::Bytes;
use muster_core::Error;
use muster_core::audit::export::{ExportError, FORMAT, Header, Part, Writer, fingerprint};
use muster_core::audit::{AuditEvent, ChainHead, chain_start};
use muster_core::hex;
use muster_core::signing::Signer;
use muster_core::time::Timestamp;
use muster_store::{AuditLink, AuditStore};
use serde_json::json;

use super::audit::audit_line;
use super::audit_log::{Audit, AuditView};
use super::watched_store::WatchedStore;

/// Events per read. An event has a few hundred bytes.
const BATCH: u32 = 256;

/// The period of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// Only events at or after this time. All events between the first and the last one of the period are exported, whatever their
    /// times are: after the clock was set, times do not ascend, and a gap could not be told from a removed event.
    pub since: Option<Timestamp>,
    /// Only events before this time.
    pub until: Option<Timestamp>,
}

/// An export in progress.
pub struct Export {
    store: Arc<WatchedStore>,
    view: AuditView,
    signer: Arc<Signer>,
    /// What the file contains, and where it is: the index of the chain, and the position of the last event that was sent.
    parts: Vec<Part>,
    part: usize,
    position: i64,
    /// The first line, until it is sent.
    first: Option<String>,
    /// `None` after the trailer.
    writer: Option<Writer>,
}

impl Audit {
    /// Begins an export. `fleet` is the id of the installation. Of events that the view does not show, the file contains only
    /// their number and the hash of the last one.
    pub async fn export(&self, view: &AuditView, fleet: String, period: Period) -> Result<Export, Error> {
        let store = self.store.audit(view);
        let mut parts = Vec::new();
        for head in store.audit_heads().await? {
            parts.push(part(store, head, period).await?);
        }
        let signer = self.signing.refresh().await?;
        let public_key = signer.public_key();
        let header = Header {
            format: FORMAT.into(),
            fleet,
            space: view.space.as_ref().map(ToString::to_string),
            created_at: self.clock.now().to_rfc3339_millis(),
            since: period.since.map(Timestamp::to_rfc3339_millis),
            until: period.until.map(Timestamp::to_rfc3339_millis),
            public_key: public_key.to_owned(),
            fingerprint: fingerprint(public_key).unwrap_or_default(),
            chains: parts.clone(),
        };
        // After the heads were read: the export does not contain itself.
        let detail = json!({"since": header.since, "until": header.until});
        let line = audit_line(view.grant.origin(), self.clock.now(), "audit.export", "audit", detail);
        self.store.commit(&view.grant, vec![line]).await?;
        let (writer, first) = Writer::begin(&header).map_err(failed)?;
        let position = parts.first().map_or(0, |part| part.after);
        Ok(Export {
            store: Arc::clone(&self.store),
            view: view.clone(),
            signer: Arc::clone(&signer),
            parts,
            part: 0,
            position,
            first: Some(first),
            writer: Some(writer),
        })
    }
}

fn failed(error: ExportError) -> Error {
    Error::internal(error)
}

/// Returns the part of a chain that belongs to a period.
async fn part(store: &dyn AuditStore, head: ChainHead, period: Period) -> Result<Part, Error> {
    let ChainHead { chain, position: newest, .. } = head;
    let (mut after, mut last, mut position) = (0, newest, 0);
    if period != Period::default() {
        // Times are within the hashed texts, and have no index.
        (after, last) = (newest, 0);
        while position < newest {
            let links = store.audit_links(&chain, position, BATCH).await?;
            let Some(end) = links.last().map(|link| link.position) else { break };
            for link in links.iter().filter(|link| link.position <= newest) {
                let Ok(event) = serde_json::from_str::<AuditEvent>(&link.event) else { continue };
                if after == newest && period.since.is_none_or(|since| event.at >= since) {
                    after = link.position - 1;
                }
                if period.until.is_none_or(|until| event.at < until) {
                    last = link.position;
                }
            }
            position = end;
        }
    }
    let hash = match after {
        0 => Some(chain_start(&chain)),
        after => store.audit_hash(&chain, after).await?,
    };
    // If the event before the first one is missing, the verification fails at the first one.
    let hash = hash.map_or_else(|| "0".repeat(64), |hash| hex::encode(&hash));
    Ok(Part { chain, after, hash, last: last.max(after) })
}

impl Export {
    /// Returns the next piece of the file; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first.into()));
        }
        if self.writer.is_none() {
            return Ok(None);
        }
        while let Some(part) = self.parts.get(self.part).cloned() {
            let links = match self.position < part.last {
                true => self.store.audit(&self.view).audit_links(&part.chain, self.position, BATCH).await?,
                false => Vec::new(),
            };
            let before = self.position;
            let mut piece = self.lines(&part, links)?;
            if self.position == before {
                // A chain that ends early is broken, which the verification reports.
                piece = self.writer.as_mut().map_or(Ok(String::new()), Writer::flush).map_err(failed)?;
                self.part += 1;
                self.position = self.parts.get(self.part).map_or(0, |part| part.after);
            }
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
        let last = self.writer.take().map(|writer| writer.end(&self.signer)).transpose().map_err(failed)?;
        Ok(last.map(Bytes::from))
    }

    fn lines(&mut self, part: &Part, links: Vec<AuditLink>) -> Result<String, Error> {
        let mut piece = String::new();
        let Some(writer) = &mut self.writer else { return Ok(piece) };
        for AuditLink { position, event, hash, .. } in links.into_iter().filter(|link| link.position <= part.last) {
            // An event that cannot be read may belong to another space.
            let is_shown = self.view.space.is_none()
                || serde_json::from_str::<AuditEvent>(&event).is_ok_and(|event| self.view.shows(&event));
            match is_shown {
                true => piece += &writer.event(&part.chain, position, &event, &hash).map_err(failed)?,
                false => writer.withhold(&part.chain, position, &hash),
            }
            self.position = position;
        }
        Ok(piece)
    }
}
