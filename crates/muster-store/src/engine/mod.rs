//! Code that all engines share: conversion of records to rows, and grouping of writes.
//!
//! * [`session`] is what an engine offers: statements, transactions, locks.
//! * One module per resource converts between records and rows: [`agents`], [`actions`], …
//! * [`writer`] takes jobs from a bounded queue, runs all waiting jobs in one transaction ([`transaction`]), and replies after it is
//!   committed.
//! * [`reader`] runs reads on sessions of their own: point reads apart from lists, so that a long list does not hold up
//!   a check-in.
//! * [`store`] is the port over both.

mod actions;
pub(crate) mod agent_counts;
mod agents;
mod alerts;
pub(crate) mod apply;
pub(crate) mod audit;
mod carves;
pub(crate) mod damage;
mod disk_keys;
mod enrollment_keys;
pub(crate) mod error;
pub(crate) mod feed;
mod files;
mod host_checks;
mod host_runs;
mod idempotency;
mod identity;
mod installers;
mod inventory;
mod labels;
mod live_queries;
pub(crate) mod log;
pub(crate) mod membership;
pub(crate) mod migration;
mod network_objects;
mod nodes;
mod output_keys;
mod policies;
mod policy_changes;
pub(crate) mod query_failures;
mod queue;
pub(crate) mod reader;
pub(crate) mod recent;
mod rollouts;
mod row;
mod scripts;
pub(crate) mod session;
mod settings;
mod software;
pub(crate) mod store;
pub(crate) mod transaction;
mod uninstall_tokens;
mod unreadable;
pub(crate) mod words;
pub(crate) mod writer;

pub use error::{Cause, EngineError, OpenError};
pub use store::{Durability, Options, SqlStore};
