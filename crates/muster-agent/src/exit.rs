//! Exit codes: one for each kind of failure, so that scripts need not read text.

/// Done.
pub const DONE: u8 = 0;
/// Failed in a way that has no code of its own.
pub const FAILED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// A file or socket may not be used.
pub const PERMISSION: u8 = 3;
/// The server can't be reached.
pub const NETWORK: u8 = 4;
/// The server is not trusted.
pub const TLS: u8 = 5;
/// The server refuses.
pub const REFUSED: u8 = 6;
/// Enrolled already.
pub const ALREADY_ENROLLED: u8 = 7;
/// Not done in time.
pub const TIMEOUT: u8 = 8;
/// The agent is starting.
pub const STARTING: u8 = 9;
/// The agent is degraded.
pub const DEGRADED: u8 = 10;
/// The agent has failed.
pub const AGENT_FAILED: u8 = 11;
/// No daemon runs.
pub const NO_DAEMON: u8 = 12;
/// Not enrolled.
pub const NOT_ENROLLED: u8 = 13;

/// A failure with its exit code: what failed, why, what to do.
#[derive(Debug)]
pub struct Failure {
    /// The code.
    pub code: u8,
    /// The text.
    pub message: String,
}

impl Failure {
    /// A failure with a code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<crate::state::StoreError> for Failure {
    fn from(error: crate::state::StoreError) -> Self {
        let denied = matches!(&error, crate::state::StoreError::Io { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied);
        let hint = if denied { ". Run it as the user that owns the base path" } else { "" };
        Self::new(if denied { PERMISSION } else { FAILED }, format!("{error}{hint}"))
    }
}
