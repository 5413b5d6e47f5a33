//! FleetDM's REST API under `/api/v1/fleet` and `/api/latest/fleet`, for scripts and tools such as `fleetctl`.
//!
//! [`entry`] authenticates a request, [`routes`] is the table of all routes, and each other module contains the handlers of one
//! resource. A handler calls the services that Muster's own API calls, with the same privileges, and converts the result into
//! FleetDM's format. Spaces are teams: the default space is "no team". A host of this API is a machine with osquery. Ids are
//! integers, which are derived from Muster's ([`muster_core::fleetd::numbers`]).

mod campaigns;
pub mod entry;
pub mod failure;
mod host_acts;
mod host_inventory;
mod host_json;
mod host_query;
mod host_stream;
mod hosts;
mod labels;
mod pack_specs;
mod packs;
pub mod params;
mod policies;
mod queries;
pub mod routes;
mod secrets;
mod session;
mod software;
mod specs;
mod targets;
mod teams;
pub mod websocket;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use muster_fleet::Fleet;
use tower::Layer as _;
use tower::util::BoxCloneSyncService;

use self::failure::{DOCS, Failure};

/// Versions of the API that clients name in paths. All of them are the same.
pub const VERSIONS: [&str; 3] = ["v1", "latest", "2022-04"];
/// Maximum length of a body, bytes.
const MAX_BODY: usize = 1 << 20;

/// Creates the router of the API. The connection's [`Peer`](muster_listen::reply::Peer) must be in the request's extensions.
pub fn fleetdm_router(fleet: &Arc<Fleet>) -> Router {
    let inner = routes::all().into_iter().fold(Router::new(), |router, one| router.route(one.path, one.handler));
    let inner = inner
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::clone(fleet));
    // Around the router, and not in it: the entry changes the path.
    let inner = BoxCloneSyncService::new(from_fn_with_state(Arc::clone(fleet), entry::enter).layer(inner));
    VERSIONS
        .iter()
        .fold(Router::new(), |router, version| router.nest_service(&format!("/api/{version}/fleet"), inner.clone()))
}

async fn no_such_route(uri: Uri) -> Failure {
    Failure::no_such_route(&uri)
}

async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let reason = format!("{} does not support {method} ({DOCS})", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", reason)
}
