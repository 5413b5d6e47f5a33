//! Entry of a request: its space, its caller and its API version. Inner routes see paths below `/api/fleet`, and `/v1/…` for
//! paths below `/api/v1`.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use muster_core::authorization::{Actor, OpContext};
use muster_core::error::STORE_UNAVAILABLE;
use muster_core::id::SpaceId;
use muster_core::{Error, ErrorKind};
use muster_fleet::identity::sign_in::Presented;
use muster_fleet::refusals::Refused;
use muster_protocol::management::envelope::API_VERSION;
use percent_encoding::percent_decode_str;

use super::credentials;
use super::endpoints::{self, Needs};
use super::error::{ApiError, ApiResult};
use super::query::is_dry_run;
use muster_fleet::Fleet;
use muster_listen::reply::{ListenerKind, Peer};

const VERSION_HEADER: &str = "elastic-api-version";
/// Header with the reason for a change, which goes into the audit log. Percent-encoded, because headers are ASCII.
const REASON_HEADER: &str = "muster-reason";
/// Maximum length of a reason, bytes.
const MAX_REASON: usize = 500;
/// The space of paths without one.
const DEFAULT_SPACE: &str = "default";
/// Beginning of paths with a space.
const SPACES: &str = "/s/";
/// Beginning of inner paths of `/api/v1`.
const V1: &str = "/v1";

/// Endpoints that need no credentials.
static PUBLIC: LazyLock<Vec<(Method, &'static str)>> = LazyLock::new(|| {
    let all = endpoints::all().into_iter();
    all.filter(|one| one.needs == Needs::Nothing).map(|one| (one.method, one.path)).collect()
});

/// The caller's context. Every handler takes it as an argument, since services can't be called without it.
pub struct Caller(pub OpContext);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // Missing only if a route was added outside of `enter`; it then fails closed.
        let context = parts.extensions.get::<OpContext>().cloned();
        context.map(Self).ok_or_else(|| ApiError(Error::internal("a route outside the entry")))
    }
}

/// Whether the path of a request names a space. Only the audit log, whose events need not belong to one, makes a difference between the default
/// space and none.
#[derive(Clone, Copy, Debug)]
pub struct NamesSpace(pub bool);

impl<S: Send + Sync> FromRequestParts<S> for NamesSpace {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let found = parts.extensions.get::<Self>().copied();
        found.ok_or_else(|| ApiError(Error::internal("a route outside the entry")))
    }
}

/// The connection of a request, also of one without a caller.
#[derive(Clone, Debug)]
pub struct Connection(Option<Peer>);

impl Connection {
    /// The connection with a peer.
    pub fn of(peer: Option<Peer>) -> Self {
        Self(peer)
    }

    /// The address of the client; `None` for a user of this host.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.as_ref()?.address.map(|address| address.ip())
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.as_ref().is_some_and(|peer| peer.tls)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Connection {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.get::<Peer>().cloned()))
    }
}

/// The credentials of a request, for responses that outlive it.
#[derive(Clone)]
pub struct Credentials {
    /// `None` for a user of this host.
    presented: Option<Arc<Presented>>,
    address: Option<IpAddr>,
}

impl Credentials {
    /// Whether verifying them takes long.
    pub fn are_costly(&self) -> bool {
        matches!(self.presented.as_deref(), Some(Presented::Password(..)))
    }

    /// Verifies them again, and returns the context of the caller with its present entitlements.
    pub async fn renewed(&self, fleet: &Fleet, context: &OpContext) -> Result<OpContext, Error> {
        let Some(presented) = &self.presented else { return Ok(context.clone()) };
        fleet.sign_in().authenticate(presented, context.space(), self.address).await
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Credentials {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| ApiError(Error::internal("a route outside the entry, or without credentials")))
    }
}

/// Admits a request, or returns the error.
pub async fn enter(State(fleet): State<Arc<Fleet>>, mut request: Request, next: Next) -> Response {
    match admit(&fleet, &mut request).await {
        Ok(()) => versioned(next.run(request).await),
        Err(error) => versioned(error.into_response()),
    }
}

async fn admit(fleet: &Fleet, request: &mut Request) -> ApiResult<()> {
    // A path outside the API is reported as such even to unauthenticated clients: it reveals nothing.
    let (space, inner) = split_path(request.uri())?;
    let names_space = NamesSpace(request.uri().path().starts_with(SPACES));
    let is_public = PUBLIC.iter().any(|(method, path)| method == request.method() && is_route(path, inner.path()));
    let connection = Connection(request.extensions_mut().remove::<Peer>());
    // Authentication comes before the version and the space, so that an unauthenticated client learns nothing about them.
    let context = match is_public {
        true => None,
        false => Some(authenticate(fleet, &connection, request.method(), request.headers(), &space).await?),
    };
    check_version(request.headers().get(VERSION_HEADER))?;
    let reason = reason(request.headers())?;
    // Read here for every route: services skip their commit if the context is one of a dry run.
    let dry_run = is_dry_run(&inner)?;
    *request.uri_mut() = inner;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    // axum keeps path parameters in the extensions; those of the outer route must not be visible to the inner one.
    request.extensions_mut().clear();
    request.extensions_mut().insert(names_space);
    if let Some(upgrade) = upgrade {
        request.extensions_mut().insert(upgrade);
    }
    if let Some((context, credentials)) = context {
        request.extensions_mut().insert(credentials);
        let address = connection.ip().map(|ip| ip.to_string().into());
        request.extensions_mut().insert(context.coming_from(address, reason).trying(dry_run));
    }
    if let Connection(Some(peer)) = connection {
        request.extensions_mut().insert(peer);
    }
    Ok(())
}

/// Returns whether a path is one of a route, whose parameters stand for any segment that is not empty.
fn is_route(route: &str, path: &str) -> bool {
    let (mut route, mut path) = (route.split('/'), path.split('/'));
    loop {
        match (route.next(), path.next()) {
            (None, None) => return true,
            (Some(expected), Some(found)) if expected == found => {}
            (Some(expected), Some(found)) if expected.starts_with('{') && !found.is_empty() => {}
            _ => return false,
        }
    }
}

/// Returns the space, and the inner URI: without `/s/{space}`, and without `/api/fleet` or `/api`.
fn split_path(uri: &Uri) -> Result<(String, Uri), Error> {
    let path = uri.path();
    let unknown = || Error::not_found("path", path);
    // `//` would become an empty id or hide the prefix, and then match a route that was not requested.
    if path.contains("//") {
        return Err(unknown());
    }
    let (space, rest) = match path.strip_prefix(SPACES).and_then(|rest| rest.split_once('/')) {
        // Whether the space exists is checked after authentication.
        Some((space, rest)) => (space, rest),
        None => (DEFAULT_SPACE, path.trim_start_matches('/')),
    };
    let is_below = |inner: &str, prefix: &str| {
        inner.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let inner = match rest.strip_prefix("api/fleet") {
        // `/api/fleet/v1/…` is no other name of `/api/v1/…`.
        Some(inner) if is_below(inner, "") && !is_below(inner, V1) => inner,
        Some(_) => return Err(unknown()),
        None => rest.strip_prefix("api").filter(|inner| is_below(inner, V1)).ok_or_else(unknown)?,
    };
    let inner = if inner.is_empty() { "/" } else { inner };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let inner: PathAndQuery = format!("{inner}{query}").parse().map_err(|_| unknown())?;
    Ok((space.to_owned(), Uri::from(inner)))
}

/// Identifies the caller: by its credentials, else by the user of this host at the other end of the socket.
async fn authenticate(
    fleet: &Fleet,
    connection: &Connection,
    method: &Method,
    headers: &HeaderMap,
    space: &str,
) -> Result<(OpContext, Credentials), Error> {
    let no_space = || Error::not_found("space", space);
    let refused = |shown: &str, error: &Error| record_refusal(fleet, connection, headers, shown, error);
    let presented = credentials::presented(headers, fleet.accepts_basic());
    let presented = presented.inspect_err(|error| refused("", error))?;
    let Some(presented) = presented else {
        let context = local(connection.0.as_ref())?;
        let space = SpaceId::parse(space).map_err(|_| no_space())?;
        let exists = fleet.spaces().exists(&space).await?;
        let local_credentials = Credentials { presented: None, address: None };
        return if exists { Ok((context.in_space(space), local_credentials)) } else { Err(no_space()) };
    };
    let is_change = !matches!(*method, Method::GET | Method::HEAD);
    if matches!(presented, Presented::Session(_)) && is_change {
        credentials::check_same_origin(headers)?;
    }
    // A malformed id is that of no space, and is reported like one after the credentials were verified.
    let parsed = SpaceId::parse(space).ok();
    let found = fleet.sign_in().authenticate(&presented, &parsed.clone().unwrap_or_default(), connection.ip()).await;
    let context = found.inspect_err(|error| refused(&presented.shown(), error))?;
    if let Some(peer) = &connection.0 {
        peer.set_authenticated();
    }
    let credentials = Credentials { presented: Some(Arc::new(presented)), address: connection.ip() };
    if parsed.is_some() { Ok((context, credentials)) } else { Err(no_space()) }
}

/// Makes rejected credentials visible to administrators.
pub fn record_refusal(fleet: &Fleet, connection: &Connection, headers: &HeaderMap, shown: &str, error: &Error) {
    let status = match error.kind {
        ErrorKind::Unauthenticated => 401,
        ErrorKind::TooMany => 429,
        // An OpenID provider that does not work, or every place for logins taken.
        ErrorKind::Unavailable if error.code != STORE_UNAVAILABLE => 503,
        // Everything else is no matter of the credentials.
        _ => return,
    };
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    fleet.refusals().note(
        Refused {
            address: connection.ip().map(|ip| ip.to_string()).unwrap_or_default(),
            agent: None,
            key: Some(shown.to_owned()).filter(|shown| !shown.is_empty()),
            version: agent.unwrap_or_default().to_owned(),
            operation: "management",
            status,
            reason: error.code,
            message: error.message.clone(),
            remedy: "",
        },
        fleet.now(),
    );
}

fn reason(headers: &HeaderMap) -> Result<Option<Arc<str>>, Error> {
    let Some(value) = headers.get(REASON_HEADER) else { return Ok(None) };
    let malformed = || Error::invalid(REASON_HEADER, "must be percent-encoded UTF-8");
    let text = percent_decode_str(value.to_str().map_err(|_| malformed())?).decode_utf8().map_err(|_| malformed())?;
    Ok(checked_reason(Some(&text))?.map(Arc::from))
}

/// Checks a reason for the audit log. An empty one counts as none.
pub fn checked_reason(text: Option<&str>) -> Result<Option<&str>, Error> {
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    if text.is_some_and(|text| text.len() > MAX_REASON || text.chars().any(char::is_control)) {
        return Err(Error::invalid(
            "reason",
            format!("must have at most {MAX_REASON} bytes and no control characters"),
        ));
    }
    Ok(text)
}

/// Identifies a user of this host. Root and the server's own user are administrators, over the socket only.
fn local(peer: Option<&Peer>) -> Result<OpContext, Error> {
    let uid = peer.filter(|peer| peer.listener == ListenerKind::Socket).and_then(|peer| peer.uid);
    match uid {
        // The accept loop has checked this too. Repeated, because this decides about privileges.
        Some(uid) if uid == 0 || uid == nix::unistd::Uid::effective().as_raw() => {
            Ok(OpContext::administrator(Actor::Local { uid }))
        }
        Some(uid) => {
            let message = format!("user {uid} of this host is not an administrator");
            Err(Error::new(ErrorKind::Forbidden, "not_an_administrator", message)
                .remedy("run as root or as the server's own user, or use an API token"))
        }
        None => Err(Error::new(ErrorKind::Unauthenticated, "unauthenticated", "this request requires credentials").remedy(
            "send an API token: Authorization: ApiKey …; or use the socket admin.sock in the server's data directory, as \
             root or as the server's own user",
        )),
    }
}

fn check_version(header: Option<&HeaderValue>) -> Result<(), Error> {
    match header {
        None => Ok(()),
        Some(version) if version == API_VERSION => Ok(()),
        Some(version) => {
            // A header may contain any bytes; an error message must not.
            let shown = version.to_str().unwrap_or("?");
            Err(Error::invalid(VERSION_HEADER, format!("unknown version {shown:?}; supported: {API_VERSION:?}")))
        }
    }
}

// Errors carry the version too, so that a client that sent an unknown one learns the supported one.
fn versioned(mut response: Response) -> Response {
    response.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(API_VERSION));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(listener: ListenerKind, uid: Option<u32>) -> Peer {
        Peer { uid, ..Peer::new(listener) }
    }

    #[test]
    fn paths_are_split_into_space_and_route() {
        let split = |uri: &str| split_path(&uri.parse().unwrap()).unwrap();
        assert_eq!(split("/api/fleet/agents?page=1"), ("default".into(), "/agents?page=1".parse().unwrap()));
        assert_eq!(split("/s/blue/api/fleet/agents/x%20y"), ("blue".into(), "/agents/x%20y".parse().unwrap()));
        assert_eq!(split("/api/v1/users"), ("default".into(), "/v1/users".parse().unwrap()));
        assert_eq!(split("/s/blue/api/v1/session"), ("blue".into(), "/v1/session".parse().unwrap()));
        for odd in [
            "/api/fleet/v1/users",
            "/api/fleet/v1",
            "/api/v2/users",
            "/api/v1users",
            "/api",
            "/s/default//agents",
            "/s/default/agents",
            "/s//api/fleet/agents",
            "/api/fleet//agents",
            "/api/fleetagents",
            "/agents",
            "/s/default/api/fleet/agents//x",
        ] {
            assert!(split_path(&odd.parse().unwrap()).is_err(), "{odd}");
        }
    }

    #[test]
    fn parameters_of_public_routes_stand_for_one_segment() {
        let route = "/v1/login/oidc/{provider}";
        assert!(is_route(route, "/v1/login/oidc/corp") && is_route("/v1/setup", "/v1/setup"));
        for other in ["/v1/login/oidc", "/v1/login/oidc/", "/v1/login/oidc/a/b", "/v1/login/x/corp", "/v1/users"] {
            assert!(!is_route(route, other), "{other}");
        }
    }

    #[test]
    fn only_root_and_the_server_user_are_administrators_on_the_socket() {
        let own = nix::unistd::Uid::effective().as_raw();
        for uid in [0, own] {
            assert!(local(Some(&peer(ListenerKind::Socket, Some(uid)))).is_ok());
        }
        let other_user = local(Some(&peer(ListenerKind::Socket, Some(own + 12_345))));
        assert_eq!(other_user.unwrap_err().kind, ErrorKind::Forbidden);
        for nobody in [None, Some(&peer(ListenerKind::Admin, Some(0))), Some(&peer(ListenerKind::Socket, None))] {
            assert_eq!(local(nobody).unwrap_err().kind, ErrorKind::Unauthenticated);
        }
    }
}
