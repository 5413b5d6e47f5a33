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
    /// A key has too many connections without a request; this is the oldest.
    #[error("too many idle connections of one key: the oldest one is closed")]
    TooManyIdle,
    /// The client of a held request sent more than is kept until its response.
    #[error("the client sent too much data while its request was held")]
    SentAhead,
    /// Too many requests run on this listener (EA17).
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
            // Nobody can be told.
            Self::Handshake(_) | Self::TooManyConnections | Self::TooManyIdle | Self::SentAhead => {
                StatusCode::SERVICE_UNAVAILABLE
            }
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
            Self::TooManyIdle => "TooManyIdle",
            Self::SentAhead => "SentAhead",
            Self::Full => "Full",
        }
    }
}
