//! The embedded engine: SQLite, in a file in the data directory.
//!
//! * [`session`] is a connection, as the shared code uses it; one writes, two read.
//! * [`connection`] opens connections (WAL, `synchronous=FULL`), [`open`] the store.
//! * [`migrate`] upgrades the schema; [`identity`] refuses the files of others.

mod connection;
mod error;
mod identity;
mod migrate;
mod open;
mod session;
mod temporary;
#[cfg(test)]
mod tests;

pub use identity::refuse_foreign;
