//! What is refused before a handler sees it. Each handler words the reply in the shape of its own protocol.

use http::StatusCode;

/// Why a request got no further than the connection layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no HTTP, or against its rules.
    #[error("{0}")]
    Malformed(&'static str),
    /// Its length is stated twice, or not as a number of bytes (D23).
    #[error("{0}")]
    Length(&'static str),
    /// Its head has too many bytes or lines.
    #[error("the head of the request is longer than 8192 bytes or has more than 100 lines")]
    HeadTooLarge,
    /// Plain HTTP came to a port that speaks TLS.
    #[error("plain HTTP was sent to a TLS port: use https://")]
    PlainHttp,
    /// The TLS handshake failed: why, as the client or our TLS tells it.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// Too many connections are open, in all or of this address.
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
    /// The status that HTTP has for it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Length(_) | Self::PlainHttp => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Full => StatusCode::TOO_MANY_REQUESTS,
            // Nobody can be told.
            Self::Handshake(_) | Self::TooManyConnections | Self::TooManyIdle | Self::SentAhead => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The reason in one word, for logs and metrics.
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
