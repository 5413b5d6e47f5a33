//! The control socket: HTTP/1.1 with JSON over a Unix socket of mode 0600.
//!
//! `GET /v1/status` answers a [`Snapshot`](crate::coordinator::report::Snapshot); `POST /v1/reload` makes the daemon begin
//! anew; `POST /v1/unenroll` makes it leave the fleet and answers when it has.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};

/// The answer to a `POST`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Answer {
    /// What could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}
