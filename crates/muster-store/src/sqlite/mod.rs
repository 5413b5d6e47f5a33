//! The embedded engine: SQLite, one writing thread that groups commits, reading threads beside it.
//!
//! * [`writer`] takes jobs from a bounded queue, runs as many as wait in one transaction, and answers after it is on
//!   disk (WAL, `synchronous=FULL`).
//! * [`recent`] takes changed components, many to a page, before they come into their table.
//! * [`reader`] runs reads on connections of their own: point reads on one thread, lists on another, so that a long
//!   list does not hold up a check-in.
//! * [`migrate`] brings the file's schema to the newest.
//! * One module per resource turns records into rows and back: [`agents`], [`actions`], …

mod actions;
mod agents;
mod apply;
mod connection;
mod damage;
mod enrollment_keys;
mod error;
mod files;
mod identity;
mod log;
mod migrate;
mod policies;
mod policy_changes;
mod queue;
mod reader;
mod recent;
mod row;
mod settings;
mod store;
mod temporary;
#[cfg(test)]
mod tests;
mod transaction;
mod words;
mod writer;

pub use error::OpenError;
pub use identity::refuse_foreign;
pub use store::{Options, SqliteStore};
