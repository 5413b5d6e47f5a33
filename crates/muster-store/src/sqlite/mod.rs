//! The embedded engine: SQLite, with one writer thread that groups commits, and reader threads.
//!
//! * [`writer`] takes jobs from a bounded queue, runs all waiting jobs in one transaction, and replies after it is on
//!   disk (WAL, `synchronous=FULL`).
//! * [`recent`] packs changed components into pages before they are moved to their table.
//! * [`reader`] runs reads on separate connections: point reads on one thread, lists on another, so that a long
//!   list does not hold up a check-in.
//! * [`migrate`] upgrades the schema.
//! * One module per resource converts between records and rows: [`agents`], [`actions`], …

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
