//! Client of the control socket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use camino::Utf8Path;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::address::Address;
use crate::coordinator::report::Snapshot;
use crate::exit::{self, Failure};

/// Maximum size of a response.
const ANSWER_MAX: usize = 8 << 20;

/// Sends a request to the daemon. Returns `None` if no daemon is running.
pub async fn call<T: DeserializeOwned>(
    socket: &Utf8Path,
    method: Method,
    path: &str,
    timeout: Duration,
) -> Result<Option<T>, Failure> {
    let Some(body) = fetch(socket, method, path, timeout).await? else { return Ok(None) };
    let read = serde_json::from_slice(&body);
    read.map(Some).map_err(|error| Failure::new(exit::FAILED, format!("malformed response from the daemon: {error}")))
}

/// Sends a request to the daemon, and returns the body of the response. Returns `None` if no daemon is running.
pub async fn fetch(socket: &Utf8Path, method: Method, path: &str, timeout: Duration) -> Result<Option<Bytes>, Failure> {
    match send(socket, method, path, Bytes::new(), timeout).await? {
        Some((StatusCode::FORBIDDEN, _)) => {
            Err(Failure::new(exit::PERMISSION, "only root and the user that runs the agent may do this"))
        }
        Some((status, _)) if !status.is_success() => {
            Err(Failure::new(exit::FAILED, format!("no response from the daemon: status {status}")))
        }
        answered => Ok(answered.map(|(_, body)| body)),
    }
}

/// Returns the process that listens on the socket, and its user, as the kernel recorded them. `None` if nobody listens, or in
/// another namespace.
pub async fn listener(socket: &Utf8Path) -> Option<(Pid, u32)> {
    let address = Address::of(socket).ok()?;
    let peer = UnixStream::connect(address.path()).await.ok()?.peer_cred().ok()?;
    // 0 and negative numbers mean groups of processes.
    Some((Pid::from_raw(peer.pid().filter(|pid| *pid > 0)?), peer.uid()))
}

/// Sends a request with a body, and returns the status and the body of the response. Returns `None` if nobody listens on
/// the socket.
pub async fn send(
    socket: &Utf8Path,
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<Option<(StatusCode, Bytes)>, Failure> {
    let Some(stream) = connect(socket).await? else { return Ok(None) };
    match tokio::time::timeout(timeout, exchange(stream, method, path, body)).await {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(error)) => Err(no_response(error)),
        Err(_) => Err(Failure::new(exit::TIMEOUT, format!("no response from the daemon within {timeout:?}"))),
    }
}

/// Connects to the socket. Returns `None` if nobody listens on it.
async fn connect(socket: &Utf8Path) -> Result<Option<UnixStream>, Failure> {
    let connected = match Address::of(socket) {
        Ok(address) => UnixStream::connect(address.path()).await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Failure::new(exit::PERMISSION, format!("{socket}: {error}"))
                .hint("run muster-agent as the user that runs the agent"))
        }
        // The socket does not exist, or a killed daemon has left it behind.
        Err(_) => Ok(None),
    }
}

/// A connection, which lasts as long as this.
type Connection = SendRequest<Full<Bytes>>;

/// A stream of states.
pub struct States {
    _connection: Connection,
    body: Incoming,
    /// What was received after the last complete line.
    rest: BytesMut,
}

/// Begins to watch the state. Returns `None` if no daemon is running.
pub async fn watch(socket: &Utf8Path) -> Result<Option<States>, Failure> {
    let Some(stream) = connect(socket).await? else { return Ok(None) };
    let begun = request(stream, Method::GET, "/v1/status/watch", Bytes::new()).await;
    let (connection, response) = begun.map_err(no_response)?;
    match response.status() {
        StatusCode::OK => {
            Ok(Some(States { _connection: connection, body: response.into_body(), rest: BytesMut::new() }))
        }
        StatusCode::TOO_MANY_REQUESTS => Err(Failure::new(exit::FAILED, "too many others are watching the agent")),
        status => Err(Failure::new(exit::FAILED, format!("no response from the daemon: status {status}"))),
    }
}

impl States {
    /// Returns the next state; `None` if the daemon has ended.
    pub async fn next(&mut self) -> Result<Option<Snapshot>, Failure> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(no_response);
            }
            if self.rest.len() > ANSWER_MAX {
                return Err(no_response("the line is too long"));
            }
            // A daemon that is killed breaks the stream, one that exits ends it.
            match self.body.frame().await {
                Some(Ok(frame)) => self.rest.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

fn no_response(error: impl std::fmt::Display) -> Failure {
    Failure::new(exit::FAILED, format!("no response from the daemon: {error}"))
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (_connection, response) = request(stream, method, path, body).await?;
    let status = response.status();
    Ok((status, Limited::new(response.into_body(), ANSWER_MAX).collect().await?.to_bytes()))
}

async fn request(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(Connection, Response<Incoming>), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("content-type", "application/json").body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    Ok((sender, response))
}
