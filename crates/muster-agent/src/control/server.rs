//! Server of the control socket.

use std::convert::Infallible;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camino::Utf8Path;
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Answer;
use super::address::Address;
use super::monitoring::{self, FailOn};
use crate::coordinator::Command;
use crate::coordinator::report::Snapshot;
use crate::coordinator::watch::WAITING;
use muster_core::error_chain::chain;

/// Maximum number of connections.
const CONNECTIONS: usize = 16;
/// Maximum number of connections that watch the state. The others are for commands.
const WATCHERS: usize = 4;
/// Maximum time to send the last responses when the daemon exits.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Maximum time to receive the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Binds the socket, and replaces a socket that a killed daemon has left behind. The caller must hold the daemon's
/// lock.
pub fn bind(path: &Utf8Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Others cannot reach the directory, so that nobody can connect between bind and chmod.
    let listener = UnixListener::bind(Address::of(path)?.path())?;
    let directory = path.parent().map_or(0, |parent| fs_err::metadata(parent).map_or(0, |found| found.mode()));
    // The group of an unprivileged agent may use `status` (AG47).
    let mode = if directory & 0o010 != 0 { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// A response, which can be a stream.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a connection needs.
#[derive(Clone)]
struct Desk {
    commands: mpsc::Sender<Command>,
    watchers: Arc<Semaphore>,
}

/// The running server.
pub struct Control {
    task: JoinHandle<()>,
    places: Arc<Semaphore>,
}

impl Control {
    /// Starts a task that serves `listener`.
    pub fn start(listener: UnixListener, commands: mpsc::Sender<Command>) -> Self {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let desk = Desk { commands, watchers: Arc::new(Semaphore::new(WATCHERS)) };
        Self { task: tokio::spawn(serve(listener, desk, places.clone())), places }
    }

    /// Stops accepting connections, and waits for the responses in progress.
    pub async fn finish(self) {
        // The response to an `unenroll` may still be in progress.
        self.task.abort();
        let _ = self.task.await;
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(LAST_ANSWERS, self.places.acquire_many(all)).await;
    }
}

async fn serve(listener: UnixListener, desk: Desk, places: Arc<Semaphore>) {
    loop {
        // Waits for a free slot before accepting, so that further connections queue in the kernel.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    converse(stream, desk).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to accept a control connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, desk: Desk) {
    let service = service_fn(move |request| answer(request, desk.clone()));
    let mut builder = hyper::server::conn::http1::Builder::new();
    // One request per connection is sufficient for the commands, and idle clients cannot occupy slots.
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(16 << 10).keep_alive(false);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error = %chain(&error), "control connection ended");
    }
}

async fn answer(request: http::Request<Incoming>, desk: Desk) -> Result<Response<Body>, Infallible> {
    let commands = &desk.commands;
    let answered = match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/status") => ask(commands, Command::Status).await.map(|snapshot| json(&snapshot)),
        (&Method::GET, "/v1/status/watch") => watch(&desk).await,
        (&Method::GET, "/liveness") => match FailOn::parse(request.uri().query().unwrap_or_default()) {
            Some(fail_on) => Some(status(monitoring::liveness(ask(commands, Command::Status), fail_on).await)),
            None => Some(status(StatusCode::BAD_REQUEST)),
        },
        (&Method::GET, "/stats") => {
            ask(commands, Command::Status).await.map(|snapshot| json(&monitoring::stats(&snapshot)))
        }
        (&Method::POST, "/v1/reload") => commands.send(Command::Reload).await.ok().map(|()| json(&Answer::default())),
        (&Method::POST, "/v1/restart") => commands.send(Command::Restart).await.ok().map(|()| json(&Answer::default())),
        (&Method::POST, "/v1/upgrade/kept") => {
            commands.send(Command::UpgradeKept).await.ok().map(|()| json(&Answer::default()))
        }
        (&Method::POST, "/v1/upgrade") => match wanted(request.uri().query().unwrap_or_default()) {
            Some(wanted) => ask(commands, |reply| Command::Upgrade(wanted, reply))
                .await
                .map(|refused| json(&Answer { warning: refused })),
            None => Some(status(StatusCode::BAD_REQUEST)),
        },
        (&Method::GET, "/v1/diagnostics") => {
            ask(commands, Command::Diagnostics).await.map(|bundle| Response::new(Full::new(bundle).boxed_unsync()))
        }
        (&Method::POST, "/v1/unenroll") => {
            ask(commands, Command::Unenroll).await.map(|warning| json(&Answer { warning }))
        }
        _ => Some(status(StatusCode::NOT_FOUND)),
    };
    // The daemon is ending, and takes no more commands.
    Ok(answered.unwrap_or_else(|| status(StatusCode::SERVICE_UNAVAILABLE)))
}

/// Reads the upgrade that a command asks for from its query.
fn wanted(query: &str) -> Option<crate::upgrade::Request> {
    let mut request = crate::upgrade::Request::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value).decode_utf8().ok()?.into_owned();
        match name {
            "version" => request.version = value,
            "source_uri" => request.source_uri = Some(value),
            "rollback" => request.rollback = value == "true",
            "force" => request.is_forced = value == "true",
            _ => return None,
        }
    }
    (!request.version.is_empty()).then_some(request)
}

async fn ask<T>(commands: &mpsc::Sender<Command>, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    answer.await.ok()
}

/// Begins a stream of states, one in each line. The daemon ends it when it exits; `None` if it takes no more commands.
async fn watch(desk: &Desk) -> Option<Response<Body>> {
    let Ok(place) = desk.watchers.clone().try_acquire_owned() else {
        return Some(status(StatusCode::TOO_MANY_REQUESTS));
    };
    let (sender, states) = mpsc::channel(WAITING);
    desk.commands.send(Command::Watch(sender)).await.ok()?;
    // The place is free again when the stream is dropped with the connection.
    let lines = futures_util::stream::unfold((states, place), next_line);
    Some(Response::new(StreamBody::new(lines).boxed_unsync()))
}

type Watching = (mpsc::Receiver<Snapshot>, OwnedSemaphorePermit);

async fn next_line((mut states, place): Watching) -> Option<(Result<Frame<Bytes>, Infallible>, Watching)> {
    let mut line = serde_json::to_vec(&states.recv().await?).unwrap_or_default();
    line.push(b'\n');
    Some((Ok(Frame::data(line.into())), (states, place)))
}

fn json(body: &impl Serialize) -> Response<Body> {
    let body = Full::new(Bytes::from(serde_json::to_vec(body).unwrap_or_default()));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = code;
    response
}
