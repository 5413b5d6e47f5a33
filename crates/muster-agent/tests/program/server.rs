//! A small fleet server over TLS, with a certificate authority of its own or a self-signed certificate.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use muster_core::hex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use serde_json::{Value, json};

/// What the server received, and how it answers.
#[derive(Default)]
pub struct Seen {
    pub enrolled: Vec<Value>,
    pub audits: Vec<Value>,
    /// Status of the answer to a notice, if it is not 200; the notice is not recorded.
    pub audit_status: Option<u16>,
    /// Enrollments under a requested id are refused.
    pub refuse_ids: bool,
    pub refused: Vec<Value>,
    /// `agent.protection` of the policy.
    pub protection: Option<Value>,
    /// Access keys are refused.
    pub revoked: bool,
    pub enroll_attempts: usize,
    pub refuse_enroll: Option<u16>,
    pub agent_id: Option<String>,
    /// What the policy's program is; `sleep` if it is not set.
    pub program: Option<Value>,
    /// `fleet` of the policy.
    pub fleet: Option<Value>,
    /// Whether the policy has an input of the type `endpoint`.
    pub endpoint: bool,
    /// Files that agents can download.
    pub files: HashMap<String, Vec<u8>>,
    /// Actions, in order; the ack token is the number of delivered ones.
    pub actions: Vec<Value>,
    /// Received acks.
    pub acks: Vec<Value>,
    /// `upgrade_details` of every check-in.
    pub upgrades: Vec<Value>,
    /// Path and `X-Gateway` header of every request.
    pub gateway: Vec<(String, Option<String>)>,
}

/// A server in a thread of its own; it lives as long as the test process.
pub struct TlsServer {
    pub url: String,
    pub ca_file: PathBuf,
    pub fingerprint: String,
    pub key_pin: String,
    seen: Arc<Mutex<Seen>>,
    _directory: tempfile::TempDir,
}

impl TlsServer {
    /// With a certificate for 127.0.0.1 from an authority, which it sends along.
    pub fn start() -> Self {
        Self::issued(|_| {})
    }

    /// With a certificate from an authority, changed as the test needs it.
    pub fn issued(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (ca, key, leaf) = issue(change);
        let pin = hex::sha256(&ca.key().subject_public_key_info());
        Self::serving(&ca.pem(), vec![leaf.der().clone(), ca.der().clone()], &key, pin)
    }

    /// With a certificate from an authority, one of which it also requires of its clients. Returns its own certificate and
    /// key (PEM), which a client can use as well.
    pub fn requiring_certificates() -> (Self, [String; 2]) {
        let (ca, key, leaf) = issue(|_| {});
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let (chain, pin) =
            (vec![leaf.der().clone(), ca.der().clone()], hex::sha256(&ca.key().subject_public_key_info()));
        let server = Self::verifying(&ca.pem(), chain, &key, pin, clients.build().unwrap());
        (server, [leaf.pem(), key.serialize_pem()])
    }

    /// With a self-signed certificate that is marked as an authority, as `openssl req -x509` does.
    pub fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.self_signed(&key).unwrap();
        let pin = hex::sha256(&key.subject_public_key_info());
        Self::serving(&leaf.pem(), vec![leaf.der().clone()], &key, pin)
    }

    fn serving(trusted: &str, chain: Vec<CertificateDer<'static>>, key: &KeyPair, pin: [u8; 32]) -> Self {
        Self::verifying(trusted, chain, key, pin, Arc::new(rustls::server::NoClientAuth))
    }

    fn verifying(
        trusted: &str,
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
        pin: [u8; 32],
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.crt");
        std::fs::write(&ca_file, trusted).unwrap();
        let fingerprint = hex::encode(&hex::sha256(chain.last().unwrap()));
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, private)
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        std::thread::spawn(move || serve(listener, config, shared));
        let key_pin = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pin);
        Self { url, ca_file, fingerprint, key_pin, seen, _directory: directory }
    }

    pub fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

/// Issues a certificate for 127.0.0.1, changed as the test needs it.
fn issue(
    change: impl FnOnce(&mut CertificateParams),
) -> (CertifiedIssuer<'static, KeyPair>, KeyPair, rcgen::Certificate) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    change(&mut params);
    let leaf = params.signed_by(&key, &ca).unwrap();
    (ca, key, leaf)
}

fn serve(listener: std::net::TcpListener, config: rustls::ServerConfig, seen: Arc<Mutex<Seen>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| answer(request, seen.clone()));
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn answer(request: Request<Incoming>, seen: Arc<Mutex<Seen>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let range = header("range");
    seen.lock().unwrap().gateway.push((path.clone(), header("x-gateway")));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    if path.ends_with("/checkin") {
        let plain = muster_agent::net::gzip::decompress(&body, 1 << 20).unwrap().unwrap();
        return Ok(check_in(&serde_json::from_slice(&plain).unwrap(), &seen).await);
    }
    if let Some(name) = path.strip_prefix("/api/fleet/file/") {
        return Ok(file(seen.lock().unwrap().files.get(name), &range.unwrap()));
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut seen = seen.lock().unwrap();
    if path.ends_with("/enroll") {
        seen.enroll_attempts += 1;
        if let Some(status) = seen.refuse_enroll {
            return Ok(reply(status, &json!({"statusCode": status, "error": "Refused", "message": "no"})));
        }
        if seen.refuse_ids && body["id"].is_string() {
            seen.refused.push(body);
            return Ok(reply(403, &json!({"statusCode": 403, "error": "AgentNotReplaceable", "message": "no"})));
        }
        seen.enrolled.push(body);
        let id = seen.agent_id.clone().unwrap_or_else(|| "agent-1".into());
        return Ok(reply(200, &enrolled(&id)));
    }
    if path.ends_with("/audit/unenroll") {
        if let Some(status) = seen.audit_status {
            return Ok(reply(status, &json!({"statusCode": status, "error": "Down", "message": ""})));
        }
        seen.audits.push(body);
        return Ok(reply(200, &Value::Null));
    }
    seen.acks.extend(body["events"].as_array().into_iter().flatten().cloned());
    if seen.revoked {
        return Ok(reply(401, &json!({"statusCode": 401, "error": "ErrUnauthorized", "message": ""})));
    }
    let items: Vec<Value> = body["events"].as_array().into_iter().flatten().map(|_| json!({"status": 200})).collect();
    Ok(reply(200, &json!({"action": "acks", "items": items})))
}

fn enrolled(id: &str) -> Value {
    json!({"action": "created", "item": {"id": id, "active": true, "policy_id": "p", "type": "PERMANENT",
        "enrolled_at": "2026-01-01T00:00:00Z", "user_provided_metadata": null, "local_metadata": {},
        "access_api_key_id": "k", "access_api_key": "azpz", "status": "online", "tags": []}})
}

/// Returns a range of a file.
fn file(content: Option<&Vec<u8>>, range: &str) -> Response<Full<Bytes>> {
    let Some(content) = content else {
        return reply(404, &json!({"statusCode": 404, "error": "ErrFileForDeliveryNotFound", "message": "no"}));
    };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let end = (last.parse::<usize>().unwrap() + 1).min(content.len());
    let range = format!("bytes {first}-{}/{}", end - 1, content.len());
    let body = Bytes::copy_from_slice(&content[first..end]);
    Response::builder().status(206).header("content-range", range).body(Full::new(body)).unwrap()
}

async fn check_in(body: &Value, seen: &Mutex<Seen>) -> Response<Full<Bytes>> {
    seen.lock().unwrap().upgrades.push(body["upgrade_details"].clone());
    let known: usize = body["ack_token"].as_str().and_then(|token| token.parse().ok()).unwrap_or(0);
    if body["agent_policy_id"] == "p" {
        // Held for five seconds, or until there is an action.
        for _ in 0..100 {
            let actions = seen.lock().unwrap().actions.clone();
            if known < actions.len() {
                let token = actions.len().to_string();
                return reply(200, &json!({"action": "checkin", "ack_token": token, "actions": actions[known..]}));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        return reply(200, &json!({"action": "checkin", "ack_token": ""}));
    }
    let (program, protection, fleet, endpoint) = {
        let seen = seen.lock().unwrap();
        (seen.program.clone(), seen.protection.clone(), seen.fleet.clone(), seen.endpoint)
    };
    let mut input = program.unwrap_or_else(|| json!({"command": "/bin/sleep", "args": ["600"]}));
    (input["id"], input["type"]) = ("web".into(), "process".into());
    let endpoint = endpoint.then(|| json!({"id": "e", "type": "endpoint"}));
    let inputs: Vec<Value> = std::iter::once(input).chain(endpoint).collect();
    let policy = json!({"id": "p", "revision": 1, "inputs": inputs, "outputs": {"default": {"type": "elasticsearch"}},
        "fleet": fleet, "agent": {"protection": protection}});
    reply(
        200,
        &json!({"action": "checkin", "ack_token": "", "actions": [{"agent_id": "agent-1", "created_at": "",
        "id": "policy:p:1", "type": "POLICY_CHANGE", "input_type": "", "data": {"policy": policy}}]}),
    )
}

fn reply(status: u16, body: &Value) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(serde_json::to_vec(body).unwrap().into())).unwrap()
}
