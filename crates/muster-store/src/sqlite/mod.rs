//! The embedded engine: SQLite, in a file in the data directory.
//!
//! * [`session`] is a connection, as the shared code uses it; one writes, two read.
//! * [`connection`] opens connections (WAL, `synchronous=FULL`), [`open`] the store.
//! * [`copied`] is the side of a copy between stores; [`snapshot`] writes a copy of a store that is used.
//! * [`migrate`] upgrades the schema; [`identity`] refuses the files of others.

mod connection;
mod copied;
mod error;
mod identity;
mod migrate;
mod open;
mod session;
mod snapshot;
pub(crate) mod temporary;
#[cfg(test)]
mod tests;

pub(crate) use copied::{open_side, open_unchanged};
pub use identity::refuse_foreign;
pub(crate) use migrate::examine;
pub(crate) use snapshot::{bytes, vacuum_into};
