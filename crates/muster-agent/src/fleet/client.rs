//! Sends requests: sets headers and selects the server.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use muster_core::Entropy;
use muster_core::entropy::random_uuid;
use muster_protocol::elastic::{API_VERSION, API_VERSION_HEADER, REQUEST_ID_HEADER};
use tokio::time::Instant;

use super::CallError;
use super::error::foreign;
use crate::net::server::Servers;
use crate::net::{Reached, Request, Response, Server, Transport};
use crate::state::enrollment::Secret;
use crate::version;

/// Timeout of an ordinary request.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The parts of a request that differ between endpoints.
pub(crate) struct Call {
    pub method: Method,
    pub path: String,
    pub body: Bytes,
    pub timeout: Duration,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub reached: Reached,
}

impl Call {
    /// A `POST` with a JSON body.
    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let (method, timeout) = (Method::POST, CALL_TIMEOUT);
        Self { method, path: path.into(), body: body.into(), timeout, headers: Vec::new(), reached: Reached::default() }
    }
}

/// A client of one fleet with one credential.
pub struct FleetClient {
    route: Mutex<Route>,
    credential: Secret,
    entropy: Arc<dyn Entropy>,
}

/// How the servers are reached.
struct Route {
    transport: Arc<dyn Transport>,
    servers: Servers,
}

impl FleetClient {
    /// Creates a client of `servers`. `credential` is an enrollment token or an access key, in base64.
    pub fn new(
        transport: Arc<dyn Transport>,
        servers: Vec<Server>,
        credential: Secret,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { route: Mutex::new(Route { transport, servers: Servers::new(servers) }), credential, entropy }
    }

    /// Replaces the servers and the way to reach them.
    pub fn set_route(&self, transport: Arc<dyn Transport>, servers: Vec<Server>) {
        *self.route() = Route { transport, servers: Servers::new(servers) };
    }

    /// Returns whether there is a server to send requests to.
    pub fn has_server(&self) -> bool {
        self.pick().is_some()
    }

    /// Returns the way in which the servers are reached.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.route().transport.clone()
    }

    fn route(&self) -> MutexGuard<'_, Route> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that `server` serves agents (`GET /api/status`).
    pub async fn probe(&self, server: &Server, timeout: Duration) -> Result<(), CallError> {
        self.probe_through(&*self.transport(), server, timeout).await
    }

    /// Checks that `server` can be reached in another way than the current one.
    pub async fn probe_through(
        &self,
        transport: &dyn Transport,
        server: &Server,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let call = Call {
            method: Method::GET,
            path: "/api/status".into(),
            body: Bytes::new(),
            timeout,
            headers: Vec::new(),
            reached: Reached::default(),
        };
        // Sent to this server only, because the result decides whether the agent switches to it.
        let response = transport.send(server, self.request(call)?).await?;
        if response.status == 200 { Ok(()) } else { Err(CallError::from_reply(&response)) }
    }

    /// Checks that the current server serves agents.
    pub async fn probe_any(&self, timeout: Duration) -> Result<(), CallError> {
        let (transport, server) = self.pick().ok_or(CallError::NoServer)?;
        self.probe_through(&*transport, &server, timeout).await
    }

    /// Sends a request to the current server. Returns a response with any status; only network failures are errors.
    pub(crate) async fn send(&self, call: Call) -> Result<Response, CallError> {
        let (transport, server) = self.pick().ok_or(CallError::NoServer)?;
        let outcome = transport.send(&server, self.request(call)?).await;
        // Only unreachable servers are avoided. If a server rejects a request, the other servers of the fleet would
        // too.
        let reached = !matches!(&outcome, Err(error) if error.is_connect());
        self.route().servers.note(&server, reached, Instant::now());
        Ok(outcome?)
    }

    /// Prefers another server than the current one, if there is one, as if it were unreachable.
    pub fn avoid_current(&self) {
        let now = Instant::now();
        let mut route = self.route();
        if let Some(server) = route.servers.pick(now) {
            route.servers.note(&server, false, now);
        }
    }

    fn pick(&self) -> Option<(Arc<dyn Transport>, Server)> {
        let route = self.route();
        route.servers.pick(Instant::now()).map(|server| (route.transport.clone(), server))
    }

    fn request(&self, call: Call) -> Result<Request, CallError> {
        let mut headers = self.headers()?;
        headers.extend(call.headers);
        let Call { method, path, body, timeout, reached, .. } = call;
        Ok(Request { method, path, headers, body, timeout, reached })
    }

    fn headers(&self) -> Result<HeaderMap, CallError> {
        let unusable =
            |_| CallError::Undecodable("the credential contains characters that are not allowed in a header".into());
        let mut secret = HeaderValue::from_str(&format!("ApiKey {}", self.credential.expose())).map_err(unusable)?;
        // Keeps the key out of debug output.
        secret.set_sensitive(true);
        // The server echoes and logs this id, so that its log can be matched with ours.
        let request_id = HeaderValue::from_str(&random_uuid(&*self.entropy)).map_err(unusable)?;
        let agent = HeaderValue::from_str(&version::user_agent()).map_err(unusable)?;
        let mut headers = HeaderMap::with_capacity(10);
        headers.insert(AUTHORIZATION, secret);
        headers.insert(USER_AGENT, agent);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert("kbn-xsrf", HeaderValue::from_static("1"));
        headers.insert(API_VERSION_HEADER, HeaderValue::from_static(API_VERSION));
        headers.insert(REQUEST_ID_HEADER, request_id);
        Ok(headers)
    }
}

/// Returns a response with status 200; any other status is an error, and so is a web page.
pub(crate) fn expect_ok(response: Response) -> Result<Response, CallError> {
    if response.status != 200 {
        return Err(CallError::from_reply(&response));
    }
    match foreign(&response.body) {
        Some(what) => Err(CallError::Undecodable(what.into())),
        None => Ok(response),
    }
}
