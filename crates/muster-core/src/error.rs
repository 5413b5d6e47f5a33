//! The domain error. It is independent of HTTP: each adapter converts it to the format of its protocol as the last
//! step.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::authorization::Forbidden;
use crate::denial::Denial;
use crate::error_chain::SharedError;
use crate::policy::problem::Problems;

/// Kind of an error, by who has to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    // Adapters map a kind to a status. Whether a client should retry must be visible from the kind alone.
    /// The request is invalid.
    Invalid,
    /// The credentials are missing, invalid or revoked.
    Unauthenticated,
    /// The caller lacks the permission.
    Forbidden,
    /// The object does not exist.
    NotFound,
    /// The current state does not allow the operation, or was changed concurrently.
    Conflict,
    /// Too many requests; a retry later succeeds.
    TooMany,
    /// The store or another server is unavailable; a retry may succeed.
    Unavailable,
    /// A bug or a misconfiguration of the server.
    Internal,
}

/// Code of the error for a change of which it is unknown whether it was made.
pub const OUTCOME_UNKNOWN: &str = "outcome_unknown";

/// Code of the error for a request that failed because the store is unavailable.
pub const STORE_UNAVAILABLE: &str = "store_unavailable";

/// An error with two messages: `Display` is for the caller; the source is for the log only and never sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Kind.
    pub kind: ErrorKind,
    /// Stable, machine-readable code: `policy_name_taken`.
    // Part of the API: a message can be reworded, a code can't.
    pub code: &'static str,
    /// What failed and why, for the caller.
    pub message: String,
    /// Invalid field, as a dotted path.
    pub field: Option<String>,
    /// Remedy.
    pub remedy: Option<String>,
    /// All problems of a policy, with positions. Boxed to keep results small.
    pub problems: Option<Box<Problems>>,
    /// Cause, for the log.
    pub source: Option<SharedError>,
    /// Reason that agent protocols map to a code of their own.
    pub denial: Option<Denial>,
    /// Seconds after which a retry can succeed, if known.
    // Small, to keep results small.
    pub retry_after: Option<NonZeroU16>,
}

impl Error {
    /// Creates an error with a code and a message for the caller.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            message: message.into(),
            field: None,
            remedy: None,
            problems: None,
            source: None,
            denial: None,
            retry_after: None,
        }
    }

    /// Creates an error for an invalid field.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        let (field, reason) = (field.into(), reason.into());
        // The field is in the message too, because not every protocol has a place for it.
        Self { field: Some(field.clone()), ..Self::new(ErrorKind::Invalid, "invalid", format!("{field}: {reason}")) }
    }

    /// Creates an error for a missing object: `Error::not_found("agent", id)`.
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, "not_found", format!("{what} {id} not found"))
    }

    /// Creates a conflict.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, code, message)
    }

    /// Creates an internal error, whose cause goes to the log only.
    pub fn internal(cause: impl Into<SharedError>) -> Self {
        Self {
            source: Some(cause.into()),
            ..Self::new(ErrorKind::Internal, "internal", "internal error; see the server's log")
        }
    }

    /// Creates the error for a change of which it is unknown whether it was made.
    pub fn outcome_unknown() -> Self {
        let message = "it is unknown whether the change was made, because the store became unavailable";
        Self::new(ErrorKind::Unavailable, OUTCOME_UNKNOWN, message).remedy("check before you repeat the request")
    }

    /// Adds a remedy.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds the time after which a retry can succeed, rounded up to seconds.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after = NonZeroU16::new(u16::try_from(seconds).unwrap_or(u16::MAX).max(1));
        self
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<SharedError>) -> Self {
        self.source = Some(cause.into());
        self
    }
}

impl From<Forbidden> for Error {
    fn from(forbidden: Forbidden) -> Self {
        Self::new(ErrorKind::Forbidden, "forbidden", forbidden.to_string())
    }
}
