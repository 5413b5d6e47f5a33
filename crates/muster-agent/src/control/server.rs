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
use super::places::{Connection, Places};
use crate::coordinator::Command;
use crate::coordinator::report::Snapshot;
use crate::coordinator::watch::WAITING;
use muster_core::error_chain::chain;

/// Maximum number of connections that watch the state.
const WATCHERS: usize = 4;
/// Maximum time to send the last responses when the daemon exits.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Maximum time to receive the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum duration of a connection whose request only reads. A client that does not read the response would keep its place.
const READING: Duration = Duration::from_secs(60);

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
    places: Arc<Places>,
}

/// The running server.
pub struct Control {
    task: JoinHandle<()>,
    places: Arc<Places>,
}

impl Control {
    /// Starts a task that serves `listener`.
    pub fn start(listener: UnixListener, commands: mpsc::Sender<Command>) -> Self {
        let places = Arc::new(Places::new());
        let desk = Desk { commands, watchers: Arc::new(Semaphore::new(WATCHERS)), places: places.clone() };
        Self { task: tokio::spawn(serve(listener, desk)), places }
    }

    /// Stops accepting connections, and waits for the responses in progress.
    pub async fn finish(self) {
        // The response to an `unenroll` may still be in progress.
        self.task.abort();
        let _ = self.task.await;
        let _ = tokio::time::timeout(LAST_ANSWERS, self.places.idle()).await;
    }
}

async fn serve(listener: UnixListener, desk: Desk) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = Arc::new(Connection::of(&stream));
                desk.places.admit(connection.clone(), converse(stream, desk.clone(), connection));
                // The new connection may have sent its request: it is read before the next one is accepted.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to accept a control connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, desk: Desk, connection: Arc<Connection>) {
    let service = service_fn(|request| answer(request, desk.clone(), connection.clone()));
    let mut builder = hyper::server::conn::http1::Builder::new();
    // One request per connection is sufficient for the commands, and idle clients cannot occupy slots.
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(16 << 10).keep_alive(false);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    if let Some(Err(error)) = connection.within(READING, serving).await {
        tracing::debug!(error = %chain(&error), "control connection ended");
    }
    desk.places.leave(&connection);
}

async fn answer(
    request: http::Request<Incoming>,
    desk: Desk,
    connection: Arc<Connection>,
) -> Result<Response<Body>, Infallible> {
    if !desk.places.begin(&connection) {
        return Ok(status(StatusCode::TOO_MANY_REQUESTS));
    }
    if request.method() != Method::GET {
        // Whoever could stop or replace the agent would not need the uninstall token.
        if !connection.is_owner() {
            return Ok(status(StatusCode::FORBIDDEN));
        }
        connection.take_long();
    }
    let commands = &desk.commands;
    let answered = match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/status") => ask(commands, Command::Status).await.map(|snapshot| json(&snapshot)),
        (&Method::GET, "/v1/status/watch") => {
            connection.take_long();
            watch(&desk).await
        }
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

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;
    use crate::control::client;

    /// A server whose commands nobody answers, except for the tests.
    fn started() -> (tempfile::TempDir, Utf8PathBuf, Control, mpsc::Receiver<Command>) {
        let directory = tempfile::tempdir().unwrap();
        let socket = Utf8PathBuf::from_path_buf(directory.path().join("agent.sock")).unwrap();
        let (commands, received) = mpsc::channel(64);
        let control = Control::start(bind(&socket).unwrap(), commands);
        (directory, socket, control, received)
    }

    async fn restart(socket: &Utf8Path) -> StatusCode {
        let limit = Duration::from_secs(3);
        let sent = client::send(socket, Method::POST, "/v1/restart", Bytes::new(), limit).await;
        sent.unwrap().unwrap().0
    }

    #[tokio::test]
    async fn clients_that_send_nothing_do_not_lock_out_commands() {
        let (_directory, socket, _control, _received) = started();
        let mut silent = Vec::new();
        for _ in 0..400 {
            silent.push(UnixStream::connect(&socket).await.unwrap());
        }
        assert_eq!(restart(&socket).await, StatusCode::OK);
        // The first of them were displaced long before the time for a request is over.
        let first = silent.first_mut().unwrap();
        let ended = tokio::time::timeout(HEADER_TIMEOUT / 2, tokio::io::AsyncReadExt::read_u8(first)).await.unwrap();
        assert!(ended.is_err());
    }

    #[tokio::test]
    async fn requests_in_progress_are_limited_and_the_last_ones_are_answered_before_the_end() {
        let (_directory, socket, control, mut received) = started();
        let mut asked = Vec::new();
        for _ in 0..16 {
            let socket = socket.clone();
            asked.push(tokio::spawn(async move {
                client::fetch(&socket, Method::GET, "/v1/diagnostics", Duration::from_secs(9)).await
            }));
        }
        let mut commands = Vec::new();
        while commands.len() < asked.len() {
            commands.push(received.recv().await.unwrap());
        }
        assert_eq!(restart(&socket).await, StatusCode::TOO_MANY_REQUESTS);
        let end = tokio::spawn(control.finish());
        for command in commands {
            let Command::Diagnostics(reply) = command else { panic!("{command:?}") };
            reply.send(Bytes::from_static(b"bundle")).unwrap();
        }
        for asked in asked {
            assert_eq!(asked.await.unwrap().unwrap().unwrap(), "bundle");
        }
        end.await.unwrap();
    }
}
