//! The error type, and a class of errors for each exit code.

use std::io;

use muster_protocol::management::ErrorBody;

use crate::ErrorCode;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server responded with an error.
    #[error("{}", .0.message)]
    Answered(Box<ErrorBody>),
    /// The connection could not be established, so that the request was not sent.
    #[error("cannot reach {target}: {reason}")]
    Unreachable {
        /// Socket or URL.
        target: String,
        /// The innermost cause.
        reason: String,
        /// The whole chain of causes.
        source: Option<reqwest::Error>,
    },
    /// This user is not allowed to connect to the socket.
    #[error("{target}: permission denied")]
    Denied {
        /// Socket or URL.
        target: String,
        /// The whole chain of causes.
        source: Option<reqwest::Error>,
    },
    /// The connection was lost or timed out after the request was sent. The server may have processed the request.
    #[error("lost the connection to {target}: {reason}; the request may have been processed")]
    Broken {
        /// Socket or URL.
        target: String,
        /// The innermost cause.
        reason: String,
        /// The whole chain of causes.
        source: Option<reqwest::Error>,
    },
    /// The response does not have the format of this API.
    #[error("unexpected response from {target} (status {status}): {reason}")]
    Unexpected {
        /// Socket or URL.
        target: String,
        /// HTTP status.
        status: u16,
        /// What is wrong with the response.
        reason: String,
        /// The parse error, if the status was successful.
        source: Option<serde_json::Error>,
    },
    /// The client's configuration or the request is invalid.
    #[error("{0}")]
    Usage(String),
    /// Downloaded data could not be written.
    #[error("cannot write the downloaded data: {0}")]
    Output(#[from] io::Error),
}

/// Classes of failures, one for each exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Any other failure (1).
    Failed,
    /// Usage error (2).
    Usage,
    /// Not found (3).
    NotFound,
    /// Missing authentication or privilege (4).
    Refused,
    /// Server unreachable or unavailable (5).
    Unreachable,
    /// Conflict (6).
    Conflict,
}

impl Failure {
    /// Returns the exit code of the process.
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
    /// Returns the class of the failure.
    pub fn failure(&self) -> Failure {
        match self {
            // An error that names a field is about a value that the caller passed.
            Self::Answered(body) if body.status_code == 400 && body.field.is_some() => Failure::Usage,
            // As with an ambiguous name that the command line finds itself.
            Self::Answered(body) if body.code == "host_ambiguous" => Failure::Usage,
            Self::Answered(body) => by_status(body.status_code),
            Self::Unreachable { .. } => Failure::Unreachable,
            Self::Denied { .. } => Failure::Refused,
            Self::Usage(_) => Failure::Usage,
            Self::Broken { .. } | Self::Unexpected { .. } | Self::Output(_) => Failure::Failed,
        }
    }

    /// Returns a remedy, if there is one.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Answered(body) => body.remedy.clone(),
            Self::Unreachable { target, .. } if target.contains("://") => {
                Some("check that the server is running, and that this is the URL of its management API".into())
            }
            Self::Unreachable { .. } => {
                Some("check that the server is running; if it uses another data directory, pass --data-dir".into())
            }
            Self::Denied { .. } => Some("run as root or as the server's user".into()),
            _ => None,
        }
    }

    /// Returns the code of the server's error response.
    pub fn code(&self) -> Option<ErrorCode> {
        self.body().map(|body| ErrorCode::from(body.code.as_str()))
    }

    /// Returns the server's error response.
    pub fn body(&self) -> Option<&ErrorBody> {
        match self {
            Self::Answered(body) => Some(body),
            _ => None,
        }
    }

    pub(crate) fn of_send(target: &str, error: reqwest::Error) -> Self {
        // These values are extracted before the error is moved into `source`.
        let (target, reason, kind) = (target.to_owned(), innermost(&error), io_kind(&error));
        // The request could not be built from the caller's values, and was not sent.
        if error.is_builder() {
            return Self::Usage(reason);
        }
        let (is_connect, is_timeout) = (error.is_connect(), error.is_timeout());
        let source = Some(error);
        match kind {
            Some(io::ErrorKind::PermissionDenied) => Self::Denied { target, source },
            // Only a failure to connect guarantees that the server did not get the request.
            _ if is_connect => Self::Unreachable { target, reason, source },
            _ if is_timeout => Self::Broken { target, reason: "timed out".into(), source },
            _ => Self::Broken { target, reason, source },
        }
    }
}

fn by_status(status: u16) -> Failure {
    match status {
        401 | 403 => Failure::Refused,
        404 => Failure::NotFound,
        409 => Failure::Conflict,
        // The server is starting, stopping or read-only. For a script, this is equivalent to an unreachable server.
        503 => Failure::Unreachable,
        _ => Failure::Failed,
    }
}

fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source())
}

/// Returns the last cause, which describes what happened. The other errors in the chain only describe where.
fn innermost(error: &reqwest::Error) -> String {
    // The outer errors only say that a request failed. The innermost one names the cause.
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    chain(error).filter_map(|link| link.downcast_ref::<io::Error>()).map(io::Error::kind).last()
}
