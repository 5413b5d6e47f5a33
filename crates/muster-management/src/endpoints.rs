//! The table of all endpoints: the router is made from it, and so is the test that every one of them refuses strangers.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{self, MethodRouter};

use super::error::http_error;
use super::{
    action_routes, agent_action_routes, agent_policies, agent_routes, audit, bulk_routes, enrollment_keys, files,
    outputs, refused,
};
use muster_fleet::Fleet;

/// Longest JSON body, bytes.
const MAX_BODY: usize = 8 << 20;

/// One route.
pub struct Endpoint {
    /// Its method.
    pub method: Method,
    /// Its path behind `/api/fleet`.
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
    /// The same route, taking bodies of up to so many bytes.
    #[must_use]
    pub fn taking(self, bytes: usize) -> Self {
        Self { handler: self.handler.layer(DefaultBodyLimit::max(bytes)), ..self }
    }
}

/// Every endpoint.
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
        refused::endpoints(),
        audit::endpoints(),
    ];
    families.into_iter().flatten().collect()
}

/// The routes, behind `/api/fleet`.
pub fn router(fleet: Arc<Fleet>) -> Router {
    let routes = all().into_iter().fold(Router::new(), |router, one| router.route(one.path, one.handler));
    routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(fleet)
}

async fn no_such_route(uri: Uri) -> Response {
    http_error(StatusCode::NOT_FOUND, "no_such_route", format!("there is no /api/fleet{}", uri.path()))
}

async fn no_such_method(method: Method, uri: Uri) -> Response {
    let message = format!("/api/fleet{} takes no {method}", uri.path());
    http_error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
