//! Client of the control socket.

use std::time::Duration;

use bytes::Bytes;
use camino::Utf8Path;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::address::Address;
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
    let connected = match Address::of(socket) {
        Ok(address) => UnixStream::connect(address.path()).await,
        Err(error) => Err(error),
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Failure::new(exit::PERMISSION, format!("{socket}: {error}"))
                .hint("run muster-agent as the user that runs the agent"));
        }
        // The socket does not exist, or a killed daemon has left it behind.
        Err(_) => return Ok(None),
    };
    match tokio::time::timeout(timeout, exchange(stream, method, path, body)).await {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(error)) => Err(Failure::new(exit::FAILED, format!("no response from the daemon: {error}"))),
        Err(_) => Err(Failure::new(exit::TIMEOUT, format!("no response from the daemon within {timeout:?}"))),
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("content-type", "application/json").body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, Limited::new(response.into_body(), ANSWER_MAX).collect().await?.to_bytes()))
}
