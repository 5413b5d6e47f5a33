//! A store as a copy uses it: opened only if no server uses it.

use super::error::engine;
use super::progress::{self, Begun};
use super::rows::count;
use super::tables::layouts;
use super::{CopyError, Place};
use crate::engine::error::OpenError;
use crate::engine::session::{Connection, Next, Result as Ran};
use crate::port::INSTALLATION;
use crate::sql::settings;
use crate::{postgres, sqlite};

/// A sequence of numbers that goes on in the copy where it was in the source, even if the rows with the highest numbers were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    /// Of actions: agents store the number of the last one that they received.
    Action,
    /// Of the change log.
    Change,
    /// Of audit events, in the order in which people read them.
    AuditEvent,
    /// Of events, in which receivers of alerts have positions.
    Event,
}

impl Number {
    const ALL: [Self; 4] = [Self::Action, Self::Change, Self::AuditEvent, Self::Event];

    /// The table that it numbers.
    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Action => "actions",
            Self::Change => "changes",
            Self::AuditEvent => "audit_events",
            Self::Event => "events",
        }
    }
}

/// An open store with the current schema.
pub(crate) trait Side {
    /// Where it is.
    fn place(&self) -> &Place;
    /// The connection.
    fn session(&self) -> &Connection;
    /// Commits a transaction of the copy, which belongs to no node.
    fn commit(&self) -> Ran<()>;
    /// Begins a transaction during which no server registers, and returns the names of the registered ones.
    fn begin_alone(&self) -> Ran<Vec<String>>;
    /// Moves what servers keep outside the tables that are copied.
    fn settle(&self) -> Ran<()>;
    /// Whether NUL in strings is replaced.
    fn replaces_nul(&self) -> bool;
    /// The last number of a sequence; 0 if there was none.
    fn last(&self, number: Number) -> Ran<i64>;
    /// Lets a sequence go on after a number.
    fn continue_after(&self, number: Number, last: i64) -> Ran<()>;
}

/// The source, which no server may change during the copy.
pub(super) struct Source {
    pub(super) side: Box<dyn Side>,
    /// The id of its fleet.
    pub(super) fleet: String,
    /// The last number of its change log when the copy began.
    pub(super) newest_change: i64,
}

impl Source {
    /// Fails if a server used the source since it was opened: its rows were not read at one time.
    pub(super) fn refuse_changes(&self) -> Result<(), CopyError> {
        begin_alone(&*self.side)?;
        let last = self.side.last(Number::Change);
        // Rolled back before the result is looked at, so that an error does not leave the lock behind.
        let rolled_back = self.side.session().roll_back();
        let last = last.map_err(engine(self.side.place(), "read the last change"))?;
        rolled_back.map_err(engine(self.side.place(), "end a transaction"))?;
        if last == self.newest_change { Ok(()) } else { Err(CopyError::Changed(self.side.place().to_string())) }
    }
}

/// Opens the source, which an older version may have written, but is not updated. Fails if there is no fleet, or if a server uses it.
pub(super) fn open_source(place: &Place) -> Result<Source, CopyError> {
    let no_fleet = || CopyError::NoFleet(place.to_string());
    if let Place::File(path) = place
        // Opening creates a file, which must not happen to a source that was misspelled.
        && !std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
    {
        return Err(no_fleet());
    }
    let side = open_unchanged(place)?.ok_or_else(no_fleet)?;
    begin_alone(&*side)?;
    progress::refuse_incomplete(side.session())?;
    let fleet = fleet(&*side)?.ok_or_else(no_fleet)?;
    let newest_change = side.last(Number::Change).map_err(engine(place, "read the last change"))?;
    side.commit().map_err(engine(place, "end a transaction"))?;
    Ok(Source { side, fleet, newest_change })
}

/// Opens or creates the target, and begins the copy. Fails if it contains anything but an earlier part of the same copy.
pub(super) fn open_target(place: &Place, source: &Source) -> Result<(Box<dyn Side>, Begun), CopyError> {
    refuse_same(place, source)?;
    let side = open(place)?;
    begin_alone(&*side)?;
    let begun = match progress::continued(&*side, source)? {
        Some(position) => Begun::Before(position),
        // `None`: nothing was begun, so the target must be empty. An interrupted copy of the same source may go on.
        None => {
            refuse_rows(&*side)?;
            progress::begin(&*side, source)?;
            Begun::Now
        }
    };
    // The transaction of `begin_alone` ends here, and with it the protection against servers that start. From now on,
    // the row of the progress refuses them.
    side.commit().map_err(engine(place, "begin the copy"))?;
    Ok((side, begun))
}

/// Checks whether a copy could begin or go on, and changes nothing.
pub(super) fn check_target(place: &Place, source: &Source) -> Result<(), CopyError> {
    refuse_same(place, source)?;
    if let Place::File(path) = place
        && !std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
    {
        return Ok(());
    }
    let Some(side) = open_unchanged(place)? else { return Ok(()) };
    begin_alone(&*side)?;
    if progress::continued(&*side, source)?.is_none() {
        refuse_rows(&*side)?;
    }
    side.session().roll_back().map_err(engine(place, "end a transaction"))
}

fn open(place: &Place) -> Result<Box<dyn Side>, OpenError> {
    match place {
        Place::File(path) => sqlite::open_side(path),
        Place::Database(address) => postgres::open_side(address),
    }
}

/// Opens a store as it is: a copy that fails, or is only tried, must not exclude the program that wrote it.
fn open_unchanged(place: &Place) -> Result<Option<Box<dyn Side>>, OpenError> {
    match place {
        Place::File(path) => sqlite::open_unchanged(path),
        Place::Database(address) => postgres::open_unchanged(address),
    }
}

fn begin_alone(side: &dyn Side) -> Result<(), CopyError> {
    let nodes = side.begin_alone().map_err(engine(side.place(), "read which servers use the store"))?;
    if nodes.is_empty() {
        return Ok(());
    }
    Err(CopyError::InUse { place: side.place().to_string(), nodes: nodes.join(", ") })
}

fn refuse_same(place: &Place, source: &Source) -> Result<(), CopyError> {
    let (Place::File(to), Place::File(from)) = (place, source.side.place()) else { return Ok(()) };
    let same = matches!((to.canonicalize(), from.canonicalize()), (Ok(to), Ok(from)) if to == from);
    if same { Err(CopyError::Same(place.to_string())) } else { Ok(()) }
}

fn refuse_rows(side: &dyn Side) -> Result<(), CopyError> {
    let place = || side.place().to_string();
    if let Some(fleet) = fleet(side)? {
        return Err(CopyError::NotEmpty { place: place(), found: format!("it contains the fleet {fleet}") });
    }
    for table in layouts()? {
        let rows = count(side, &table)?;
        if rows > 0 {
            return Err(CopyError::NotEmpty { place: place(), found: format!("{rows} rows in {}", table.name) });
        }
    }
    Ok(())
}

/// Returns the id of the fleet.
pub(super) fn fleet(side: &dyn Side) -> Result<Option<String>, CopyError> {
    setting(side, INSTALLATION)
}

/// Returns the value of a setting.
pub(super) fn setting(side: &dyn Side, name: &str) -> Result<Option<String>, CopyError> {
    let mut value = None;
    let read = side.session().query(settings::SETTING, &[name.into()], &mut |row| {
        value = Some(row.get(0)?);
        Ok(Next::Enough)
    });
    read.map_err(engine(side.place(), "read a setting"))?;
    Ok(value)
}

/// Lets the numbers of the target go on where those of the source are.
pub(super) fn copy_numbers(from: &dyn Side, to: &dyn Side) -> Result<(), CopyError> {
    let copy = || {
        to.session().begin()?;
        for number in Number::ALL {
            to.continue_after(number, from.last(number)?)?;
        }
        to.commit()
    };
    copy().map_err(engine(to.place(), "copy the last numbers"))
}
