//! A server that enrolls anybody, sends a policy, then two actions, then unenrolls the agent, and records all requests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use muster_drones::gzip;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A recorded request.
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Seen {
    /// A header's value, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    connections: usize,
    refuse: u32,
    agents: u32,
    turns: HashMap<String, u32>,
}

/// The server. It stops with the test.
pub struct Server {
    pub url: String,
    pub ca: PathBuf,
    state: Arc<Mutex<State>>,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts a server with its own port and certificate.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.crt");
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(&ca, certified.cert.pem()).unwrap();
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls =
            builder.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key.into()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(tls)), state.clone()));
        Self { url, ca, state, _directory: directory }
    }

    /// Takes all requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    /// Number of connections so far.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// Answers the next requests with 429.
    pub fn refuse_next(&self, count: u32) {
        self.state.lock().unwrap().refuse = count;
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.lock().unwrap().connections += 1;
        tokio::spawn(serve(stream, tls.clone(), state.clone()));
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, state: Arc<Mutex<State>>) {
    let stream = tls.accept(stream).await.unwrap();
    let service = service_fn(move |request| answer(request, state.clone()));
    // The client ends the connection when it likes to.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes().to_vec();
    if parts.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        body = gzip::unpack(&body).unwrap();
    }
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(body.len()));
    let path = parts.uri.path_and_query().unwrap().to_string();
    let mut state = state.lock().unwrap();
    if state.refuse > 0 {
        state.refuse -= 1;
        let refusal = json!({"statusCode": 429, "error": "RateLimit"}).to_string();
        return Ok(Response::builder().status(429).body(Full::from(refusal)).unwrap());
    }
    let reply = reply(&mut state, &path, &body);
    state.seen.push(Seen { method: parts.method, path, headers: parts.headers, body });
    Ok(packed(&reply))
}

fn reply(state: &mut State, path: &str, body: &Value) -> Value {
    if path.ends_with("/enroll?") {
        state.agents += 1;
        return enrolled(&format!("agent-{}", state.agents));
    }
    if path.ends_with("/uploads?") {
        return json!({"upload_id": "u-1", "chunk_size": 4_194_304});
    }
    if path.ends_with("/uploads/u-1?") {
        return json!({"status": "ok"});
    }
    if path.ends_with("/acks?") {
        let items: Vec<_> = body["events"].as_array().unwrap().iter().map(|_| json!({"status": 200})).collect();
        return json!({"action": "acks", "items": items});
    }
    if path.ends_with("/checkin?") {
        let turn = state.turns.entry(path.to_owned()).or_default();
        *turn += 1;
        return check_in(*turn);
    }
    json!({"name": "fleet-server", "status": "HEALTHY"})
}

fn enrolled(id: &str) -> Value {
    json!({"action": "created", "item": {
        "id": id, "active": true, "policy_id": "p", "type": "PERMANENT", "enrolled_at": "2026-01-02T03:04:05Z",
        "user_provided_metadata": null, "local_metadata": null, "access_api_key_id": "key-1",
        "access_api_key": "a2V5LTE6c2VjcmV0", "status": "online", "tags": [] }})
}

fn check_in(turn: u32) -> Value {
    let action = |id: &str, kind: &str, data: Value| json!({"agent_id": "agent-1", "created_at": "2026-01-02T03:04:05Z", "id": id, "type": kind, "input_type": "", "data": data});
    let (token, action) = match turn {
        1 => ("t-1", action("policy:p:3", "POLICY_CHANGE", json!({"policy": {"id": "p", "revision": 3}}))),
        2 => ("", action("a-1", "SETTINGS", json!({"log_level": "debug"}))),
        3 => ("t-3", action("a-3", "REQUEST_DIAGNOSTICS", json!({}))),
        _ => ("t-2", action("a-2", "UNENROLL", Value::Null)),
    };
    json!({"action": "checkin", "ack_token": token, "actions": [action]})
}

/// A response of two gzip members, as from a server that splices shared pieces.
fn packed(reply: &Value) -> Response<Full<Bytes>> {
    let text = reply.to_string();
    let (head, tail) = text.split_at(text.len() / 2);
    let members = [gzip::pack(head.as_bytes()).unwrap(), gzip::pack(tail.as_bytes()).unwrap()].concat();
    Response::builder().header("content-encoding", "gzip").body(Full::from(members)).unwrap()
}
