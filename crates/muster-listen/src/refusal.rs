//! Requests and connections that are refused before they reach a handler. Each handler formats the response for its own
//! protocol.

use http::StatusCode;

/// Why the connection layer refused a request or connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The head is not valid HTTP.
    #[error("{0}")]
    Malformed(&'static str),
    /// The body's length is ambiguous or not a number (D23).
    #[error("{0}")]
    Length(&'static str),
    /// The head has too many bytes or lines.
    #[error("the head of the request is longer than 8192 bytes or has more than 100 lines")]
    HeadTooLarge,
    /// Plain HTTP was sent to a TLS port.
    #[error("plain HTTP was sent to a TLS port: use https://")]
    PlainHttp,
    /// The TLS handshake failed; contains the reason from the client's alert or from rustls.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// Too many connections are open, in total or from this address.
    #[error("too many connections")]
    TooManyConnections,
    /// Too many requests are running on this listener (EA17).
    #[error("Server capacity exceeded.")]
    Full,
}

impl Refusal {
    /// The HTTP status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Length(_) | Self::PlainHttp => StatusCode::BAD_REQUEST,
            // 431 also for a long request line, which could get a 414: the parser does not distinguish them.
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Full => StatusCode::TOO_MANY_REQUESTS,
            // Never sent: these clients get no response. The status only appears in records.
            Self::Handshake(_) | Self::TooManyConnections => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The reason as a single word, for logs and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Length(_) => "Malformed",
            Self::HeadTooLarge => "HeaderTooLarge",
            Self::PlainHttp => "PlainHttp",
            Self::Handshake(_) => "TlsHandshake",
            Self::TooManyConnections => "TooManyConnections",
            Self::Full => "Full",
        }
    }
}
