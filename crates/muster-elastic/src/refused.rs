//! Describes refused requests for operators: the client, what it sent, and the remedy.

use http::HeaderValue;
use http::header::USER_AGENT;
use http::request::Parts;
use muster_fleet::refusals::Refused;
use muster_listen::refusal::Refusal;
use muster_listen::reply::Peer;

use crate::authorization;
use crate::error::ApiError;
use crate::limits::Operation;
use crate::route::Route;

/// Code of the only error that agents take for a failure of the server although it concerns the agent.
const AFTER_BACKUP: &str = "EnrolledAfterBackup";

/// Returns the reason that operators see for an error, or `None` if the error is not recorded as a refusal: errors of
/// the server are logged as such, and 409 for a repeated audit report is part of the protocol.
pub fn reason(error: &ApiError) -> Option<&'static str> {
    let status = error.status().as_u16();
    let is_of_the_agent = status < 500 || error.code() == AFTER_BACKUP;
    (is_of_the_agent && status != 409).then(|| error.reason())
}

/// Creates a refusal by the connection layer with what is known about the client.
pub fn from(refusal: &Refusal, peer: &Peer) -> Refused {
    // Other requests of a connection need not be of the agent whose key one of them had: proxies share connections.
    let is_of_key = matches!(refusal, Refusal::TooManyIdle | Refusal::SentAhead);
    let key = peer.key().filter(|_| is_of_key).map(ToString::to_string);
    Refused { address: peer.ip(), key, ..Refused::default() }
}

/// Creates a refusal with everything that is known about the request. The caller adds the reason.
pub fn describe(head: &Parts, peer: &Peer, operation: Option<Operation>) -> Refused {
    // Nothing here is authenticated. It tells operators which agent or proxy to look at.
    let agent = match Route::of(head.uri.path()) {
        Some(Route::CheckIn(id) | Route::Acks(id) | Route::AuditUnenroll(id)) => Some(id.into_owned()),
        _ => None,
    };
    // Lossy: operators should see what was sent, even if it is not UTF-8.
    let version = head.headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    Refused {
        agent,
        key: authorization::api_key(&head.headers).ok().map(|key| key.id.to_string()),
        version: String::from_utf8_lossy(version).into_owned(),
        operation: operation.map_or("", Operation::key),
        address: peer.ip(),
        ..Refused::default()
    }
}
