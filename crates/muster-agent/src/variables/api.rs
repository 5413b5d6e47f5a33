//! A small HTTP client for the APIs of container runtimes and clusters: complete JSON documents, and streams of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use camino::Utf8PathBuf;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use hyper::body::Incoming;
use muster_core::error_chain::SharedError;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::net::Server;
use crate::net::http1::{Connection, Http1, shake_hands};
use crate::state::enrollment::Secret;

/// Maximum size of a document.
const DOCUMENT_MAX: usize = 8 << 20;
/// Maximum size of a document in a stream. Objects of a cluster have at most 1.5 MiB.
const EVENT_MAX: usize = 2 << 20;
/// Maximum time for a document, and for the head of a stream.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum length of the server's message in an error, in characters.
const MESSAGE_MAX: usize = 200;

/// What is encoded in a part of a path or query.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes a part of a path or query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, &RESERVED).to_string()
}

/// Where an API is.
pub enum Place {
    /// A Unix socket.
    Socket(Utf8PathBuf),
    /// A server.
    Server(Server, Box<Http1>),
}

impl Place {
    /// Returns a server that is verified with this configuration.
    pub fn server(server: Server, tls: Arc<ClientConfig>) -> Self {
        Self::Server(server, Box::new(Http1::new(tls)))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection, or it was lost.
    #[error("{0}")]
    Connection(SharedError),
    /// No answer in time.
    #[error("no response within {0:?}")]
    Timeout(Duration),
    /// Another status than 2xx.
    #[error("{status}: {message}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The server's message.
        message: String,
    },
    /// Too large, or not what was expected.
    #[error("unexpected response: {0}")]
    Malformed(SharedError),
    /// The stream has ended.
    #[error("the stream of events ended")]
    Ended,
}

impl ApiError {
    /// Returns whether the answer had this status.
    pub fn is(&self, wanted: StatusCode) -> bool {
        matches!(self, Self::Status { status, .. } if *status == wanted)
    }
}

/// A message of an API about an error.
#[derive(Deserialize)]
struct Message {
    message: String,
}

/// One request.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// Bearer token.
    pub token: Option<Secret>,
    /// Body.
    pub body: Option<Value>,
}

impl<'a> Ask<'a> {
    /// Creates a request without a token.
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, token: None, body: None }
    }
}

impl Place {
    /// Sends a request and returns the document of the answer.
    pub async fn document<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, ApiError> {
        let answer = async {
            let body = self.begin(ask).await?;
            let read = Limited::new(body, DOCUMENT_MAX).collect().await;
            let bytes = read.map_err(|error| ApiError::Malformed(error.into()))?.to_bytes();
            serde_json::from_slice(&bytes).map_err(|error| ApiError::Malformed(error.into()))
        };
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or(Err(ApiError::Timeout(TIMEOUT)))
    }

    /// Sends a request and returns the stream of documents of the answer, one per line.
    pub async fn stream(&self, ask: Ask<'_>) -> Result<Documents, ApiError> {
        let begun = tokio::time::timeout(TIMEOUT, self.begin(ask)).await;
        let body = begun.unwrap_or(Err(ApiError::Timeout(TIMEOUT)))?;
        Ok(Documents { body, buffer: BytesMut::new(), searched: 0 })
    }

    async fn begin(&self, ask: Ask<'_>) -> Result<Incoming, ApiError> {
        // A connection for each request: they are rare, and a stream keeps its own for minutes.
        let (mut connection, host, prefix) = self.connect().await?;
        let mut request = http::Request::builder().method(ask.method).uri(format!("{prefix}{}", ask.path));
        request = request.header(HOST, host).header(http::header::ACCEPT, "application/json");
        if let Some(token) = ask.token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|error| ApiError::Malformed(error.into()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = ask.body.map(|body| body.to_string()).unwrap_or_default();
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.into())).map_err(|error| ApiError::Malformed(error.into()))?;
        let answer = connection.send_request(request).await.map_err(|error| ApiError::Connection(error.into()))?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        Err(refusal(answer.status(), answer.into_body()).await)
    }

    async fn connect(&self) -> Result<(Connection, String, &str), ApiError> {
        let failed = |error: SharedError| ApiError::Connection(error);
        match self {
            Self::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| failed(SharedError::during(path.as_str(), error)))?;
                let connection = shake_hands(stream).await.map_err(|error| failed(error.into()))?;
                Ok((connection, "localhost".into(), ""))
            }
            Self::Server(server, http) => {
                let connection = http.connect(server).await.map_err(|error| failed(error.into()))?;
                Ok((connection, server.authority(), &server.prefix))
            }
        }
    }
}

async fn refusal(status: StatusCode, body: Incoming) -> ApiError {
    // An error page may be of any length, and only its beginning is used.
    let body = Limited::new(body, 64 << 10).collect().await.map(Collected::to_bytes).unwrap_or_default();
    let message = match serde_json::from_slice::<Message>(&body) {
        Ok(Message { message }) => message,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    // It comes from the network, and is printed on terminals.
    let message = message.trim().chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect();
    ApiError::Status { status, message }
}

/// A stream of documents.
pub struct Documents {
    body: Incoming,
    buffer: BytesMut,
    /// Length of the part of the buffer without a line break.
    searched: usize,
}

impl Documents {
    /// Returns the next document. Nothing is lost if the future is dropped.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        loop {
            while let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + end);
                self.buffer.advance(1);
                self.searched = 0;
                if !line.trim_ascii().is_empty() {
                    return serde_json::from_slice(&line).map_err(|error| ApiError::Malformed(error.into()));
                }
            }
            // What has been searched is not searched again when more arrives: a large event comes in many frames.
            self.searched = self.buffer.len();
            let frame = self.body.frame().await.ok_or(ApiError::Ended)?;
            let frame = frame.map_err(|error| ApiError::Connection(error.into()))?;
            let Ok(data) = frame.into_data() else { continue };
            // Without this limit, a stream without line breaks would fill the memory of the agent.
            if self.buffer.len() + data.len() > EVENT_MAX {
                return Err(ApiError::Malformed(format!("an event exceeds {EVENT_MAX} bytes").into()));
            }
            self.buffer.extend_from_slice(&data);
        }
    }
}
