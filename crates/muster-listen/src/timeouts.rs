//! Deadlines of a listener's connections.

use std::time::Duration;

/// Deadlines of one listener (the keys `timeouts.*` of the configuration).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Maximum duration of a TLS handshake.
    pub handshake: Duration,
    /// Maximum time from the first byte of a request's head to its last.
    pub read_header: Duration,
    /// Maximum time for a request's body.
    pub read: Duration,
    /// Maximum total time that a client may block a response.
    pub write: Duration,
    /// Maximum pause of a client that does not read its response.
    pub write_stall: Duration,
    /// Maximum pause between two requests of a connection.
    pub idle: Duration,
    /// Maximum time that a request may stay parked. The handler's own deadline comes first; this one is the safety net.
    pub hold: Duration,
    /// Grace period of a listener that stops.
    pub drain: Duration,
}
