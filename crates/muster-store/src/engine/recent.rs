//! Recently reported components, which are on disk before they are in their table.
//!
//! Most check-ins with changes change a few hundred bytes of components. In their table, each change
//! would cost a WAL page. So they are packed into pages of a ring, `recent_components`, in the same
//! transaction, and moved to their table only when the ring wraps around and the agent
//! has reported nothing newer. Until then readers find them in [`OnTheWay`], which is rebuilt from the ring
//! at the next start.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::session::{Connection, params};
use muster_core::id::AgentId;

use super::agents::settle_components;
use super::error::{Cause, EngineError};
use super::row::{Result, all, run};
use crate::sql::agents as sql;

/// Number of pages in the ring: 4 MiB.
const SLOTS: i64 = 1024;
/// Bytes of entries per row, so that a row fills exactly one page of 4 KiB.
const PAGE: usize = 4000;
/// Maximum size of components in the ring. Larger ones go to their table directly, since they cost a page anyway.
const LONGEST: usize = 1536;
/// Maximum bytes that one transaction puts into the ring; far less than its size.
const BATCH: usize = PAGE * 128;
/// Bytes of the two lengths of an entry.
const LENGTHS: usize = 8;
/// Length that marks that the table is newer.
const SUPERSEDED: u32 = u32::MAX;

/// Position of an agent's newest entry.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    // `SUPERSEDED` is no valid length, because components in the ring have at most `LONGEST` bytes.
    seq: i64,
    /// `None` if the table is newer.
    pub(crate) components: Option<Arc<str>>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq && self.components.as_deref() == other.components.as_deref()
    }
}

/// Components that are not in their table yet, for readers.
#[derive(Clone, Debug, Default)]
pub(crate) struct OnTheWay(Arc<Mutex<HashMap<AgentId, Place>>>);

impl OnTheWay {
    /// Returns an agent's newest entry.
    pub(crate) fn of(&self, id: &AgentId) -> Option<Place> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ring, owned by the writer thread.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Number of the next row; its position is the number modulo [`SLOTS`].
    next: i64,
    /// Agents with entries in each row.
    rows: Vec<Vec<AgentId>>,
    on_the_way: OnTheWay,
    /// Whether components go to their table at once.
    is_off: bool,
}

struct Entry {
    id: AgentId,
    components: Option<Arc<str>>,
}

impl Entry {
    fn len(&self) -> usize {
        LENGTHS + self.id.as_str().len() + self.components.as_ref().map_or(0, |text| text.len())
    }
}

/// Entries of one transaction.
pub(crate) struct Batch<'r> {
    recent: &'r OnTheWay,
    entries: Vec<Entry>,
    bytes: usize,
    /// Whether one of them marks that the table is newer.
    supersedes: bool,
    is_off: bool,
}

/// Entries of one row.
#[derive(Default)]
pub(crate) struct Page {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

impl Batch<'_> {
    /// Returns whether components fit.
    pub(crate) fn has_room(&self, id: &AgentId, components: &str) -> bool {
        !self.is_off && components.len() <= LONGEST && self.bytes + components.len() + id.as_str().len() <= BATCH
    }

    /// Returns whether the agent certainly exists: its components are in the ring, and this transaction deletes no agent.
    pub(crate) fn has(&self, id: &AgentId) -> bool {
        !self.supersedes && self.recent.lock().get(id).is_some_and(|place| place.components.is_some())
    }

    /// Puts the newest components of an agent.
    pub(crate) fn put(&mut self, id: &AgentId, components: &Arc<str>) {
        self.push(Entry { id: id.clone(), components: Some(Arc::clone(components)) });
    }

    /// Marks that the table is newer than the ring.
    pub(crate) fn supersede(&mut self, id: &AgentId) {
        // Without an older entry there is nothing that could overwrite the table, and no mark is needed.
        if self.recent.lock().contains_key(id) || self.entries.iter().any(|entry| entry.id == *id) {
            self.push(Entry { id: id.clone(), components: None });
        }
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.len();
        self.supersedes |= entry.components.is_none();
        self.entries.push(entry);
    }

    /// Returns a mark to roll back to if the next job fails.
    pub(crate) fn mark(&self) -> usize {
        self.entries.len()
    }

    /// Rolls back to a mark.
    pub(crate) fn back_to(&mut self, mark: usize) {
        self.entries.truncate(mark);
        // Recomputed instead of subtracted: a failed job is rare, and the sum can't drift.
        self.bytes = self.entries.iter().map(Entry::len).sum();
        self.supersedes = self.entries.iter().any(|entry| entry.components.is_none());
    }

    /// Returns the entries as rows.
    pub(crate) fn into_pages(self) -> Vec<Page> {
        let mut pages: Vec<Page> = Vec::new();
        for entry in self.entries {
            // Only the last page is filled up. Entries of one agent must stay in order, so that the last one wins
            // when read.
            match pages.last_mut().filter(|page| page.bytes.len() + entry.len() <= PAGE) {
                Some(page) => page.push(entry),
                None => {
                    let mut page = Page { bytes: Vec::with_capacity(PAGE), entries: Vec::new() };
                    page.push(entry);
                    pages.push(page);
                }
            }
        }
        pages
    }
}

impl Page {
    fn push(&mut self, entry: Entry) {
        let (id, text) = (entry.id.as_str(), entry.components.as_deref());
        let length = text.map_or(SUPERSEDED, |text| u32::try_from(text.len()).unwrap_or(SUPERSEDED));
        self.bytes.extend_from_slice(&u32::try_from(id.len()).unwrap_or(0).to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(id.as_bytes());
        self.bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
        self.entries.push(entry);
    }
}

impl Recent {
    /// Creates one without a ring, for an engine whose pages this server does not control.
    pub(crate) fn without_ring() -> Self {
        Self { is_off: true, ..Self::default() }
    }

    /// Loads the ring from the file. Writes nothing, so that a store on a
    /// full disk can be opened.
    pub(crate) fn load(connection: &Connection) -> Result<Self> {
        let mut recent = Self::default();
        let rows = all(connection, sql::ALL_RECENT, (), |row| Ok((row.get::<i64>(0)?, row.get::<Vec<u8>>(1)?)))?;
        for (seq, bytes) in rows {
            let (mut agents, mut rest) = (Vec::new(), bytes.as_slice());
            // Rows come in order, so a later entry of the same agent replaces an earlier one.
            while let Some((id, components, after)) = entry(rest) {
                // The ids were valid when they were written; a row is trusted as far as its lengths fit.
                let id = AgentId::trusted(id);
                recent.on_the_way.lock().insert(id.clone(), Place { seq, components: components.map(Into::into) });
                agents.push(id);
                rest = after;
            }
            let slot = usize::try_from(seq % SLOTS).unwrap_or(0);
            recent.rows.resize_with(recent.rows.len().max(slot + 1), Vec::new);
            recent.rows[slot] = agents;
            recent.next = seq + 1;
        }
        Ok(recent)
    }

    /// Moves everything in the ring to its table and clears the ring.
    pub(crate) fn settle(&self, connection: &Connection) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        // A transaction of its own: this runs at the end, outside the jobs.
        connection.begin()?;
        for (id, place) in self.on_the_way.lock().iter() {
            if let Some(components) = &place.components {
                settle_components(connection, id, components)?;
            }
        }
        run(connection, sql::CLEAR_RECENT, ())?;
        connection.commit().map_err(|uncommitted| EngineError::new(Cause::Other, uncommitted.error))
    }

    /// Returns the view for readers.
    pub(crate) fn on_the_way(&self) -> OnTheWay {
        self.on_the_way.clone()
    }

    /// Returns the empty entries of a new transaction.
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { recent: &self.on_the_way, entries: Vec::new(), bytes: 0, supersedes: false, is_off: self.is_off }
    }

    fn row(&self, seq: i64) -> &[AgentId] {
        usize::try_from(seq % SLOTS).ok().and_then(|slot| self.rows.get(slot)).map_or(&[], Vec::as_slice)
    }

    /// Overwrites the oldest pages, whose newest entries are moved to their table first.
    pub(crate) fn write(&self, connection: &Connection, pages: &[Page]) -> Result<()> {
        // These agents get a newer entry in this transaction, so their old ones need not be moved.
        let newer = pages.iter().flat_map(|page| &page.entries).map(|entry| &entry.id).collect();
        for (page, seq) in pages.iter().zip(self.next..) {
            // Before the row is overwritten, in the same transaction: at no time is a document in neither place.
            self.settle_row(connection, seq, &newer)?;
            run(connection, sql::PUT_RECENT, params![seq % SLOTS, seq, page.bytes])?;
        }
        Ok(())
    }

    /// Moves the newest entries of the row that `seq` replaces to the table.
    fn settle_row(&self, connection: &Connection, seq: i64, newer: &HashSet<&AgentId>) -> Result<()> {
        let row = self.row(seq);
        for (index, id) in row.iter().enumerate() {
            // A newer entry is written in this transaction, or this one was moved already.
            if newer.contains(id) || row[..index].contains(id) {
                continue;
            }
            // If the newest entry is in another row, this one is obsolete.
            let place = self.on_the_way.of(id).filter(|place| place.seq == seq - SLOTS);
            if let Some(components) = place.and_then(|place| place.components) {
                settle_components(connection, id, &components)?;
            }
        }
        Ok(())
    }

    /// Publishes pages that are on disk.
    pub(crate) fn written(&mut self, pages: Vec<Page>) {
        // Locked for all pages, so that a reader never sees a part of the transaction.
        let mut on_the_way = self.on_the_way.lock();
        for page in pages {
            let seq = self.next;
            self.next += 1;
            let row = page.entries.iter().map(|entry| entry.id.clone()).collect();
            let slot = usize::try_from(seq % SLOTS).unwrap_or(0);
            let old = if slot < self.rows.len() {
                std::mem::replace(&mut self.rows[slot], row)
            } else {
                self.rows.push(row);
                Vec::new()
            };
            for id in old {
                // Readers look here first. An entry may disappear only after the table has its content, which the
                // commit has ensured.
                if on_the_way.get(&id).is_some_and(|place| place.seq == seq - SLOTS) {
                    on_the_way.remove(&id);
                }
            }
            for Entry { id, components } in page.entries {
                on_the_way.insert(id, Place { seq, components });
            }
        }
    }
}

/// Splits the first entry off a row: the agent, its components, and the rest.
fn entry(row: &[u8]) -> Option<(&str, Option<&str>, &[u8])> {
    let (id_length, rest) = row.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (id, rest) = rest.split_at_checked(u32::from_le_bytes(*id_length) as usize)?;
    let id = std::str::from_utf8(id).ok()?;
    match u32::from_le_bytes(*length) {
        // The lengths are checked against the rest of the row, so a damaged row ends the list instead of causing a
        // panic.
        SUPERSEDED => Some((id, None, rest)),
        length => {
            let (components, rest) = rest.split_at_checked(length as usize)?;
            Some((id, Some(std::str::from_utf8(components).ok()?), rest))
        }
    }
}
