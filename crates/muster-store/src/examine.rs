//! Examination of a store from outside, without changing it: is it reachable, and can this program use it?

use muster_core::time::Timestamp;

use crate::copy::Place;
use crate::engine::error::OpenError;
use crate::{postgres, sqlite};

/// What an examination found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Version of the engine, such as `SQLite 3.50.4` or `PostgreSQL 16.4`.
    pub engine: String,
    /// The newest migration in the store; 0 in an empty one.
    pub migration: i64,
    /// The time of the database's own clock, if it has one.
    pub now: Option<Timestamp>,
}

/// Examines a store. Blocks. Fails if it can't be reached, belongs to another program, or has a schema that this program does not
/// support.
pub fn examine(place: &Place) -> Result<Examined, OpenError> {
    // Sessions block their thread, which a thread of an asynchronous runtime must not do.
    std::thread::scope(|scope| {
        let work = || match place {
            Place::File(path) => sqlite::examine(path),
            Place::Database(address) => postgres::examine(address),
        };
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
