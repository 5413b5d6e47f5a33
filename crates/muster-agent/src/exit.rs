//! Exit codes. Each kind of failure has its own, so that scripts do not have to parse messages.

use crate::state::StoreError;
use muster_core::error_chain::chain;

/// Success.
pub const DONE: u8 = 0;
/// Any other failure.
pub const FAILED: u8 = 1;
/// Usage error.
pub const USAGE: u8 = 2;
/// No permission to use a file or socket.
pub const PERMISSION: u8 = 3;
/// The server cannot be reached.
pub const NETWORK: u8 = 4;
/// The server is not trusted.
pub const TLS: u8 = 5;
/// The server rejected the request.
pub const REFUSED: u8 = 6;
/// The agent is already enrolled.
pub const ALREADY_ENROLLED: u8 = 7;
/// Timeout.
pub const TIMEOUT: u8 = 8;
/// `status`: the agent is starting.
pub const STARTING: u8 = 9;
/// `status`: the agent is degraded.
pub const DEGRADED: u8 = 10;
/// `status`: the agent has failed.
pub const AGENT_FAILED: u8 = 11;
/// `status`: no daemon is running.
pub const NO_DAEMON: u8 = 12;
/// The agent is not enrolled.
pub const NOT_ENROLLED: u8 = 13;
/// The agent is protected, and the uninstall token is missing or wrong.
pub const PROTECTED: u8 = 14;
/// `verify-unprotected`: the agent is not protected completely.
pub const UNPROTECTED: u8 = 15;

/// A failure with its message, remedy and exit code.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What failed, with the offending value and the reason.
    pub message: String,
    /// Remedy.
    pub hint: Option<String>,
}

impl Failure {
    /// Creates a failure without a remedy.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds a remedy, which is printed on a separate line.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::new(PERMISSION, chain(&error).to_string())
                    .hint("run muster-agent as the user that owns the base path")
            }
            StoreError::Newer { .. } => Self::new(FAILED, chain(&error).to_string())
                .hint("use the version of muster-agent that wrote it, or enroll again"),
            StoreError::Damaged { path, .. } if path.ends_with("fleet.enc") => {
                Self::new(FAILED, chain(&error).to_string()).hint("muster-agent enroll --force replaces it")
            }
            // As on a copy that is recognized by its fingerprint.
            StoreError::Locked { .. } => Self::new(NOT_ENROLLED, chain(&error).to_string()).hint(
                "to enroll this host as a new agent: muster-agent enroll --force; if it is the original, restore its TPM \
                 or host key",
            ),
            StoreError::Foreign { .. } => Self::new(PERMISSION, chain(&error).to_string())
                .hint("run the command as this user; if the file is not yours, move the base path away and install again"),
            _ => Self::new(FAILED, chain(&error).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ag25_every_kind_of_failure_has_its_own_exit_code() {
        let codes = [
            DONE,
            FAILED,
            USAGE,
            PERMISSION,
            NETWORK,
            TLS,
            REFUSED,
            ALREADY_ENROLLED,
            TIMEOUT,
            STARTING,
            DEGRADED,
            AGENT_FAILED,
            NO_DAEMON,
            NOT_ENROLLED,
            PROTECTED,
            UNPROTECTED,
        ];
        assert_eq!(codes.iter().collect::<std::collections::BTreeSet<_>>().len(), codes.len());
    }
}
