//! The agent API: the Fleet Server protocol over HTTP (EA §1–§8).
//!
//! [`AgentApi::handle`] routes a request, applies the limits and calls the endpoint. Each endpoint has a file of its own:
//! it authenticates the caller, reads the body, calls one service of the fleet and converts the result. Checks run in the
//! protocol's sequence (EA §1.4): limits, path and method, `Elastic-Api-Version`, credentials, `User-Agent`, body.

pub mod accept_encoding;
mod acks;
mod action_data;
mod artifact;
mod audit_unenroll;
pub mod authorization;
mod body;
mod check_in;
mod enroll;
pub mod error;
mod file;
pub mod json;
pub mod limits;
mod pgp_key;
pub mod range;
mod refused;
mod remedy;
pub mod request_id;
mod respond;
pub mod route;
mod shares;
pub mod status;
pub mod strict_json;
pub mod upgrade;
mod upload;
mod user_agent;
mod version_header;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body::Body;
use muster_listen::receive::{self, BodyError, Bounds, Budget, Coding, Received};
use muster_protocol::elastic::status::ServerVersion;
use tokio::sync::Semaphore;

use self::artifact::ArtifactReads;
use self::error::ApiError;
use self::limits::{Limiter, Limits, Operation, Permit};
use self::request_id::RequestId;
use self::route::Route;
use self::shares::Shares;
use self::user_agent::{AcceptedVersion, RefusedVersion};
use muster_fleet::Fleet;
use muster_fleet::health::Health;
use muster_fleet::refusals::Refused;
use muster_fleet::upload_limits::UploadLimits;
use muster_listen::refusal::Refusal;
use muster_listen::reply::{Answer, Peer, Reply};

/// Memory budget of all large bodies. A body that is still arriving counts with its announced length or the limit of its
/// operation, a complete one with its size. Inflated bodies and copies that outlive the request count separately.
const BODIES_BUDGET: usize = 512 << 20;
/// Maximum number of files that are sent concurrently, each with a chunk in memory.
const STREAMS: usize = 64;
/// Maximum number of files that are sent to one agent concurrently, and of upload chunks that are received from it.
const STREAMS_OF_AGENT: usize = 4;
const CHUNKS_OF_AGENT: usize = 4;

/// Configuration of the adapter.
#[derive(Clone, Debug)]
pub struct AgentApiOptions {
    /// The listener's limits.
    pub limits: Limits,
    /// The state that `/api/status` reports, shared with the server.
    pub health: Health,
    /// The version that `/api/status` reports to callers with a valid key.
    pub version: ServerVersion,
    /// Limits of uploads.
    pub uploads: UploadLimits,
    /// The file with the PGP key that agents verify upgrades with.
    pub pgp_key: Option<PathBuf>,
}

impl Default for AgentApiOptions {
    fn default() -> Self {
        let version = ServerVersion {
            number: env!("CARGO_PKG_VERSION").into(),
            build_hash: String::new(),
            build_time: String::new(),
        };
        Self {
            limits: Limits::default(),
            health: Health::default(),
            version,
            uploads: UploadLimits::default(),
            pgp_key: None,
        }
    }
}

/// The adapter of one listener. Cheap to clone.
#[derive(Clone)]
pub struct AgentApi(Arc<Inner>);

struct Inner {
    fleet: Arc<Fleet>,
    limiter: Arc<Limiter>,
    options: AgentApiOptions,
    bodies: Budget,
    artifacts: ArtifactReads,
    streams: Arc<Semaphore>,
    agent_streams: Arc<Shares>,
    agent_chunks: Arc<Shares>,
}

/// A request, as endpoints receive it.
struct Call<'a, B> {
    head: &'a Parts,
    body: B,
    peer: &'a Peer,
    bounds: Bounds,
    bodies: &'a Budget,
    id: &'a RequestId,
    /// The slot in the operation's limits. An endpoint that parks takes it, so that it is held as long as the poll.
    permit: &'a mut Option<Permit>,
}

impl<B: Body<Data = Bytes, Error: Into<BodyError>>> Call<'_, B> {
    fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Reads the body, which must not be compressed. Only check-ins may be.
    async fn read(self) -> Result<Received, BodyError> {
        match receive::coding(self.headers())? {
            Coding::Identity => self.read_encoded().await,
            Coding::Gzip => Err(BodyError::Coding),
        }
    }

    /// Reads the body as received, without decompressing it.
    async fn read_encoded(self) -> Result<Received, BodyError> {
        receive::read(&self.head.headers, self.body, self.bounds, self.bodies).await
    }

    /// Reads the body as received, of at most `limit` bytes or the operation's limit, whichever is lower.
    async fn read_up_to(mut self, limit: usize) -> Result<Received, BodyError> {
        self.bounds.limit = self.bounds.limit.min(limit);
        self.read_encoded().await
    }
}

impl AgentApi {
    /// Creates an adapter with limits of its own.
    pub fn new(fleet: Arc<Fleet>, options: AgentApiOptions) -> Self {
        let limiter = Limiter::new(options.limits.clone());
        Self(Arc::new(Inner {
            fleet,
            limiter,
            options,
            bodies: Budget::new(BODIES_BUDGET),
            artifacts: ArtifactReads::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            agent_streams: Shares::new(STREAMS_OF_AGENT),
            agent_chunks: Shares::new(CHUNKS_OF_AGENT),
        }))
    }

    /// Returns the number of running requests of `operation`, including parked ones.
    pub fn running(&self, operation: Operation) -> usize {
        self.0.limiter.running(operation)
    }

    /// Records a client that the connection layer refused.
    pub fn note(&self, refusal: &Refusal, peer: &Peer) {
        let (reason, message) = (refusal.reason(), refusal.to_string());
        let status = match refusal {
            // These connections are closed without a response, so there is no status.
            Refusal::Handshake(_)
            | Refusal::TooManyConnections
            | Refusal::TooManyIdle
            | Refusal::Displaced
            | Refusal::SentAhead => 0,
            Refusal::ProxyProtocol if peer.tls => 0,
            refusal => refusal.status().as_u16(),
        };
        let refused = Refused { reason, message, status, remedy: remedy::of(reason), ..refused::from(refusal, peer) };
        self.0.fleet.refusals().note(refused, self.0.fleet.now());
    }

    /// Returns the response to a request that the connection layer refuses. Its path and API version are unknown.
    pub fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply {
        self.note(refusal, peer);
        // The head was not read completely, so there is no id to echo, and no version that could be checked.
        let id = RequestId::of(&HeaderMap::new(), self.0.fleet.entropy());
        let reply = match refusal {
            Refusal::Full => respond::full(),
            _ => respond::failure(ApiError::refused(refusal), &id),
        };
        respond::finish(reply, &id, false)
    }

    /// Handles one request.
    pub fn handle<B>(&self, request: Request<B>, peer: Peer) -> impl Future<Output = Handled> + Send + use<B>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        Arc::clone(&self.0).serve(request, peer)
    }
}

/// Records that a request carried an agent's valid key.
fn authenticated(peer: &Peer, head: &Parts) {
    peer.set_authenticated();
    peer.set_key(|| Some(authorization::api_key(&head.headers).ok()?.id.as_str().into()));
}

/// Allocates the future of an endpoint separately. Otherwise every check-in would have the size of the largest one.
fn boxed<'a, T>(work: impl Future<Output = T> + Send + 'a) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(work)
}

/// Result of a request.
pub struct Handled {
    /// The requested operation; `None` for an unknown path.
    pub operation: Option<Operation>,
    /// Why the request was refused, if it was.
    pub refused: Option<&'static str>,
    /// The response, or the parked poll.
    pub answer: Answer,
}

/// Reason why a poll was refused while it was held. An extension of its response, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedWhileHeld(pub &'static str);

/// How far a request came through the checks before its endpoint.
#[derive(Default)]
struct Passage {
    operation: Option<Operation>,
    permit: Option<Permit>,
    /// Whether the API version was checked, so that the response has its header.
    versioned: bool,
    /// Why the request is refused, where there is no [`ApiError`].
    refused: Option<&'static str>,
}

impl Inner {
    async fn serve<B>(self: Arc<Self>, request: Request<B>, peer: Peer) -> Handled
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let (head, body) = request.into_parts();
        let id = RequestId::of(&head.headers, self.fleet.entropy());
        let mut passage = Passage::default();
        let answer = self.dispatch(&head, body, &peer, &id, &mut passage).await;
        let Passage { operation, versioned, refused, .. } = passage;
        let (reply, refused, message) = match answer {
            Ok(Answer::Reply(reply)) => (reply, refused, String::new()),
            // Only check-ins are parked, and only after the agent has authenticated.
            Ok(parked) => {
                authenticated(&peer, &head);
                return Handled { operation, refused, answer: parked };
            }
            Err(error) => {
                let refused = refused::reason(&error);
                let message = refused.map(|_| error.text().to_owned());
                (respond::failure(error, &id), refused, message.unwrap_or_default())
            }
        };
        // Requests that never became an `ApiError` (unknown path, wrong method) have their reason in the passage.
        if let Some(reason) = refused {
            let (status, seen) = (reply.status().as_u16(), refused::describe(&head, &peer, operation));
            // Recorded once here for all endpoints, so that no refusal can be forgotten.
            let refused = Refused { status, reason, message, remedy: remedy::of(reason), ..seen };
            self.fleet.refusals().note(refused, self.fleet.now());
        }
        match operation.filter(|_| reply.status().is_success()) {
            // Without the key: many hosts share an enrollment key. With its next request, each of them has its own.
            Some(Operation::Enroll) => peer.set_authenticated(),
            Some(operation) if operation.asks_for_key() => authenticated(&peer, &head),
            _ => {}
        }
        Handled { operation, refused, answer: respond::finish(reply, &id, versioned).into() }
    }

    /// Makes the checks before an endpoint, in the order of EA §1.4, and calls it.
    async fn dispatch<B>(
        &self,
        head: &Parts,
        body: B,
        peer: &Peer,
        id: &RequestId,
        passage: &mut Passage,
    ) -> Result<Answer, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let Some(route) = Route::of(head.uri.path()) else {
            passage.refused = Some("NoSuchPath");
            return Ok(respond::not_found().into());
        };
        let operation = route.operation();
        passage.operation = Some(operation);
        // Before credentials are checked (EA §1.4): a request over the limit costs no hash and no read of the store.
        passage.permit = Some(self.limiter.admit(operation, Instant::now())?);
        if !route.takes(&head.method) {
            passage.refused = Some("MethodNotAllowed");
            return Ok(respond::method_not_allowed(route.allow()).into());
        }
        // Set before the check, so that the response to an unsupported version contains the supported one.
        passage.versioned = true;
        version_header::check(&head.headers)?;
        let limits = self.limiter.limits();
        let bounds = Bounds { limit: limits.body(operation), timeout: limits.read_timeout(operation) };
        let permit = &mut passage.permit;
        self.endpoint(route, Call { head, body, peer, bounds, bodies: &self.bodies, id, permit }).await
    }

    async fn endpoint<B>(&self, route: Route<'_>, call: Call<'_, B>) -> Result<Answer, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let status = self.fleet.server_status();
        let work = match &route {
            // Not boxed like the others: check-ins arrive thousands of times per second, and a box is an allocation. They
            // have deadlines of their own while the database does not respond.
            Route::CheckIn(id) => return self.check_in(id, call).await,
            Route::Status => return Ok(boxed(self.status(call.headers())).await.into()),
            Route::Acks(id) => boxed(self.acks(id, call)),
            Route::Enroll => boxed(self.enroll(call)),
            Route::AuditUnenroll(id) => boxed(self.audit_unenroll(id, call)),
            Route::Artifact(id, sha2) => boxed(self.artifact(id, sha2, call.headers())),
            Route::UploadBegin => boxed(self.upload_begin(call)),
            Route::UploadChunk(id, number) => boxed(self.upload_chunk(id, number, call)),
            Route::UploadComplete(id) => boxed(self.upload_complete(id, call)),
            Route::File(id) => boxed(self.file(id, call.head)),
            Route::PgpKey(version) => boxed(self.pgp_key(version, call.peer)),
        };
        status.unless_silent(work).await.map_err(ApiError::from).flatten().map(Answer::Reply)
    }

    /// Returns the version in the `User-Agent`. A missing header is refused like an empty one (D19).
    fn agent_version(&self, headers: &HeaderMap) -> Result<AcceptedVersion, ApiError> {
        let accepted = self.fleet.settings().accepted_versions();
        let header = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        user_agent::check(&accepted, header).map_err(|refused| {
            ApiError::of(match refused {
                RefusedVersion::Invalid => "InvalidUserAgent",
                RefusedVersion::Unsupported => "UnsupportedVersion",
            })
        })
    }
}
