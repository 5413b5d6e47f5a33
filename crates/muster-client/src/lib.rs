//! Typed client of the management API, over the admin socket or HTTP(S).
//!
//! Every method sends one request. An [`Error`] distinguishes three cases: the server responded with an error, the
//! server could not be reached, and the connection was lost after the request was sent.

mod actions;
mod agents;
mod alerts;
mod audit;
mod backups;
mod bulk;
mod ca;
mod carves;
mod changes;
mod code;
mod disk_keys;
mod enrollment_keys;
mod error;
mod files;
mod fleetd_options;
mod host_checks;
mod hosts;
mod identity;
mod installs;
mod labels;
mod live_queries;
mod log_in;
mod network_objects;
mod nodes;
mod outputs;
mod packs;
mod policies;
mod rollouts;
mod scripts;
mod settings;
mod software;
mod status;
mod transport;
mod uninstall_tokens;

#[cfg(test)]
mod tests;

pub use bulk::Bulk;
pub use code::ErrorCode;
pub use error::{Error, Failure};
pub use identity::Account;
pub use muster_protocol::management as types;
pub use transport::{Client, HttpOptions};

/// Result of all methods.
pub type Result<T> = std::result::Result<T, Error>;
