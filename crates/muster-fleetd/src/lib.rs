//! fleetd's protocols: osquery's TLS API and orbit's API (FL §1, §2).
//!
//! [`FleetdApi::handle`] routes a request, reads its body within limits, authenticates the agent and calls the services of the
//! fleet. Errors have the form of the plane that the path belongs to ([`failure`]).

mod carve;
pub mod carve_block;
pub mod certificate;
mod client;
mod device;
mod device_checks;
mod device_inventory;
mod device_software;
mod downloads;
pub mod failure;
mod failures;
pub mod headers;
pub mod orbit;
pub mod orbit_software;
mod orbit_work;
pub mod osquery;
mod push;
pub mod route;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use muster_core::agent::Family;
use muster_core::client_certificate::ClientCertificate;
use muster_core::denial::Denial;
use muster_core::entropy::random_uuid;
use muster_core::fleetd::identifier::HostIdentifier;
use muster_fleet::Fleet;
use muster_fleet::authenticate::Guesses;
use muster_fleet::check_in::Contact;
use muster_fleet::enroll::Admission;
use muster_fleet::refusals::Refused;
use muster_fleet::registry::AgentEntry;
use muster_fleet::upload_limits::UploadLimits;
use muster_listen::Answer;
use muster_listen::receive::{self, BodyError, Bounds, Budget, Coding, Decoded, Received};
use muster_listen::reply::{Peer, Reply};
use muster_listen::upgrade::Upgrade;
use muster_protocol::fleetd::CAPABILITIES_HEADER;
use serde::{Deserialize, Serialize};

use self::client::Client;
use self::downloads::Downloads;
use self::failure::Failure;
use self::failures::Failures;
use self::route::{Plane, Route};

/// Memory budget of all large bodies.
const BODIES_BUDGET: usize = 256 << 20;
/// Maximum time for a body. osqueryd gives a request up after 16 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum length of a node key, bytes. Those of this server have 32.
const KEY_BYTES: usize = 255;
/// What this server can do (FL §2.2).
const CAPABILITIES: HeaderValue =
    HeaderValue::from_static("orbit_endpoints,token_rotation,linux_disk_encryption_escrow");

/// The adapter of one listener. Cheap to clone.
#[derive(Clone)]
pub struct FleetdApi(Arc<Inner>);

struct Inner {
    fleet: Arc<Fleet>,
    options: FleetdApiOptions,
    bodies: Budget,
    downloads: Downloads,
    device_failures: Failures,
    enroll_failures: Failures,
}

/// Options of the adapter.
#[derive(Clone, Copy, Debug, Default)]
pub struct FleetdApiOptions {
    /// Whether orbit holds a WebSocket open for hints, and fetches the queries of osqueryd (FL §2.9).
    pub push: bool,
    /// Limits of carves, which are those of uploads.
    pub uploads: UploadLimits,
    /// Whether hosts are bound to the client certificates that they enroll with (FL148).
    pub binds_certificates: bool,
    /// Identifier by which the host of an osqueryd is recognized (FL §1.3).
    pub identifier: HostIdentifier,
}

/// Result of a request.
pub struct Handled {
    /// The route; `None` for an unknown path.
    pub route: Option<Route>,
    /// Why the request was refused, if it was.
    pub refused: Option<&'static str>,
    /// The response.
    pub answer: Answer,
}

/// A request, as handlers receive it.
struct Call<'a> {
    head: &'a Parts,
    peer: &'a Client,
    text: &'a str,
}

impl<'a> Call<'a> {
    /// Parses the body.
    fn parse<T: Deserialize<'a>>(&self) -> Result<T, Failure> {
        parse(self.text)
    }
}

/// Parses a body.
pub fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Failure> {
    // serde's derived decoders also accept an array of a struct's values. Every body of the protocol is an object.
    if !text.trim_start().starts_with('{') {
        return Err(Failure::bad_request("expected a JSON object"));
    }
    serde_json::from_str(text).map_err(|error| Failure::bad_request(format!("the body is not valid: {error}")))
}

/// A body as received, and inflated if it was compressed.
struct Content {
    received: Received,
    decoded: Option<Decoded>,
}

impl Content {
    /// Returns the text. Bytes that are not UTF-8 are replaced: osqueryd would send the same lines again for ever.
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.decoded.as_deref().unwrap_or(&self.received))
    }
}

impl FleetdApi {
    /// Creates an adapter.
    pub fn new(fleet: Arc<Fleet>, options: FleetdApiOptions) -> Self {
        Self(Arc::new(Inner {
            fleet,
            options,
            bodies: Budget::new(BODIES_BUDGET),
            downloads: Downloads::default(),
            device_failures: Failures::default(),
            enroll_failures: Failures::default(),
        }))
    }

    /// Returns whether a path belongs to fleetd.
    pub fn owns(path: &str) -> bool {
        Plane::of(path).is_some()
    }

    /// Handles one request, whose path belongs to fleetd.
    pub fn handle<B>(&self, request: Request<B>, peer: Peer) -> impl Future<Output = Handled> + Send + use<B>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        async move { inner.serve(request, peer).await }
    }
}

impl Inner {
    async fn serve<B>(&self, request: Request<B>, peer: Peer) -> Handled
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let ((head, body), peer) = (request.into_parts(), Client::new(peer));
        let path = head.uri.path();
        let (plane, route) = (Plane::of(path).unwrap_or(Plane::Osquery), Route::of(path));
        let mut refused = None;
        let mut reply = match self.answer(route, &head, body, &peer).await {
            Ok(Answered::Upgrade(upgrade)) => {
                peer.set_authenticated();
                return Handled { route, refused, answer: Answer::Upgrade(upgrade) };
            }
            Ok(Answered::Reply(reply)) => {
                // A ping proves nothing.
                if !matches!(route, Some(Route::OrbitPing | Route::DeviceServerPing)) {
                    peer.set_authenticated();
                }
                reply
            }
            Err(failure) => {
                refused = (!failure.status.is_server_error()).then_some(failure.reason);
                self.refuse(plane, route, &failure, &head, &peer)
            }
        };
        if matches!(plane, Plane::Orbit | Plane::Device) {
            reply.headers_mut().insert(CAPABILITIES_HEADER, CAPABILITIES);
        }
        Handled { route, refused, answer: Answer::Reply(reply) }
    }

    async fn answer<B>(&self, route: Option<Route>, head: &Parts, body: B, peer: &Client) -> Result<Answered, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let Some(route) = route else {
            return Err(Failure::new(StatusCode::NOT_FOUND, "NoSuchPath", "no such path"));
        };
        if !route.takes(&head.method) {
            return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "method not allowed"));
        }
        if route == Route::OrbitPing {
            return json(&Nothing {}).map(Answered::Reply);
        }
        let work = async {
            if route == Route::OrbitNotifications {
                return self.notifications(head, peer).await.map(Answered::Upgrade);
            }
            if route.is_of_device() {
                return self.device(route, head, peer).await.map(Answered::Reply);
            }
            if route == Route::CarveBlock {
                return self.carve_block(head, body, peer).await.map(Answered::Reply);
            }
            let content = self.read(route, head, body).await?;
            let text = content.text();
            self.call(route, Call { head, peer, text: &text }).await.map(Answered::Reply)
        };
        // Boxed, so that the future of a request does not have the size of the largest handler.
        let status = self.fleet.server_status();
        let outcome = status.unless_silent(Box::pin(work)).await.map_err(Failure::from).flatten();
        outcome.map_err(|failure| match route {
            // osqueryd enrolls again whatever the reason, but a key that it may have must survive trouble of the server (FL4).
            Route::OsqueryEnroll if !failure.status.is_server_error() => Failure { is_key_invalid: true, ..failure },
            _ => failure,
        })
    }

    /// Verifies an enroll secret. An address that sends many invalid ones is refused for a while, without a read of the store.
    async fn admit(&self, call: &Call<'_>, secret: &str) -> Result<Admission, Failure> {
        let (address, now) = (call.peer.ip(), self.fleet.now());
        if let Some(wait) = self.enroll_failures.refused_for(&address, now) {
            let message = "enroll failed: too many invalid secrets from this address";
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyEnrollSecrets", message);
            return Err(Failure { retry_after: Some(wait), ..failure });
        }
        match self.fleet.enrollment().authenticate_secret(secret).await {
            Ok(admission) => {
                self.enroll_failures.succeeded(&address);
                Ok(admission)
            }
            Err(error) => {
                if error.denial == Some(Denial::UnknownKey) && self.enroll_failures.failed(&address, now) {
                    self.guessed("enroll_secret", &address).await;
                }
                Err(Failure::of_enrollment(error))
            }
        }
    }

    /// Records that an address is refused for a while because it has guessed.
    async fn guessed(&self, secret: &'static str, address: &str) {
        let guesses = Guesses { secret, address, count: failures::MAX_FAILURES, refused_for: failures::WINDOW };
        self.fleet.authentication().audit_guesses(&guesses).await;
    }

    async fn call(&self, route: Route, call: Call<'_>) -> Result<Reply, Failure> {
        match route {
            Route::OsqueryEnroll => self.osquery_enroll(call).await,
            Route::OsqueryConfig => self.osquery_config(call).await,
            Route::DistributedRead => self.distributed_read(call).await,
            Route::DistributedWrite => self.distributed_write(call).await,
            Route::OsqueryLog => self.osquery_log(call).await,
            Route::CarveBegin => self.carve_begin(call).await,
            Route::OrbitPing => json(&Nothing {}),
            Route::OrbitEnroll => self.orbit_enroll(call).await,
            Route::OrbitConfig => self.orbit_config(call).await,
            Route::ScriptRequest => self.script_request(call).await,
            Route::ScriptResult => self.script_result(call).await,
            Route::InstallDetails => self.install_details(call).await,
            Route::InstallPackage => self.install_package(call).await,
            Route::InstallResult => self.install_result(call).await,
            Route::DiskKey => self.disk_encryption_key(call).await,
            Route::LuksData => self.luks_data(call).await,
            Route::DeviceToken => self.device_token(call).await,
            // Handled before the body is read.
            _ => json(&Nothing {}),
        }
    }

    /// Reads the body. osqueryd compresses only logs, but any body may be compressed (FL §1.6).
    async fn read<B>(&self, route: Route, head: &Parts, body: B) -> Result<Content, Failure>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let (limit, inflated) = route.max_body();
        let coding = receive::coding(&head.headers)?;
        let bounds = Bounds { limit, timeout: BODY_TIMEOUT };
        let received = receive::read(&head.headers, body, bounds, &self.bodies).await?;
        let decoded = match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(self.bodies.inflate(&received, inflated)?),
        };
        Ok(Content { received, decoded })
    }

    /// Authenticates an agent by the key in the body or the header, and records that it was seen.
    async fn node(&self, call: &Call<'_>, key: &str, family: Family) -> Result<Arc<AgentEntry>, Failure> {
        let headers = &call.head.headers;
        // orbit sends its key in a form of its own.
        let in_header =
            headers::osquery_key(headers).or_else(|| headers::orbit_key(headers).filter(|_| self.options.push));
        let key = match in_header {
            // Two different keys: which of them counts would depend on the server (FL41).
            Some(header) if !key.is_empty() && header != key => return Err(Failure::invalid_key()),
            Some(header) => header,
            None => key,
        };
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(Failure::invalid_key());
        }
        let authentication = self.fleet.authentication();
        let entry = if self.options.push && family == Family::Osquery {
            authentication.osquery_or_orbit_key(key, self.certificate(call.peer)).await?
        } else {
            authentication.node_key(key, family, self.certificate(call.peer)).await?
        };
        call.peer.authenticated_as(&entry);
        Ok(entry)
    }

    /// Returns the client certificate of a connection, if it matters.
    fn certificate(&self, peer: &Peer) -> ClientCertificate {
        if self.options.binds_certificates { certificate::of(peer) } else { ClientCertificate::Irrelevant }
    }

    /// Authenticates an agent, and records that it was seen.
    async fn seen(&self, call: &Call<'_>, key: &str, family: Family) -> Result<Arc<AgentEntry>, Failure> {
        let entry = self.node(call, key, family).await?;
        let contact = Contact { address: &call.peer.ip(), ..Contact::default() };
        self.fleet.check_ins().contact(&entry, contact).await?;
        Ok(entry)
    }

    /// Records a failure, and returns its response.
    fn refuse(&self, plane: Plane, route: Option<Route>, failure: &Failure, head: &Parts, peer: &Client) -> Reply {
        let uuid = random_uuid(self.fleet.entropy());
        let (status, operation) = (failure.status, route.map_or("", Route::key));
        let cause = failure.cause.as_ref().map(tracing::field::display);
        if status.is_server_error() {
            tracing::error!(request = %uuid, status = status.as_u16(), operation, code = failure.reason, cause, "request failed");
        } else {
            tracing::debug!(request = %uuid, status = status.as_u16(), operation, code = failure.reason, cause, "request refused");
            self.note(route, failure, head, peer);
        }
        let body = failure.body(plane, &uuid);
        let mut reply = match plane {
            Plane::Page => device::html(status, &String::from_utf8_lossy(&body)),
            Plane::Push => plain_text(body),
            _ => json_bytes(body),
        };
        *reply.status_mut() = status;
        if let Some(wait) = failure.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            reply.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if let (StatusCode::METHOD_NOT_ALLOWED, Some(route)) = (status, route) {
            reply.headers_mut().insert(ALLOW, route.allow());
        }
        reply
    }

    /// Adds a refusal to those that administrators see.
    fn note(&self, route: Option<Route>, failure: &Failure, head: &Parts, peer: &Client) {
        let version = head.headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
        let refused = Refused {
            address: peer.ip(),
            key: peer.agent().map(ToString::to_string),
            version: String::from_utf8_lossy(version).into_owned(),
            operation: route.map_or("", Route::key),
            status: failure.status.as_u16(),
            reason: failure.reason,
            message: match &failure.cause {
                Some(cause) => format!("{}: {cause}", failure.message),
                None => failure.message.clone(),
            },
            remedy: failure::remedy(failure.reason),
            ..Refused::default()
        };
        self.fleet.refusals().note(refused, self.fleet.now());
    }
}

/// `{}`: the response of calls without a result. An empty body would do for osqueryd, but proxies send those too.
#[derive(Serialize)]
struct Nothing {}

/// Result of a call that has not failed.
enum Answered {
    Reply(Reply),
    Upgrade(Upgrade),
}

fn plain_text(body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(body.into().into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

fn json_bytes(body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(body.into().into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn no_content() -> Reply {
    let mut reply = Reply::new(Bytes::new().into());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

fn json<T: Serialize>(value: &T) -> Result<Reply, Failure> {
    let bytes = serde_json::to_vec(value).map_err(muster_core::Error::internal)?;
    Ok(json_bytes(bytes))
}
