//! The management REST API: `/api/fleet/…` in Kibana's shapes (MG §1, §2), with additions of ours.
//!
//! Requests refuse fields that they do not know; answers read by the client let new ones pass.

pub mod action;
pub mod agent;
pub mod agent_policy;
pub mod bulk;
pub mod enrollment_key;
pub mod envelope;
pub mod file;
pub mod json;
pub mod order;
pub mod output;
pub mod refused;
pub mod status;

pub use envelope::{Empty, ErrorBody, Item, Items};
pub use json::Json;
pub use status::{AgentStatusResults, ServerStatus};

use serde::{Deserialize, Deserializer};

/// Reads a field that must be there but may be `null`.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer)
}

/// Reads a field whose absence (`None`) means something else than `null` (`Some(None)`).
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
