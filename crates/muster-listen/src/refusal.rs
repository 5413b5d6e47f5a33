//! Reasons to reject requests and connections before they reach a handler. Each handler formats the response for its
//! own protocol.

use http::StatusCode;

/// Why the connection layer rejected a request or connection.
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
    /// A load balancer sent a PROXY protocol header.
    #[error("the connection begins with a PROXY protocol header, which is not supported")]
    ProxyProtocol,
    /// The TLS handshake failed. Contains the reason from the client's alert or from rustls.
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// Too many connections are open, in total or from this address.
    #[error("too many connections")]
    TooManyConnections,
    /// A key has too many idle connections, of which this is the oldest.
    #[error("too many idle connections with one key; the oldest was closed")]
    TooManyIdle,
    /// Another connection needed the place of this one, which was unauthenticated and had no request.
    #[error("all connections were in use, and this one was closed because it had sent no request")]
    Displaced,
    /// The client sent too much data ahead while its request was held.
    #[error("the client sent too much data while its request was held")]
    SentAhead,
    /// The request needs a client certificate, and the connection has none.
    #[error("this server requires a client certificate (tls.client_auth), and this connection has none")]
    NoCertificate,
    /// The client certificate of the connection was valid when it was accepted, and is not any more.
    #[error("the client certificate of this connection is no longer valid")]
    CertificateInvalidated,
    /// Too many requests are running on this listener (EA17).
    #[error("Server capacity exceeded.")]
    Full,
}

impl Refusal {
    /// Returns the HTTP status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Length(_) | Self::PlainHttp | Self::ProxyProtocol => StatusCode::BAD_REQUEST,
            // Not 401, after which agents discard their keys.
            Self::NoCertificate | Self::CertificateInvalidated => StatusCode::BAD_REQUEST,
            // A long request line also gets a 431 instead of a 414, because the parser does not distinguish these
            // cases.
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Full => StatusCode::TOO_MANY_REQUESTS,
            // These clients get no response, so that the status appears only in metrics.
            Self::Handshake(_) | Self::TooManyConnections | Self::TooManyIdle | Self::Displaced | Self::SentAhead => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Returns the reason as a single word, for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Length(_) => "Malformed",
            Self::HeadTooLarge => "HeaderTooLarge",
            Self::PlainHttp => "PlainHttp",
            Self::ProxyProtocol => "ProxyProtocol",
            // From rustls, about the certificate that the client presented.
            Self::Handshake(reason) if reason.contains("invalid peer certificate") => "ClientCertificate",
            Self::Handshake(_) => "TlsHandshake",
            Self::TooManyConnections => "TooManyConnections",
            Self::TooManyIdle => "TooManyIdle",
            Self::Displaced => "Displaced",
            Self::SentAhead => "SentAhead",
            Self::NoCertificate => "NoCertificate",
            Self::CertificateInvalidated => "ClientCertificate",
            Self::Full => "Full",
        }
    }
}
