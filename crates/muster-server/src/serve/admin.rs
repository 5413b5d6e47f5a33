//! Handler for the management API and for monitoring: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use muster_core::time::Clock;
use tower::ServiceExt;

use super::forwarded;
use super::hosts::Hosts;
use crate::config::network::Network;
use crate::config::settings::MetricsOn;
use crate::metrics::{Asked, Metrics};
use crate::tls::Tls;
use crate::tls::validity::Warning;
use muster_console::{ServerTrust, console_router, in_html};
use muster_fleet::Fleet;
use muster_fleet::health::{Health, ServerState};
use muster_fleet::system::SystemClock;
use muster_fleet::throttle::Throttle;
use muster_fleetdm::fleetdm_router;
use muster_listen::refusal::Refusal;
use muster_listen::reply::{ListenerKind, Peer, Reply};
use muster_listen::web::{Web, WebBody, WebWork};
use muster_management::base_path::BasePath;
use muster_management::error::{ApiError, error_reply, http_error};
use muster_management::management_router;

/// Minimum time between log lines about the same unknown host.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

const HEALTH: &str = "/healthz";
const READY: &str = "/readyz";
const METRICS: &str = "/metrics";

/// Handler of the admin listener and the admin socket.
#[derive(Clone)]
pub(super) struct AdminHandler {
    router: Router,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    allowed: Arc<Allowed>,
    throttle: Arc<Throttle>,
}

/// How clients reach the admin listener. The socket has no restrictions.
pub(super) struct Allowed {
    /// Proxies whose `X-Forwarded-For` is believed.
    pub proxies: Vec<Network>,
    /// Allowed hosts.
    pub hosts: Hosts,
    /// Path under which a proxy publishes the server.
    pub base_path: BasePath,
    /// Where `/metrics` is served.
    pub metrics_on: MetricsOn,
}

#[derive(Clone)]
struct Watched {
    fleet: Arc<Fleet>,
    health: Health,
    metrics: Arc<Metrics>,
    /// `None` if agents connect over plain HTTP.
    tls: Option<Arc<Tls>>,
}

impl AdminHandler {
    /// Creates the handler: the management API, `/healthz` (the process runs), `/readyz` (the store works) and
    /// `/metrics`. `tls` is that of the agent listeners.
    pub fn new(
        fleet: &Arc<Fleet>,
        health: Health,
        metrics: &Arc<Metrics>,
        tls: Option<Arc<Tls>>,
        allowed: Allowed,
    ) -> Self {
        let trust = match &tls {
            Some(tls) => ServerTrust { ca: tls.ca_path().map(|path| path.to_string()), is_plain: false },
            None => ServerTrust { ca: None, is_plain: true },
        };
        let watched = Watched { fleet: Arc::clone(fleet), health, metrics: Arc::clone(metrics), tls };
        let watch = Router::new()
            .route(HEALTH, get(async || "ok\n"))
            .route(READY, get(ready))
            .route(METRICS, get(render))
            .with_state(watched);
        let pages = console_router(Arc::clone(fleet), trust);
        let api = fleetdm_router(fleet);
        let pages_and_api = in_html(Arc::clone(fleet), management_router(Arc::clone(fleet)).merge(pages));
        let router = pages_and_api.merge(api).merge(watch);
        Self {
            router,
            fleet: Arc::clone(fleet),
            metrics: Arc::clone(metrics),
            allowed: Arc::new(allowed),
            throttle: Arc::new(Throttle::new(TOLD_AGAIN)),
        }
    }

    /// Returns the response to a request for metrics if they are served only on the socket.
    fn withheld(&self, request: &Parts, peer: &Peer) -> Option<Response> {
        let on_socket = self.allowed.metrics_on == MetricsOn::Socket && peer.listener != ListenerKind::Socket;
        (on_socket && request.uri.path() == METRICS).then(|| {
            let message = "metrics are served only on admin.sock (admin.metrics)";
            http_error(StatusCode::FORBIDDEN, "forbidden", message.to_owned())
        })
    }

    /// Returns the response to a request for an unknown host. Not on the socket, which browsers can't reach.
    fn misdirected(&self, request: &Parts, peer: &Peer) -> Option<Response> {
        let host = (peer.listener != ListenerKind::Socket).then(|| self.allowed.hosts.foreign(request)).flatten()?;
        // A page that probes this host would otherwise fill the log.
        if self.throttle.first_in_a_while(&host, SystemClock.now()) {
            let address = peer.address.map(tracing::field::display);
            tracing::warn!(host, address, "rejected a request: its Host is not in admin.hosts");
        }
        let message = format!("the host {host:?} is not allowed; add it to admin.hosts");
        Some(http_error(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message))
    }
}

impl Web for AdminHandler {
    type Body = Body;

    fn refuse(&self, refusal: &Refusal, _: &Peer) -> Reply {
        let code = if *refusal == Refusal::Full { "too_many_requests" } else { "bad_request" };
        error_reply(refusal.status(), code, refusal.to_string())
    }

    fn handle(&self, request: Request<WebBody>, mut peer: Peer) -> WebWork<Body> {
        let began = Instant::now();
        let metrics = Arc::clone(&self.metrics);
        let (mut parts, body) = request.into_parts();
        // Before everything that looks at the path, such as the restriction of `/metrics`.
        self.allowed.base_path.remove_from(&mut parts.uri);
        // Before everything that looks at the address, such as throttling and the audit log.
        forwarded::resolve(&mut peer, &parts.headers, &self.allowed.proxies);
        // Before the router: a page of another host that was rebound to this address must reach nothing (DNS
        // rebinding).
        if let Some(refused) = self.misdirected(&parts, &peer).or_else(|| self.withheld(&parts, &peer)) {
            metrics.answered(Asked::MANAGEMENT, refused.status(), began.elapsed());
            return Box::pin(std::future::ready(refused));
        }
        let mut request = Request::from_parts(parts, Body::new(body));
        // The entry of the API authenticates by the peer.
        request.extensions_mut().insert(peer);
        let is_watch = [HEALTH, READY, METRICS].contains(&request.uri().path());
        let (fleet, work) = (Arc::clone(&self.fleet), self.router.clone().oneshot(request));
        let base_path = self.allowed.base_path.clone();
        Box::pin(async move {
            let answer = async {
                let answered = match is_watch {
                    // These tell of a database that does not respond.
                    true => Ok(work.await),
                    false => fleet.server_status().unless_silent(work).await,
                };
                match answered {
                    Ok(Ok(response)) => response,
                    Err(error) => ApiError::from(error).into_response(),
                }
            };
            let response = base_path.answer(answer).await;
            metrics.answered(Asked::MANAGEMENT, response.status(), began.elapsed());
            response
        })
    }
}

/// Reports readiness: the server is neither starting, stopping nor draining, and the store can be read and written.
async fn ready(State(watched): State<Watched>) -> Response {
    // The state of the process first, which costs no look at the store.
    let state = watched.health.get();
    if !matches!(state, ServerState::Healthy | ServerState::Degraded) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", state.as_str())).into_response();
    }
    if watched.fleet.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    // Writes as well as reads, since a full disk lets reads succeed.
    match watched.fleet.server_status().check_ready().await {
        Ok(()) => certificates(watched.tls.as_deref()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// Reports readiness with warnings about certificates. Not ready while certificates prevent every agent from
/// connecting.
fn certificates(tls: Option<&Tls>) -> Response {
    let now_valid = |warning: &&Warning| !warning.keeps_agents_out;
    let warnings = tls.map(Tls::warnings).unwrap_or_default();
    let told = warnings.iter().map(|warning| format!("warning: {}\n", warning.text)).collect::<String>();
    if warnings.iter().all(|warning| now_valid(&warning)) {
        format!("ok\n{told}").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, told).into_response()
    }
}

async fn render(State(watched): State<Watched>) -> Response {
    const TEXT: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(CONTENT_TYPE, TEXT)], watched.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use muster_management::base_path::BadBasePath;

    use super::*;

    #[test]
    fn no_base_path_hides_the_paths_of_monitoring() {
        for path in [HEALTH, READY, METRICS] {
            assert_eq!(path.parse::<BasePath>(), Err(BadBasePath::Own), "{path}");
        }
    }
}
