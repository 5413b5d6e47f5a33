//! Copy of a whole store to an empty one, between engines or within one, while no server uses either.
//!
//! * [`side`] is a store as a copy uses it. The engines open it (`sqlite/copied.rs`, `postgres/copied.rs`).
//! * [`tables`] lists the tables that are copied, and those that are not, with reasons.
//! * [`rows`] reads and inserts rows in batches of bounded size, in the order of the primary key.
//! * [`progress`] stores in the target how far the copy is, in the transaction of each batch. A second run continues there.
//! * [`snapshot`] copies a store that servers use to a file.
//! * [`compare`] computes a digest of each table on both sides, and finds the first row that differs.
//!
//! Rows are copied as they are. What is encrypted in them can only be read with the `master.key` of the source's servers.

mod compare;
mod error;
mod progress;
mod rows;
mod side;
mod snapshot;
mod tables;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;

use self::compare::Comparison;
pub use self::error::CopyError;
pub(crate) use self::progress::refuse_incomplete;
use self::progress::{Begun, Position};
use self::rows::{Cell, Limits, count};
pub(crate) use self::side::{Number, Side};
use self::side::{open_source, open_target};
pub use self::snapshot::{revive, setting_in, snapshot, snapshot_bytes};
use self::tables::layouts;
use crate::postgres::Address;
use crate::sql::copy::Layout;

/// A store that is copied, or copied to.
#[derive(Clone, Debug)]
pub enum Place {
    /// The file of an embedded store.
    File(PathBuf),
    /// A PostgreSQL database.
    Database(Box<Address>),
}

impl From<Address> for Place {
    fn from(address: Address) -> Self {
        Self::Database(Box::new(address))
    }
}

/// Without the password, for messages.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Database(address) => write!(f, "the database {address}"),
        }
    }
}

/// A stage of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rows are copied.
    Copying,
    /// Both sides are read and compared.
    Verifying,
}

/// Progress of a copy.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// The table.
    pub table: &'static str,
    /// Rows done in this stage, of all tables.
    pub rows: u64,
    /// Rows of all tables.
    pub total: u64,
}

/// Receives the progress after each batch. After `Break`, the copy stops, and a later run continues it.
pub type Watch<'w> = dyn FnMut(Progress) -> ControlFlow<()> + Send + 'w;

/// A copied table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedTable {
    /// Its name.
    pub name: &'static str,
    /// Number of its rows.
    pub rows: u64,
    /// Digest of its rows in hex, which is the same on both sides and on both engines.
    pub digest: String,
}

/// Result of a copy.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The tables.
    pub tables: Vec<CopiedTable>,
    /// Whether an interrupted copy was continued.
    pub is_continued: bool,
    /// Strings in which NUL was replaced by U+FFFD, because PostgreSQL cannot store it.
    pub replaced: u64,
}

/// Copies a store to an empty one, and verifies the copy. Continues an interrupted copy. Blocks until it is done.
pub fn copy(from: &Place, to: &Place, watch: &mut Watch<'_>) -> Result<Copied, CopyError> {
    // Sessions block their thread, which a thread of an asynchronous runtime must not do.
    std::thread::scope(|scope| {
        let copied = scope.spawn(|| copy_within(Limits::default(), from, to, watch)).join();
        copied.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Returns the tables of a store that would be copied, with their numbers of rows. Changes nothing.
pub fn count_rows(from: &Place, to: &Place) -> Result<Vec<(&'static str, u64)>, CopyError> {
    std::thread::scope(|scope| {
        let counted = scope.spawn(|| {
            let source = open_source(from)?;
            side::check_target(to, &source)?;
            layouts()?.iter().map(|table| Ok((table.name, count(&*source.side, table)?))).collect()
        });
        counted.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn copy_within(limits: Limits, from: &Place, to: &Place, watch: &mut Watch<'_>) -> Result<Copied, CopyError> {
    let source = open_source(from)?;
    // Before anything is counted: the ring would otherwise have rows that no copied table contains.
    source.side.settle().map_err(error::engine(from, "move recent components to their table"))?;
    let (target, begun) = open_target(to, &source)?;
    let tables = layouts()?;
    let total = tables.iter().map(|table| count(&*source.side, table)).sum::<Result<u64, _>>()?;
    let mut copying = Copying { from: &*source.side, to: &*target, limits, watch, rows: 0, total, replaced: 0 };
    copying.tables(&tables, begun.position())?;
    // After the rows, because inserting them with their numbers does not advance the sequences of the target.
    side::copy_numbers(&*source.side, &*target)?;
    copying.rows = 0;
    // Everything is read back, not only counted: a driver that changes a value on its way would otherwise go
    // unnoticed.
    let compared = copying.compare(&tables)?;
    // Only now: a server that was started by mistake during the copy has left a newer change.
    source.refuse_changes()?;
    // The last step. Until then, the row of the progress keeps servers from opening the target.
    progress::end(&*target)?;
    target.session().finish().map_err(error::engine(to, "finish the copy"))?;
    Ok(Copied { tables: compared, is_continued: matches!(begun, Begun::Before(_)), replaced: copying.replaced })
}

/// A copy in progress.
struct Copying<'c, 'w> {
    from: &'c dyn Side,
    to: &'c dyn Side,
    limits: Limits,
    watch: &'c mut Watch<'w>,
    rows: u64,
    total: u64,
    replaced: u64,
}

impl Copying<'_, '_> {
    /// Copies all tables from a position on.
    fn tables(&mut self, tables: &[Layout], position: Position) -> Result<(), CopyError> {
        let first = tables.iter().position(|table| table.name == position.table).unwrap_or(0);
        // The progress that is shown goes on where the earlier run stopped.
        for table in &tables[..first] {
            self.rows += count(self.from, table)?;
        }
        let mut after = position.key;
        for table in &tables[first..] {
            self.table(table, std::mem::take(&mut after))?;
        }
        Ok(())
    }

    /// Copies the rows of a table after a key. Each batch is a transaction, which also stores the position.
    fn table(&mut self, table: &Layout, mut after: Vec<Cell>) -> Result<(), CopyError> {
        loop {
            let batch = rows::next(self.from, table, &after, self.limits)?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = rows::key(table, last);
            let begun = self.to.session().begin();
            begun.map_err(error::engine(self.to.place(), "begin a transaction"))?;
            rows::insert(self.to, table, &batch)?;
            // In the same transaction as the rows, so that a crash neither skips a batch nor copies one twice.
            progress::advance(self.to, table, &after)?;
            self.to.commit().map_err(error::engine(self.to.place(), "commit a batch"))?;
            if self.to.replaces_nul() {
                self.replaced += batch.iter().flatten().filter(|cell| cell.has_nul()).count() as u64;
            }
            self.report(Stage::Copying, table, batch.len())?;
        }
    }

    fn compare(&mut self, tables: &[Layout]) -> Result<Vec<CopiedTable>, CopyError> {
        let comparison = Comparison { from: self.from, to: self.to, limits: self.limits };
        let mut compared = Vec::new();
        for table in tables {
            let digest = comparison.table(table, &mut |rows| self.report(Stage::Verifying, table, rows))?;
            compared.push(CopiedTable { name: table.name, rows: digest.rows(), digest: digest.hex() });
        }
        Ok(compared)
    }

    fn report(&mut self, stage: Stage, table: &Layout, rows: usize) -> Result<(), CopyError> {
        self.rows += rows as u64;
        let progress = Progress { stage, table: table.name, rows: self.rows, total: self.total };
        match (self.watch)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(CopyError::Stopped { table: table.name }),
        }
    }
}
