//! A stub of Elasticsearch's security API (feature `testing`): keys in memory, strict about the shape of requests, and
//! able to fail in the ways in which clusters and what is in front of them fail.

mod api;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// Credential that the stub accepts.
pub const TOKEN: &str = "AAEAAWVsYXN0aWMvZmxlZXQtc2VydmVyL211c3Rlcjp0MGtlbg";

/// User that the stub accepts, and its password.
pub const USER: [&str; 2] = ["muster", "s3cret pass"];

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// How the stub responds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As Elasticsearch does.
    Well,
    /// With an error of Elasticsearch, and `Retry-After`.
    Status(u16, Option<u64>),
    /// With a page of HTML, as a load balancer does.
    Html(u16),
    /// With more than a client should read.
    Endless,
    /// Not at all.
    Never,
    /// Does what it is asked for, and closes the connection without an answer.
    Lost,
}

/// A key at the stub.
#[derive(Clone, Debug, PartialEq)]
pub struct StubKey {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// Its name.
    pub name: String,
    /// Its permissions.
    pub roles: Map<String, Value>,
    /// Its metadata.
    pub metadata: Value,
    /// Whether it is valid.
    pub is_valid: bool,
}

/// Numbers of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Creations.
    pub create: usize,
    /// Reads by id.
    pub read: usize,
    /// Bulk updates.
    pub update: usize,
    /// Invalidations.
    pub invalidate: usize,
    /// Lists.
    pub list: usize,
    /// Reads of the version.
    pub version: usize,
    /// Maximum calls at the same time.
    pub most_at_once: usize,
}

struct State {
    mode: Mode,
    /// Values of `Authorization` that are accepted.
    credentials: Vec<String>,
    keys: BTreeMap<String, StubKey>,
    calls: Calls,
    running: usize,
    made: usize,
    /// Roles that creation and update reject.
    rejected_privilege: Option<String>,
    complaints: Vec<String>,
    version: String,
}

/// The stub, listening on a port of its own.
#[derive(Clone)]
pub struct Stub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Stub {
    /// Starts the stub.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let state = State {
            mode: Mode::Well,
            credentials: vec![bearer(TOKEN), basic(USER[0], USER[1])],
            keys: BTreeMap::new(),
            calls: Calls::default(),
            running: 0,
            made: 0,
            rejected_privilege: None,
            complaints: Vec::new(),
            version: "8.18.8".into(),
        };
        let address = listener.local_addr().expect("bound");
        let stub = Self { address, state: Arc::new(Mutex::new(state)) };
        let accepting = stub.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(TokioIo::new(stream)));
            }
        });
        stub
    }

    /// Serves one connection, for tests that accept it themselves.
    pub async fn serve(self, stream: impl hyper::rt::Read + hyper::rt::Write + Unpin + 'static) {
        let service = hyper::service::service_fn(move |request| {
            let stub = self.clone();
            async move { stub.respond(request).await }
        });
        // Clients close connections whenever they like.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
    }

    /// URL of the stub.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Fields of an output at the stub.
    pub fn output(&self) -> Value {
        json!({"type": "elasticsearch", "hosts": [self.url()], "service_token": TOKEN})
    }

    /// Fields of an output at the stub, with a user.
    pub fn output_with_user(&self) -> Value {
        json!({
            "type": "elasticsearch", "hosts": [self.url()], "agent_keys": true, "username": USER[0], "password": USER[1]
        })
    }

    /// Accepts another token of a service account.
    pub fn accept_token(&self, token: &str) {
        self.state().credentials.push(bearer(token));
    }

    /// Accepts another user.
    pub fn accept_user(&self, name: &str, password: &str) {
        self.state().credentials.push(basic(name, password));
    }

    /// Sets how the stub responds from now on.
    pub fn set(&self, mode: Mode) {
        self.state().mode = mode;
    }

    /// Sets the number of keys that the stub has created, from which it makes their ids: those of two stubs must differ if they
    /// stand for one cluster.
    pub fn set_created(&self, made: usize) {
        self.state().made = made;
    }

    /// Sets the version that the stub says it has.
    pub fn set_version(&self, version: &str) {
        self.state().version = version.to_owned();
    }

    /// Rejects keys with this privilege.
    pub fn reject_privilege(&self, privilege: &str) {
        self.state().rejected_privilege = Some(privilege.to_owned());
    }

    /// All keys, by id.
    pub fn keys(&self) -> Vec<StubKey> {
        self.state().keys.values().cloned().collect()
    }

    /// The valid keys.
    pub fn valid(&self) -> Vec<StubKey> {
        self.keys().into_iter().filter(|key| key.is_valid).collect()
    }

    /// The valid key that `id:secret` names; `None` if there is no such key.
    pub fn authenticate(&self, key: &str) -> Option<StubKey> {
        let (id, secret) = key.split_once(':')?;
        self.state().keys.get(id).filter(|key| key.is_valid && key.secret == secret).cloned()
    }

    /// Invalidates a key, as an administrator of the cluster does.
    pub fn revoke(&self, id: &str) {
        if let Some(key) = self.state().keys.get_mut(id) {
            key.is_valid = false;
        }
    }

    /// Numbers of calls so far.
    pub fn calls(&self) -> Calls {
        self.state().calls
    }

    /// What was wrong with requests so far.
    pub fn complaints(&self) -> Vec<String> {
        self.state().complaints.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn respond(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let mode = {
            let mut state = self.state();
            state.running += 1;
            state.calls.most_at_once = state.calls.most_at_once.max(state.running);
            state.mode.clone()
        };
        // Calls that overlap on the client's side overlap here, too.
        tokio::task::yield_now().await;
        let response = match mode {
            Mode::Well => Ok(self.handle(&head, &body)),
            Mode::Status(status, retry_after) => Ok(failure(status, retry_after)),
            Mode::Html(status) => Ok(html(status)),
            Mode::Endless => Ok(plain(200, vec![b' '; 20 << 20])),
            Mode::Never => std::future::pending().await,
            Mode::Lost => {
                let _unsent = self.handle(&head, &body);
                Err(io::Error::other("told to lose the answer"))
            }
        };
        self.state().running -= 1;
        response
    }

    fn handle(&self, head: &http::request::Parts, body: &[u8]) -> Response<Full<Bytes>> {
        let (status, answer) = api::handle(&mut self.state(), head, body);
        plain(status, answer.to_string().into_bytes())
    }
}

fn plain(status: u16, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn failure(status: u16, retry_after: Option<u64>) -> Response<Full<Bytes>> {
    let reason = format!("told to respond with {status}");
    let error = json!({"error": {"type": "stub_exception", "reason": reason}, "status": status});
    let mut response = plain(status, error.to_string().into_bytes());
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn html(status: u16) -> Response<Full<Bytes>> {
    let mut response = plain(status, b"<html><body><h1>Welcome</h1></body></html>".to_vec());
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/html; charset=utf-8"));
    response
}
