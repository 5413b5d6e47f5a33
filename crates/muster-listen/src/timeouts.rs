//! Deadlines of connections.

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
    /// Maximum time without progress while a client blocks a response.
    pub write_stall: Duration,
    /// Maximum idle time before a connection's first request and between requests.
    pub idle: Duration,
    /// Maximum time that a request may be parked. Normally, the handler's own deadline is earlier.
    pub hold: Duration,
    /// Grace period on shutdown.
    pub drain: Duration,
}
