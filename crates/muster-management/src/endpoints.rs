//! The table of all endpoints. The router is built from it, and a test checks for each entry that unauthenticated requests
//! are rejected: an endpoint can't be added without that check.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::header::IF_MATCH;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use muster_core::Error;
use muster_core::authorization::{OpContext, PrivilegeName};

use super::body::MaxBody;
use super::error::{ApiError, http_error};
use super::idempotency::Disclosure;
use super::multipart::UNKNOWN_TYPE;
use super::openapi::{Described, Operation, Reads};
use super::query::check_names;
use super::{
    action_routes, agent_action_routes, agent_policies, agent_routes, alerts, audit, backups, bulk_routes, ca, carves,
    changes, disk_keys, enrollment_keys, files, fleetd_options, host_checks, hosts, idempotency, identity, installers,
    installs, labels, live_queries, message_signing, network_objects, nodes, openapi, outputs, packages, packs,
    recovery_codes, refused, respond, rollouts, saved_queries, scripts, settings, setup, software, uninstall_tokens,
};
use muster_fleet::Fleet;

/// Maximum length of a JSON body, bytes.
const MAX_BODY: usize = 8 << 20;

/// What a caller needs to use an endpoint. Services check privileges themselves; this is for documentation, and for the
/// test that tries each endpoint with each kind of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Not stated, which a test rejects.
    Unstated,
    /// No credentials.
    Nothing,
    /// Credentials, and no privilege: the endpoint is about what is the caller's own.
    Credentials,
    /// All of these privileges.
    Privileges(&'static [PrivilegeName]),
    /// This privilege, through a binding to the whole installation.
    Everywhere(PrivilegeName),
    /// One of these privileges; which one depends on the object.
    OneOf(&'static [PrivilegeName]),
}

/// A route.
pub struct Endpoint {
    /// The method.
    pub method: Method,
    /// The path below `/api/fleet`, or `/v1/…` for `/api/v1/…`.
    pub path: &'static str,
    /// What a caller needs.
    pub needs: Needs,
    /// What it does, in a few words.
    pub about: &'static str,
    /// Content type of a successful response that is not JSON.
    pub content: &'static str,
    /// Adds its parameters, body and response.
    pub describe: fn(&mut Operation<'_>),
    handler: MethodRouter<Arc<Fleet>>,
    max_body: usize,
    is_disclosure: bool,
}

macro_rules! methods {
    ($($name:ident $method:ident)*) => {
        impl Endpoint {
            $(
                #[doc = concat!("A ", stringify!($method), ".")]
                pub fn $name<H, T, A>(path: &'static str, handler: H) -> Self
                where
                    H: Handler<T, Arc<Fleet>> + Described<A>,
                    T: 'static,
                {
                    Self {
                        method: Method::$method,
                        path,
                        needs: Needs::Unstated,
                        about: "",
                        content: UNKNOWN_TYPE,
                        describe: <H as Described<A>>::describe,
                        max_body: MAX_BODY,
                        is_disclosure: false,
                        handler: routing::$name(handler),
                    }
                }
            )*
        }
    };
}

methods!(get GET post POST put PUT delete DELETE);

impl Endpoint {
    /// States the privileges that a caller needs.
    #[must_use]
    pub fn needs(self, privileges: &'static [PrivilegeName]) -> Self {
        Self { needs: Needs::Privileges(privileges), ..self }
    }

    /// States the privilege that a caller needs in all spaces.
    #[must_use]
    pub fn needs_everywhere(self, privilege: PrivilegeName) -> Self {
        Self { needs: Needs::Everywhere(privilege), ..self }
    }

    /// States the privileges of which a caller needs one, depending on the object.
    #[must_use]
    pub fn needs_one_of(self, privileges: &'static [PrivilegeName]) -> Self {
        Self { needs: Needs::OneOf(privileges), ..self }
    }

    /// States that every authenticated caller may use it.
    #[must_use]
    pub fn for_everybody(self) -> Self {
        Self { needs: Needs::Credentials, ..self }
    }

    /// States that it needs no credentials.
    #[must_use]
    pub fn public(self) -> Self {
        Self { needs: Needs::Nothing, ..self }
    }

    /// States what it does, for the OpenAPI document.
    #[must_use]
    pub fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    /// States the content type of a successful response that is not JSON.
    #[must_use]
    pub fn returning(self, content: &'static str) -> Self {
        Self { content, ..self }
    }

    /// States that it returns a secret, and can be repeated. Its response is not stored: with an idempotency key that was used before, the
    /// request is executed again, and recorded again.
    #[must_use]
    pub fn disclosing(self) -> Self {
        Self { is_disclosure: true, ..self }
    }

    /// Returns the path of the endpoint in the default space.
    pub fn url(&self) -> String {
        outer(self.path)
    }

    /// Sets the maximum length of a body, bytes.
    #[must_use]
    pub fn taking(self, bytes: usize) -> Self {
        Self { max_body: bytes, ..self }
    }
}

/// Returns all endpoints.
pub fn all() -> Vec<Endpoint> {
    let families = [
        enrollment_keys::endpoints(),
        ca::endpoints(),
        agent_routes::endpoints(),
        agent_action_routes::endpoints(),
        bulk_routes::endpoints(),
        action_routes::endpoints(),
        files::endpoints(),
        agent_policies::endpoints(),
        outputs::endpoints(),
        network_objects::endpoints(),
        uninstall_tokens::endpoints(),
        recovery_codes::endpoints(),
        hosts::endpoints(),
        live_queries::endpoints(),
        carves::endpoints(),
        disk_keys::endpoints(),
        scripts::endpoints(),
        saved_queries::endpoints(),
        fleetd_options::endpoints(),
        host_checks::endpoints(),
        labels::endpoints(),
        packs::endpoints(),
        software::endpoints(),
        installers::endpoints(),
        installs::endpoints(),
        message_signing::endpoints(),
        packages::endpoints(),
        settings::endpoints(),
        setup::endpoints(),
        rollouts::endpoints(),
        alerts::endpoints(),
        respond::endpoints(),
        refused::endpoints(),
        audit::endpoints(),
        nodes::endpoints(),
        identity::endpoints(),
        backups::endpoints(),
        changes::endpoints(),
        openapi::endpoints(),
    ];
    families.into_iter().flatten().collect()
}

// Services check the privileges again, with the object. Here, the check precedes the body, and an endpoint that needs two
// privileges cannot fail for the second one after it has changed something.
/// Admits a request whose caller has what the endpoint needs, and executes it once if it has an idempotency key.
async fn permit(fleet: Arc<Fleet>, needs: Needs, reads: Reads, request: Request, next: Next) -> Response {
    let context = request.extensions().get::<OpContext>();
    let checked = match (needs, context) {
        (Needs::Nothing, _) | (Needs::Credentials, Some(_)) => Ok(()),
        (Needs::Privileges(all), Some(context)) => {
            all.iter().try_for_each(|name| context.check(*name)).map_err(Error::from)
        }
        (Needs::Everywhere(name), Some(context)) => context.check_everywhere(name).map_err(Error::from),
        (Needs::OneOf(any), Some(context)) => {
            let mut checks = any.iter().map(|name| context.check(*name));
            match checks.clone().any(|checked| checked.is_ok()) {
                true => Ok(()),
                false => checks.next().unwrap_or(Ok(())).map_err(Error::from),
            }
        }
        (Needs::Unstated, _) | (_, None) => {
            Err(Error::internal("an endpoint without stated needs, or outside the entry"))
        }
    };
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
    // A page of another server sends the browser to a public endpoint, with parameters of its own.
    let checked = match needs {
        Needs::Nothing => checked,
        _ => checked.and_then(|()| check_names(request.uri(), is_change, reads.is_own, &reads.query)),
    };
    // A condition that was ignored would overwrite the change of somebody else.
    let has_condition = is_change && !reads.if_match && request.headers().contains_key(IF_MATCH);
    let checked = match has_condition {
        true => checked.and(Err(Error::invalid("If-Match", "is not supported by this endpoint"))),
        false => checked,
    };
    let key = if is_change { idempotency::key(request.headers()) } else { Ok(None) };
    match (checked.and(key), context.cloned()) {
        (Ok(None), _) => next.run(request).await,
        (Ok(Some(key)), Some(context)) => idempotency::once(fleet, context, key, request, next).await,
        (Ok(Some(_)), None) => {
            ApiError(Error::invalid("Idempotency-Key", "is not supported without credentials")).into_response()
        }
        (Err(error), _) => ApiError(error).into_response(),
    }
}

/// Returns whether only Muster has a path, and not Kibana.
pub fn is_own(path: &str) -> bool {
    const OWN: [&str; 7] = ["v1", "hosts", "labels", "packs", "host_checks", "fleetd_options", "software"];
    OWN.contains(&path.trim_start_matches('/').split('/').next().unwrap_or_default())
}

/// Returns the path of an inner path.
fn outer(path: &str) -> String {
    let is_v1 = path.strip_prefix("/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if is_v1 { format!("/api{path}") } else { format!("/api/fleet{path}") }
}

/// Creates the router for paths below `/api/fleet`.
pub fn router(fleet: Arc<Fleet>) -> Router {
    let routes = all().into_iter().fold(Router::new(), |router, one| {
        let reads = openapi::reads(&one);
        let Endpoint { path, needs, handler, max_body, is_disclosure, .. } = one;
        let fleet = Arc::clone(&fleet);
        let check = from_fn(move |mut request: Request, next: Next| {
            request.extensions_mut().insert(MaxBody(max_body));
            if is_disclosure {
                request.extensions_mut().insert(Disclosure);
            }
            permit(Arc::clone(&fleet), needs, reads.clone(), request, next)
        });
        // The limit is outside of the check, which may read the body.
        router.route(path, handler.route_layer(check).route_layer(DefaultBodyLimit::max(max_body)))
    });
    routes.fallback(no_such_route).method_not_allowed_fallback(no_such_method).with_state(fleet)
}

// Fallbacks of our own, because axum's responses have no body and clients parse the error format.
async fn no_such_route(uri: Uri) -> Response {
    http_error(StatusCode::NOT_FOUND, "no_such_route", format!("there is no {}", outer(uri.path())))
}

async fn no_such_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not support {method}", outer(uri.path()));
    http_error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
