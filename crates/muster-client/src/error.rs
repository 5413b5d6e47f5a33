//! The one error type, and the classes that exit codes follow.

use std::io;

use muster_protocol::management::ErrorBody;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error.
    #[error("{}", .0.message)]
    Answered(Box<ErrorBody>),
    /// No connection came about: nothing was done.
    #[error("can't reach {target}: {reason}")]
    Unreachable {
        /// Whom.
        target: String,
        /// Why.
        reason: String,
    },
    /// This user may not open the socket.
    #[error("{target}: permission denied")]
    Denied {
        /// Which socket.
        target: String,
    },
    /// The connection broke or timed out after the request was sent: it may have been done.
    #[error("the connection to {target} broke: {reason}; the request may have been carried out")]
    Broken {
        /// To whom.
        target: String,
        /// Why.
        reason: String,
    },
    /// The answer is none of this API's.
    #[error("{target} answered {status}, which is no answer of this API: {reason}")]
    Unexpected {
        /// Who.
        target: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// The client was set up wrongly, or the request can't be made.
    #[error("{0}")]
    Usage(String),
    /// What came could not be written where it should go.
    #[error("can't write: {0}")]
    Output(#[from] io::Error),
}

/// What kind of failure it is: one for each exit code of the interfaces page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed (1).
    Failed,
    /// Wrong usage (2).
    Usage,
    /// Not found (3).
    NotFound,
    /// Refused: authentication or privilege (4).
    Refused,
    /// Unreachable (5).
    Unreachable,
    /// Conflict (6).
    Conflict,
}

impl Failure {
    /// The process exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Refused => 4,
            Self::Unreachable => 5,
            Self::Conflict => 6,
        }
    }
}

impl Error {
    /// What kind of failure it is.
    pub fn failure(&self) -> Failure {
        match self {
            // Somebody's own value is at fault when a field is named.
            Self::Answered(body) if body.status_code == 400 && body.field.is_some() => Failure::Usage,
            Self::Answered(body) => by_status(body.status_code),
            Self::Unreachable { .. } => Failure::Unreachable,
            Self::Denied { .. } => Failure::Refused,
            Self::Usage(_) => Failure::Usage,
            Self::Broken { .. } | Self::Unexpected { .. } | Self::Output(_) => Failure::Failed,
        }
    }

    /// What to do about it, when anyone knows.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Answered(body) => body.remedy.clone(),
            Self::Unreachable { target, .. } if target.contains("://") => {
                Some("see whether the server runs, and whether that is its management address".into())
            }
            Self::Unreachable { .. } => {
                Some("see whether the server runs; say with --data-dir where its data is, unless there".into())
            }
            Self::Denied { .. } => Some("run as root or as the server's own user".into()),
            _ => None,
        }
    }

    /// The server's error, if it answered with one.
    pub fn body(&self) -> Option<&ErrorBody> {
        match self {
            Self::Answered(body) => Some(body),
            _ => None,
        }
    }

    pub(crate) fn of_send(target: &str, error: &reqwest::Error) -> Self {
        let (target, reason) = (target.to_owned(), innermost(error));
        match io_kind(error) {
            Some(io::ErrorKind::PermissionDenied) => Self::Denied { target },
            _ if error.is_connect() => Self::Unreachable { target, reason },
            _ if error.is_builder() => Self::Usage(reason),
            _ if error.is_timeout() => Self::Broken { target, reason: "timed out".into() },
            _ => Self::Broken { target, reason },
        }
    }
}

fn by_status(status: u16) -> Failure {
    match status {
        401 | 403 => Failure::Refused,
        404 => Failure::NotFound,
        409 => Failure::Conflict,
        503 => Failure::Unreachable,
        _ => Failure::Failed,
    }
}

fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source())
}

/// The last link says what happened; the others only say where.
fn innermost(error: &reqwest::Error) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    chain(error).filter_map(|link| link.downcast_ref::<io::Error>()).map(io::Error::kind).last()
}
