//! The domain error: what failed, for whom, and what to do. It knows no HTTP; each adapter turns it into its
//! protocol's own shape as the last step.

use crate::authorization::Forbidden;
use crate::denial::Denial;
use crate::policy::problem::Problems;

/// Who has to act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller must send something else.
    Invalid,
    /// The caller's credentials are dead or wrong.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Something else stands in the way, or changed meanwhile.
    Conflict,
    /// Too much at once; later it works.
    TooMany,
    /// The store or a peer can't be reached; later it may work.
    Unavailable,
    /// Our fault.
    Internal,
}

/// An error with two messages: `Display` is for the caller; `internal` is for the log alone and never leaves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Who has to act.
    pub kind: ErrorKind,
    /// A stable machine-readable word: `policy_name_taken`.
    pub code: &'static str,
    /// What failed and why, for the caller.
    pub message: String,
    /// The field concerned, as a dotted path.
    pub field: Option<String>,
    /// What to do.
    pub remedy: Option<String>,
    /// Everything that is wrong with a policy, each with its place.
    pub problems: Option<Box<Problems>>,
    /// More, for the log.
    pub internal: Option<Box<str>>,
    /// The reason, where agents' protocols have a word of their own for it.
    pub denial: Option<Denial>,
}

impl Error {
    /// An error of `kind` with a code and the caller's message.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            message: message.into(),
            field: None,
            remedy: None,
            problems: None,
            internal: None,
            denial: None,
        }
    }

    /// A bad field.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        let (field, reason) = (field.into(), reason.into());
        Self { field: Some(field.clone()), ..Self::new(ErrorKind::Invalid, "invalid", format!("{field}: {reason}")) }
    }

    /// No such thing: `Error::not_found("agent", id)`.
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, "not_found", format!("{what} {id} not found"))
    }

    /// Something stands in the way.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, code, message)
    }

    /// Our fault; the reason goes to the log only.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self {
            internal: Some(reason.into().into()),
            ..Self::new(ErrorKind::Internal, "internal", "internal error; see the server's log")
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds what only the log may know.
    #[must_use]
    pub fn for_log(mut self, internal: impl Into<String>) -> Self {
        self.internal = Some(internal.into().into());
        self
    }
}

impl From<Forbidden> for Error {
    fn from(forbidden: Forbidden) -> Self {
        Self::new(ErrorKind::Forbidden, "forbidden", forbidden.to_string())
    }
}
