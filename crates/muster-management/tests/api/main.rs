//! Tests of the management API in process: a real fleet on a real store behind the real router.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod actions;
mod agent_actions;
mod agents;
mod alerts;
mod audit;
mod audited;
mod changes;
mod client;
mod connection_tests;
mod conventions;
mod devices;
mod documented;
mod files;
mod hosts;
mod idempotency;
mod identity;
mod installs;
mod keys;
mod leaving;
mod live_queries;
mod message_signing;
mod network_objects;
mod openapi;
mod osquery;
mod outputs;
mod policies;
mod policy_rules;
mod refusals;
mod routes;
mod scripts;
mod setup;
mod software;
mod support;
mod table;
mod uninstall_tokens;
