//! A PostgreSQL database as a side of a copy.

use std::cell::Cell;
use std::sync::Arc;

use super::address::Address;
use super::migrate::{LOCK, has_schema, migrate};
use super::session::PostgresSession;
use crate::copy::{Number, Place, Side};
use crate::engine::error::{EngineError, OpenError};
use crate::engine::migration::MIGRATIONS;
use crate::engine::session::{Connection, Next, Result, Session as _, Value};
use crate::sql::now;

const LIVE: &str = concat!("SELECT name FROM nodes WHERE expires_at > ", now!(), " ORDER BY name LIMIT 5");
/// Selects the bytes of all tables of the schema.
const BYTES: &str = "SELECT CAST(coalesce(sum(pg_total_relation_size(c.oid)), 0) AS BIGINT) FROM pg_class c \
    WHERE c.relkind = 'r' AND c.relnamespace = CAST(current_schema() AS regnamespace)";
const LAST: &str = "SELECT value FROM counters WHERE name = $1";
const LAST_EVENT: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM audit_order";
const CONTINUE: &str = "UPDATE counters SET value = greatest(value, $1) WHERE name = $2";
const CONTINUE_EVENTS: &str = "SELECT setval('audit_order', $1)";

struct Database {
    place: Place,
    session: PostgresSession,
    /// Whether the transaction that read or updated the schema, and took its lock, is still open.
    is_migrating: Cell<bool>,
}

/// Connects to a database, and creates or updates its schema in a transaction, which stays open.
pub(crate) fn open_side(address: &Address) -> std::result::Result<Box<dyn Side>, OpenError> {
    let session = PostgresSession::open(Arc::new(address.clone()))?;
    migrate(&session, &format!("the database {address}"), MIGRATIONS)?;
    Ok(Box::new(Database { place: address.clone().into(), session, is_migrating: Cell::new(true) }))
}

/// Connects to a database that servers use, and begins a transaction that sees it as of now.
pub(crate) fn open_snapshot(address: &Address) -> std::result::Result<Box<dyn Side>, OpenError> {
    let session = PostgresSession::open(Arc::new(address.clone()))?;
    // REPEATABLE READ: all tables are read as of the same moment while servers go on writing.
    session.begin_snapshot().map_err(OpenError::engine::<EngineError>("begin a snapshot of the database"))?;
    Ok(Box::new(Database { place: address.clone().into(), session, is_migrating: Cell::new(false) }))
}

/// Returns the size of the tables with their indexes, which is more than a file of SQLite with the same rows needs.
pub(crate) fn bytes(address: &Address) -> std::result::Result<u64, OpenError> {
    let session = PostgresSession::open(Arc::new(address.clone()))?;
    let mut bytes = 0;
    let read = session.query(BYTES, &[], &mut |row| {
        bytes = row.get(0)?;
        Ok(Next::Enough)
    });
    read.map_err(OpenError::engine::<EngineError>("read the size of the database"))?;
    Ok(bytes)
}

/// Connects to a database whose schema must not change; `None` if it has none.
pub(crate) fn open_unchanged(address: &Address) -> std::result::Result<Option<Box<dyn Side>>, OpenError> {
    let session = PostgresSession::open(Arc::new(address.clone()))?;
    if !has_schema(&session, &format!("the database {address}"), MIGRATIONS)? {
        return Ok(None);
    }
    Ok(Some(Box::new(Database { place: address.clone().into(), session, is_migrating: Cell::new(true) })))
}

impl Database {
    fn number(&self, statement: &str, values: &[Value<'_>]) -> Result<i64> {
        let mut number = 0;
        self.session.query(statement, values, &mut |row| {
            number = row.get(0)?;
            Ok(Next::Enough)
        })?;
        Ok(number)
    }
}

impl Side for Database {
    fn place(&self) -> &Place {
        &self.place
    }

    fn session(&self) -> &Connection {
        &self.session
    }

    fn commit(&self) -> Result<()> {
        self.session.commit_unfenced()
    }

    fn begin_alone(&self) -> Result<Vec<String>> {
        // The open transaction of the migration has the lock already.
        if !self.is_migrating.take() {
            self.session.begin()?;
            // Servers that start take this lock before they register.
            self.session.query(LOCK, &[], &mut |_| Ok(Next::Enough))?;
        }
        let mut names = Vec::new();
        self.session.query(LIVE, &[], &mut |row| {
            names.push(row.get(0)?);
            Ok(Next::Row)
        })?;
        Ok(names)
    }

    /// Nothing: this engine has no ring of recent components.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn replaces_nul(&self) -> bool {
        true
    }

    fn last(&self, number: Number) -> Result<i64> {
        match number {
            Number::Action | Number::Change | Number::Event => self.number(LAST, &[number.table().into()]),
            Number::AuditEvent => self.number(LAST_EVENT, &[]),
        }
    }

    fn continue_after(&self, number: Number, last: i64) -> Result<()> {
        match number {
            Number::Action | Number::Change | Number::Event => {
                self.session.run(CONTINUE, &[last.into(), number.table().into()]).map(drop)
            }
            // A sequence can't be set to 0, where it is anyway.
            Number::AuditEvent if last == 0 => Ok(()),
            Number::AuditEvent => self.number(CONTINUE_EVENTS, &[last.into()]).map(drop),
        }
    }
}
