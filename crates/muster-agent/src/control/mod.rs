//! The control socket: HTTP/1.1 with JSON over a Unix socket of mode 0600. For an unprivileged agent, the mode is 0660:
//! members of its group may send `GET` requests (AG47).
//!
//! `GET /v1/status` returns a [`Snapshot`](crate::coordinator::report::Snapshot), and `GET /v1/status/watch` a line with one
//! for the current state and for each change (AG51); `POST /v1/reload` reloads the
//! enrollment; `POST /v1/unenroll` unenrolls the agent and responds when this is complete. `POST /v1/restart` restarts the
//! daemon, `POST /v1/upgrade?version=…` begins an upgrade, `POST /v1/upgrade/kept` ends one, and `GET /v1/diagnostics`
//! returns a diagnostics bundle. `GET /liveness` and `GET /stats` are for monitoring.

mod address;
pub mod client;
mod monitoring;
mod places;
pub mod server;

use serde::{Deserialize, Serialize};

/// Response to a `POST`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Answer {
    /// The part that failed, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}
