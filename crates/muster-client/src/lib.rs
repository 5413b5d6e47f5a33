//! Typed client of the management API, over the admin socket or HTTP(S).
//!
//! Every method is one request. An [`Error`] tells apart what a command has to tell apart: the server refused and why,
//! it could not be reached, or the connection broke after the request was sent.

mod actions;
mod agents;
mod bulk;
mod enrollment_keys;
mod error;
mod files;
mod outputs;
mod policies;
mod status;
mod transport;

#[cfg(test)]
mod tests;

pub use bulk::Bulk;
pub use error::{Error, Failure};
pub use muster_protocol::management as types;
pub use transport::{Client, HttpOptions};

/// What every method answers.
pub type Result<T> = std::result::Result<T, Error>;
