//! Refused requests, as operators see them: who came, with what, and what to do about it.

use http::HeaderValue;
use http::header::USER_AGENT;
use http::request::Parts;
use muster_fleet::refusals::Refused;
use muster_listen::reply::Peer;

use crate::authorization;
use crate::error::ApiError;
use crate::limits::Operation;
use crate::route::Route;

/// Why operators hear of the error; `None` when they don't: faults of ours are logged as such, and a second notice of
/// the same departure (409) is part of the protocol.
pub fn reason(error: &ApiError) -> Option<&'static str> {
    let status = error.status().as_u16();
    (status < 500 && status != 409).then(|| error.reason())
}

/// A refusal of which only the peer is known.
pub fn from(peer: &Peer) -> Refused {
    Refused { address: peer.ip(), key: peer.key().map(ToString::to_string), ..Refused::default() }
}

/// What is known of a refused request but the refusal itself.
pub fn describe(head: &Parts, peer: &Peer, operation: Option<Operation>) -> Refused {
    let agent = match Route::of(head.uri.path()) {
        Some(Route::CheckIn(id) | Route::Acks(id) | Route::AuditUnenroll(id)) => Some(id.into_owned()),
        _ => None,
    };
    let version = head.headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    Refused {
        agent,
        key: authorization::api_key(&head.headers).ok().map(|key| key.id.to_string()),
        version: String::from_utf8_lossy(version).into_owned(),
        operation: operation.map_or("", Operation::key),
        ..from(peer)
    }
}
