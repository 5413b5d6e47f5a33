//! Client of the control socket.

use std::time::Duration;

use bytes::Bytes;
use camino::Utf8Path;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

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
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Failure::new(exit::PERMISSION, format!("{socket}: {error}"))
                .hint("run muster-agent as the user that runs the agent"));
        }
        // The socket does not exist, or a killed daemon has left it behind.
        Err(_) => return Ok(None),
    };
    match tokio::time::timeout(timeout, exchange(stream, method, path)).await {
        Ok(Ok(body)) => Ok(Some(body)),
        Ok(Err(error)) => Err(Failure::new(exit::FAILED, format!("no response from the daemon: {error}"))),
        Err(_) => Err(Failure::new(exit::TIMEOUT, format!("no response from the daemon within {timeout:?}"))),
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "agent").body(Full::<Bytes>::default())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("status {status}").into());
    }
    Ok(Limited::new(response.into_body(), ANSWER_MAX).collect().await?.to_bytes())
}
