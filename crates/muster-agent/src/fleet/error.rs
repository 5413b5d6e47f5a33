//! Why a call to the server failed.

use muster_protocol::elastic::error::ErrorBody;

use crate::net::{Response, TransportError};

/// The failure of one call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No reply.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// 401 or 403 in the protocol's own error shape: the server knows what it refuses.
    #[error("the server refuses our credentials: {status} {kind} {message}")]
    Refused {
        /// 401 or 403.
        status: u16,
        /// `ErrAgentInactive`.
        kind: String,
        /// What it says beside it.
        message: String,
    },
    /// Another status than the call needs.
    #[error("the server answers {status} {kind} {message}")]
    Status {
        /// The status.
        status: u16,
        /// The error's kind, when it has the protocol's shape.
        kind: String,
        /// What it says beside it.
        message: String,
    },
    /// A redirect; following it would hand our credentials to someone else.
    #[error(
        "the server answers {status}, a redirect to {location:?}; it is not followed, since it would carry our credentials"
    )]
    Redirect {
        /// 301 … 308.
        status: u16,
        /// Where to.
        location: String,
    },
    /// 200, but not what the protocol says.
    #[error("the reply can't be understood: {0}")]
    Undecodable(String),
    /// There is no server to ask.
    #[error("no server is known; enrol again")]
    NoServer,
}

impl CallError {
    /// What a reply other than 200 means.
    pub fn from_reply(response: &Response) -> Self {
        let status = response.status;
        if (300..400).contains(&status) {
            let location = response.headers.get(http::header::LOCATION).map(|value| value.to_str().unwrap_or("?"));
            return Self::Redirect { status, location: location.unwrap_or("").chars().take(200).collect() };
        }
        let body: Option<ErrorBody> = serde_json::from_slice(&response.body).ok();
        let known = body.is_some();
        let (kind, message) =
            body.map_or_else(Default::default, |body| (printable(&body.error), printable(&body.message)));
        if known && matches!(status, 401 | 403) {
            return Self::Refused { status, kind, message };
        }
        Self::Status { status, kind, message }
    }

    /// The status, if there was a reply.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Status { status, .. } | Self::Redirect { status, .. } => Some(*status),
            Self::Transport(_) | Self::Undecodable(_) | Self::NoServer => None,
        }
    }
}

/// What a server says, cut to a line that can stand in a log or on a terminal.
fn printable(text: &str) -> String {
    text.chars().take(300).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Response {
        Response { status, headers: http::HeaderMap::new(), body: body.to_owned().into() }
    }

    #[test]
    fn only_the_protocols_own_refusal_counts_as_one() {
        let ours = reply(401, r#"{"statusCode":401,"error":"ErrUnauthorized","message":"unauthorized"}"#);
        assert!(matches!(CallError::from_reply(&ours), CallError::Refused { status: 401, .. }));
        let proxy = reply(403, "<html>blocked by policy</html>");
        assert!(matches!(CallError::from_reply(&proxy), CallError::Status { status: 403, .. }));
        let nasty = reply(400, "{\"statusCode\":400,\"error\":\"\\u001b[31mred\"}");
        assert!(!CallError::from_reply(&nasty).to_string().contains('\u{1b}'));
    }
}
