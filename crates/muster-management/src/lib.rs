//! The REST API under `/api/fleet` and `/api/v1` (and `/s/{space}/api/…`), for people, scripts and the command line.
//!
//! [`entry`] admits a request (caller, space, API version), [`endpoints`] is the table of all routes, and each other module
//! contains the handlers of one resource. A handler extracts its parameters, calls one service of [`muster_fleet`], and
//! converts the result.

mod action_convert;
mod action_query;
mod action_requests;
mod action_routes;
mod agent_action_routes;
mod agent_policies;
mod agent_routes;
mod alerts;
mod answer;
mod audit;
mod backups;
pub mod base_path;
mod body;
mod bulk_routes;
mod ca;
mod carves;
mod changes;
mod convert;
pub mod credentials;
pub mod cursor;
mod disk_keys;
pub mod endpoints;
mod enrollment_keys;
pub mod entry;
pub mod error;
mod event_stream;
mod files;
mod fleetd_options;
pub mod form;
mod host_checks;
mod hosts;
mod idempotency;
pub mod identity;
mod installers;
mod installs;
mod inventory;
pub mod kql;
mod labels;
mod live_queries;
mod message_signing;
pub mod multipart;
mod network_objects;
mod nodes;
mod object_fields;
pub mod openapi;
mod outputs;
mod packages;
mod packs;
mod policy_convert;
mod query;
mod recovery_codes;
mod refused;
mod respond;
mod rollouts;
mod saved_queries;
pub mod scripts;
pub mod selector;
pub mod server_status;
mod settings;
mod setup;
mod software;
mod uninstall_tokens;
mod web_socket;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use identity::device_page;
use tower::Layer as _;
use tower::util::BoxCloneSyncService;

use muster_fleet::Fleet;

/// Creates the router of the management API. The connection's [`muster_listen::reply::Peer`] must be in the request's
/// extensions.
pub fn management_router(fleet: Arc<Fleet>) -> Router {
    let enter = axum::middleware::from_fn_with_state(Arc::clone(&fleet), entry::enter);
    let inside = BoxCloneSyncService::new(enter.layer(endpoints::router(Arc::clone(&fleet))));
    Router::new()
        // Outside of `entry`: clients ask for the status before they authenticate.
        .route("/api/status", get(server_status::get))
        .route("/s/{space}/api/status", get(server_status::get))
        // A page for browsers that people open on behalf of a device.
        .route(device_page::PATH, get(device_page::show).post(device_page::act))
        // A fallback instead of a wildcard route, whose match would appear among the parameters of the inner routes.
        .fallback_service(inside)
        .with_state(fleet)
}
