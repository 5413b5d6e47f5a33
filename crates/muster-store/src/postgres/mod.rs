//! The shared engine: PostgreSQL, or a database with the same protocol, for one or more servers.
//!
//! * [`session`] is a connection, as the shared code uses it: it connects again when the connection is lost. [`statement`] is what it
//!   sends.
//! * [`address`] reads the database's address, and how to trust and to authenticate to it.
//! * [`dialect`] translates the schema and the few statements that differ; [`migrate`] brings the schema up to date.
//! * [`registration`] makes this server a node of the database, and fences one whose lease has expired; [`leases`] decides which node does
//!   the work that only one may do.
//! * [`copied`] is the side of a copy between stores.
//! * [`follow`] keeps this server registered, and tells it of changes that others commit.
//!
//! What is asked of the engine: READ COMMITTED transactions, row locks that are held until the commit, unique constraints, and
//! nothing else: no LISTEN, an advisory lock only while a server registers; a sequence only for the order in which people read the audit log. Numbers of the change
//! log and of actions come from counter rows. A counter's row stays locked until the transaction that took a number commits, so that
//! numbers become visible in ascending order.

mod address;
mod copied;
mod dialect;
mod error;
mod follow;
mod leases;
mod migrate;
mod open;
#[cfg(test)]
mod plans;
mod registration;
mod session;
mod statement;

pub use address::Address;
pub(crate) use copied::{bytes, open_side, open_snapshot, open_unchanged};
pub(crate) use migrate::examine;
pub use registration::Node;
