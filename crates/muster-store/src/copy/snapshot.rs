//! Snapshot of a store while servers use it, as the file of an embedded store; and the file's return as a store.
//!
//! SQLite writes the snapshot itself (`VACUUM INTO`). From PostgreSQL, all rows are copied within one transaction that sees the
//! database as of its beginning, and compared.

use std::ops::ControlFlow;
use std::path::Path;

use super::error::engine;
use super::rows::{Limits, count};
use super::side::{Source, copy_numbers, fleet, open_target, setting};
use super::tables::layouts;
use super::{CopyError, Copying, Number, Place, Progress, Stage, Watch, progress};
use crate::engine::error::{EngineError, OpenError};
use crate::engine::session::Next;
use crate::sql::settings;
use crate::{postgres, sqlite};

/// Writes a snapshot to a new file. Blocks until it is on disk. After `Break`, the snapshot is aborted.
///
/// The unit of the progress depends on the engine: rows, or bytes of the file.
pub fn snapshot(from: &Place, to: &Path, watch: &mut Watch<'_>) -> Result<(), CopyError> {
    // Sessions block their thread, which a thread of an asynchronous runtime must not do.
    std::thread::scope(|scope| {
        let work = || match from {
            Place::File(path) => vacuumed(path, to, watch),
            Place::Database(address) => copied(from, postgres::open_snapshot(address)?, to, watch),
        };
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Returns the number of bytes that a snapshot needs at most, approximately.
pub fn snapshot_bytes(from: &Place) -> Result<u64, CopyError> {
    std::thread::scope(|scope| {
        let work = || match from {
            Place::File(path) => Ok(sqlite::bytes(path)?),
            Place::Database(address) => Ok(postgres::bytes(address)?),
        };
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn vacuumed(path: &Path, to: &Path, watch: &mut Watch<'_>) -> Result<(), CopyError> {
    let mut report = |rows, total| watch(Progress { stage: Stage::Copying, table: "", rows, total });
    match sqlite::vacuum_into(path, to, &mut report)? {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(CopyError::Aborted),
    }
}

fn copied(from: &Place, side: Box<dyn super::Side>, to: &Path, watch: &mut Watch<'_>) -> Result<(), CopyError> {
    let fleet = fleet(&*side)?.ok_or_else(|| CopyError::NoFleet(from.to_string()))?;
    let newest_change = side.last(Number::Change).map_err(engine(from, "read the last change"))?;
    let source = Source { side, fleet, newest_change };
    let place = Place::File(to.to_owned());
    let (target, begun) = open_target(&place, &source)?;
    let tables = layouts()?;
    let total = tables.iter().map(|table| count(&*source.side, table)).sum::<Result<u64, _>>()?;
    let limits = Limits::default();
    let mut copying = Copying { from: &*source.side, to: &*target, limits, watch, rows: 0, total, replaced: 0 };
    copying.tables(&tables, begun.position())?;
    copy_numbers(&*source.side, &*target)?;
    copying.rows = 0;
    copying.compare(&tables)?;
    progress::end(&*target)?;
    target.session().finish().map_err(engine(&place, "finish the snapshot"))
}

/// Returns a setting in the file of a snapshot.
pub fn setting_in(file: &Path, name: &str) -> Result<Option<String>, CopyError> {
    setting(&*sqlite::open_side(file)?, name)
}

/// Prepares the file of a snapshot to be used as a store again: updates its schema, checks the file, and stores a setting. Fails if it
/// is not a store of the fleet `expected`.
pub fn revive(file: &Path, expected: &str, stored: (&str, &str)) -> Result<(), CopyError> {
    let place = Place::File(file.to_owned());
    let side = sqlite::open_side(file)?;
    progress::refuse_incomplete(side.session())?;
    let found = fleet(&*side)?.ok_or_else(|| CopyError::NoFleet(place.to_string()))?;
    if found != expected {
        return Err(CopyError::OtherFleet { place: place.to_string(), found, expected: expected.to_owned() });
    }
    let mut defect = String::new();
    let checked = side.session().query("PRAGMA quick_check(1)", &[], &mut |row| {
        defect = row.get(0)?;
        Ok(Next::Enough)
    });
    checked.map_err(engine(&place, "check the file"))?;
    if defect != "ok" {
        return Err(OpenError::engine(format!("check {place}"))(EngineError::row(defect)).into());
    }
    let (name, value) = stored;
    let store = || {
        side.session().begin()?;
        side.session().run(settings::PUT_SETTING, &[name.into(), value.into()])?;
        side.commit()?;
        side.session().finish()
    };
    store().map_err(engine(&place, "store that the file was restored"))
}
