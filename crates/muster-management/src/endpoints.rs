//! The table of all endpoints. The router is built from it, and a test checks for each entry that unauthenticated requests
//! are rejected: an endpoint can't be added without that check.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{self, MethodRouter};

use super::error::http_error;
use super::{
    action_routes, agent_action_routes, agent_policies, agent_routes, audit, backups, bulk_routes, enrollment_keys,
    files, nodes, outputs, refused, respond, rollouts,
};
use muster_fleet::Fleet;

/// Maximum length of a JSON body, bytes.
const MAX_BODY: usize = 8 << 20;

/// A route.
pub struct Endpoint {
    /// The method.
    pub method: Method,
    /// The path below `/api/fleet`.
    pub path: &'static str,
    handler: MethodRouter<Arc<Fleet>>,
}

macro_rules! methods {
    ($($name:ident $method:ident)*) => {
        impl Endpoint {
            $(
                #[doc = concat!("A ", stringify!($method), ".")]
                pub fn $name<H, T>(path: &'static str, handler: H) -> Self
                where
                    H: Handler<T, Arc<Fleet>>,
                    T: 'static,
                {
                    Self { method: Method::$method, path, handler: routing::$name(handler) }
                }
            )*
        }
    };
}

methods!(get GET post POST put PUT delete DELETE);

impl Endpoint {
    /// Sets the maximum length of a body, bytes.
    #[must_use]
    pub fn taking(self, bytes: usize) -> Self {
        Self { handler: self.handler.layer(DefaultBodyLimit::max(bytes)), ..self }
    }
}

/// Returns all endpoints.
pub fn all() -> Vec<Endpoint> {
    let families = [
        enrollment_keys::endpoints(),
        agent_routes::endpoints(),
        agent_action_routes::endpoints(),
        bulk_routes::endpoints(),
        action_routes::endpoints(),
        files::endpoints(),
        agent_policies::endpoints(),
        outputs::endpoints(),
        rollouts::endpoints(),
        respond::endpoints(),
        refused::endpoints(),
        audit::endpoints(),
        nodes::endpoints(),
        backups::endpoints(),
    ];
    families.into_iter().flatten().collect()
}

/// Creates the router for paths below `/api/fleet`.
pub fn router(fleet: Arc<Fleet>) -> Router {
    let routes = all().into_iter().fold(Router::new(), |router, one| router.route(one.path, one.handler));
    routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(fleet)
}

// Fallbacks of our own, because axum's responses have no body and clients parse the error format.
async fn no_such_route(uri: Uri) -> Response {
    http_error(StatusCode::NOT_FOUND, "no_such_route", format!("there is no /api/fleet{}", uri.path()))
}

async fn no_such_method(method: Method, uri: Uri) -> Response {
    let message = format!("/api/fleet{} does not support {method}", uri.path());
    http_error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
