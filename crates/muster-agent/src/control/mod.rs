//! The control socket: HTTP/1.1 with JSON over a Unix socket of mode 0600.
//!
//! `GET /v1/status` returns a [`Snapshot`](crate::coordinator::report::Snapshot); `POST /v1/reload` reloads the enrollment;
//! `POST /v1/unenroll` leaves the fleet and responds once that is done.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};

/// Response to a `POST`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Answer {
    /// What could not be done, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}
