//! Why a request to the server failed.

use muster_core::error_chain::SharedError;
use muster_protocol::elastic::error::ErrorBody;

use crate::net::{Response, TransportError};

/// The failure of one request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No response.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// 401 or 403 with an error body of the protocol: the server rejected the credential, and not a proxy.
    #[error("the server rejected the credentials: {}", told(*status, kind, message))]
    Refused {
        /// 401 or 403.
        status: u16,
        /// Name of the error: `ErrAgentInactive`.
        kind: String,
        /// Message of the error.
        message: String,
    },
    /// Any other unexpected status.
    #[error("the server responded with {}", told(*status, kind, message))]
    Status {
        /// Status.
        status: u16,
        /// Name of the error, if the body has the format of the protocol.
        kind: String,
        /// Message of the error; of a body in another format, what it is.
        message: String,
    },
    /// A redirect. Following it would send the credentials to another server.
    #[error("the server redirected to {location:?} ({status}); redirects are not followed")]
    Redirect {
        /// 301 … 308.
        status: u16,
        /// Target.
        location: String,
    },
    /// 200 with a body in another format than the protocol's.
    #[error("malformed response: {0}")]
    Undecodable(#[source] SharedError),
    /// No server is configured.
    #[error("no server is configured; enroll the agent again")]
    NoServer,
}

impl CallError {
    /// Interprets a response with a status other than 200.
    pub fn from_reply(response: &Response) -> Self {
        let status = response.status;
        if (300..400).contains(&status) {
            let location = response.headers.get(http::header::LOCATION).map(|value| value.to_str().unwrap_or("?"));
            return Self::Redirect { status, location: location.unwrap_or("").chars().take(200).collect() };
        }
        let body: Option<ErrorBody> = serde_json::from_slice(&response.body).ok();
        let known = body.is_some();
        let (kind, message) = match body {
            Some(body) => (printable(&body.error), printable(&body.message)),
            None => (String::new(), foreign(&response.body).unwrap_or_default().to_owned()),
        };
        if known && matches!(status, 401 | 403) {
            // Only a response in the format of the protocol is a decision of the fleet server. A proxy can also send
            // 401 or 403.
            return Self::Refused { status, kind, message };
        }
        Self::Status { status, kind, message }
    }

    /// Returns the status, if there was a response.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Status { status, .. } | Self::Redirect { status, .. } => Some(*status),
            Self::Transport(_) | Self::Undecodable(_) | Self::NoServer => None,
        }
    }
}

/// Returns what a body is that no fleet server sends.
pub(super) fn foreign(body: &[u8]) -> Option<&'static str> {
    body.trim_ascii_start().starts_with(b"<").then_some("a web page; is there a proxy in between?")
}

/// Returns the parts of an error that there are.
fn told(status: u16, kind: &str, message: &str) -> String {
    let mut text = status.to_string();
    for part in [kind, message].into_iter().filter(|part| !part.is_empty()) {
        text.push(' ');
        text.push_str(part);
    }
    text
}

/// Makes text from a server safe for logs and terminals: a single line of limited length.
fn printable(text: &str) -> String {
    // Escape sequences could change the terminal of an administrator who reads the log.
    text.chars().take(300).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Response {
        Response { status, headers: http::HeaderMap::new(), body: body.to_owned().into() }
    }

    #[test]
    fn only_errors_of_the_protocol_count_as_refusals() {
        let ours = reply(401, r#"{"statusCode":401,"error":"ErrUnauthorized","message":"unauthorized"}"#);
        assert!(matches!(CallError::from_reply(&ours), CallError::Refused { status: 401, .. }));
        let proxy = reply(403, "<html>blocked by policy</html>");
        assert!(matches!(CallError::from_reply(&proxy), CallError::Status { status: 403, .. }));
        let text = "the server responded with 403 a web page; is there a proxy in between?";
        assert_eq!(CallError::from_reply(&proxy).to_string(), text);
        assert_eq!(CallError::from_reply(&reply(502, "")).to_string(), "the server responded with 502");
        let nasty = reply(400, "{\"statusCode\":400,\"error\":\"\\u001b[31mred\"}");
        assert!(!CallError::from_reply(&nasty).to_string().contains('\u{1b}'));
    }
}
