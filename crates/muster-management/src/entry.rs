//! Entry of a request: its space, its caller and its API version. Inner routes see paths below `/api/fleet`.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use muster_core::authorization::{Actor, OpContext};
use muster_core::id::SpaceId;
use muster_core::{Error, ErrorKind};
use muster_protocol::management::envelope::API_VERSION;

use super::error::{ApiError, ApiResult};
use muster_fleet::Fleet;
use muster_listen::reply::{ListenerKind, Peer};

const VERSION_HEADER: &str = "elastic-api-version";
/// The only space until spaces can be created.
const DEFAULT_SPACE: &str = "default";

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

/// Admits a request, or returns the error.
pub async fn enter(State(_fleet): State<Arc<Fleet>>, mut request: Request, next: Next) -> Response {
    match admit(&mut request) {
        Ok(()) => versioned(next.run(request).await),
        Err(error) => versioned(error.into_response()),
    }
}

fn admit(request: &mut Request) -> ApiResult<()> {
    // A path outside the API is reported as such even to unauthenticated clients: it reveals nothing.
    let (space, inner) = split_path(request.uri())?;
    // Authentication comes before the version and the space, so that an unauthenticated client learns nothing about them.
    let context = authenticate(request.extensions().get::<Peer>())?;
    check_version(request.headers().get(VERSION_HEADER))?;
    if space != DEFAULT_SPACE {
        return Err(Error::not_found("space", space).into());
    }
    *request.uri_mut() = inner;
    // axum keeps path parameters in the extensions; those of the outer route must not be visible to the inner one.
    let peer = request.extensions_mut().remove::<Peer>();
    request.extensions_mut().clear();
    peer.and_then(|peer| request.extensions_mut().insert(peer));
    request.extensions_mut().insert(context.in_space(SpaceId::trusted(space)));
    Ok(())
}

/// Returns the space, and the URI without `/s/{space}` and `/api/fleet`.
fn split_path(uri: &Uri) -> Result<(String, Uri), Error> {
    let path = uri.path();
    // `//` would become an empty id or hide the prefix, and then match a route that was not requested.
    if path.contains("//") {
        return Err(Error::not_found("path", path));
    }
    let (space, rest) = match path.strip_prefix("/s/").and_then(|rest| rest.split_once('/')) {
        // Whether the space exists is checked after authentication.
        Some((space, rest)) => (space, rest),
        None => (DEFAULT_SPACE, path.trim_start_matches('/')),
    };
    let inner = rest
        .strip_prefix("api/fleet")
        .filter(|inner| inner.is_empty() || inner.starts_with('/'))
        .ok_or_else(|| Error::not_found("path", path))?;
    let inner = if inner.is_empty() { "/" } else { inner };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let inner: PathAndQuery = format!("{inner}{query}").parse().map_err(|_| Error::not_found("path", path))?;
    Ok((space.to_owned(), Uri::from(inner)))
}

/// Identifies the caller. Root and the server's own user are administrators, over the socket only. There are no users and
/// tokens yet.
fn authenticate(peer: Option<&Peer>) -> Result<OpContext, Error> {
    let uid = peer.filter(|peer| peer.listener == ListenerKind::Socket).and_then(|peer| peer.uid);
    match uid {
        // The accept loop has checked this too. Repeated, because this decides about privileges.
        Some(uid) if uid == 0 || uid == nix::unistd::Uid::effective().as_raw() => {
            Ok(OpContext::administrator(Actor::Local { uid }))
        }
        Some(uid) => {
            let message = format!("user {uid} of this host is not an administrator");
            Err(Error::new(ErrorKind::Forbidden, "not_an_administrator", message)
                .remedy("run as root or as the server's own user"))
        }
        None => Err(Error::new(
            ErrorKind::Unauthenticated,
            "unauthenticated",
            "this address does not accept credentials yet",
        )
        .remedy("use the socket admin.sock in the server's data directory, as root or as the server's own user")),
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
        for odd in [
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
    fn only_root_and_the_server_user_are_administrators_on_the_socket() {
        let own = nix::unistd::Uid::effective().as_raw();
        for uid in [0, own] {
            assert!(authenticate(Some(&peer(ListenerKind::Socket, Some(uid)))).is_ok());
        }
        let other_user = authenticate(Some(&peer(ListenerKind::Socket, Some(own + 12_345))));
        assert_eq!(other_user.unwrap_err().kind, ErrorKind::Forbidden);
        for nobody in [None, Some(&peer(ListenerKind::Admin, Some(0))), Some(&peer(ListenerKind::Socket, None))] {
            assert_eq!(authenticate(nobody).unwrap_err().kind, ErrorKind::Unauthenticated);
        }
    }
}
