//! Handler for the agent API, with metrics and logging.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use http::Request;
use http::header::{CONNECTION, HeaderValue};
use muster_protocol::elastic::status::ServerVersion;
use tracing::debug;

use crate::config::Config;
use crate::config::settings::ClientAuth;
use crate::metrics::{Asked, Metrics};
use crate::tls::CurrentClients;
use muster_elastic::{AgentApi, AgentApiOptions, Handled, RefusedWhileHeld};
use muster_fleet::Fleet;
use muster_fleet::health::Health;
use muster_fleetd::{FleetdApi, FleetdApiOptions};
use muster_listen::body::RequestBody;
use muster_listen::refusal::Refusal;
use muster_listen::reply::{Answer, ListenerKind, Parked, Peer, Reply};
use muster_listen::upgrade::Upgrade;
use muster_listen::{Handler, Work};

/// Handler of an agent listener. Each has limits of its own.
pub(super) struct AgentHandler {
    api: AgentApi,
    fleetd: FleetdApi,
    metrics: Arc<Metrics>,
    fleet: Arc<Fleet>,
    client_auth: ClientAuth,
    /// What client certificates are verified with; `None` without TLS.
    clients: Option<Arc<CurrentClients>>,
}

impl AgentHandler {
    /// Creates the handler. Its requests are counted in `metrics`.
    pub fn new(
        fleet: &Arc<Fleet>,
        config: &Config,
        health: Health,
        metrics: Arc<Metrics>,
        clients: Option<Arc<CurrentClients>>,
    ) -> Self {
        let version = ServerVersion {
            number: env!("CARGO_PKG_VERSION").into(),
            build_hash: config.build.hash.clone(),
            build_time: config.build.time.clone(),
        };
        let pgp_key = Some(config.data_dir.join("pgp/default.pgp").into());
        let limits = config.limits.clone();
        let uploads = config.uploads;
        let options = AgentApiOptions { limits, uploads, health, version, pgp_key };
        let fleetd_options = FleetdApiOptions {
            push: config.push,
            uploads,
            binds_certificates: config.tls.client_bind_hosts,
            identifier: config.host_identifier,
        };
        let fleetd = FleetdApi::new(Arc::clone(fleet), fleetd_options);
        let (api, client_auth) = (AgentApi::new(Arc::clone(fleet), options), config.tls.client_auth);
        Self { api, fleetd, metrics, fleet: Arc::clone(fleet), client_auth, clients }
    }

    /// Returns what verifies the client certificate of a connection; `None` if it has none.
    fn verified(&self, peer: &Peer) -> Option<Verified> {
        let clients = self.clients.clone().filter(|_| peer.certificates.is_some())?;
        Some(Verified { clients, peer: peer.clone(), api: self.api.clone() })
    }

    /// Returns whether a request lacks a required client certificate.
    fn lacks_certificate(&self, path: &str, peer: &Peer) -> bool {
        let is_required = self.client_auth == ClientAuth::Required && peer.listener == ListenerKind::Agent;
        is_required && peer.certificates.is_none() && needs_certificate(path)
    }
}

impl Handler for AgentHandler {
    fn refuse(&self, refusal: &Refusal, peer: &Peer) -> Reply {
        self.metrics.refused(refusal.reason());
        self.api.refuse(refusal, peer)
    }

    fn note(&self, refusal: &Refusal, peer: &Peer) {
        self.metrics.refused(refusal.reason());
        self.api.note(refusal, peer);
    }

    fn handle(&self, request: Request<RequestBody>, peer: Peer) -> Work {
        if self.lacks_certificate(request.uri().path(), &peer) {
            let reply = self.refuse(&Refusal::NoCertificate, &peer);
            return Box::pin(async { Answer::Reply(reply) });
        }
        let verified = self.verified(&peer);
        if verified.as_ref().is_some_and(|verified| !verified.is_valid()) {
            let reply = closing(self.refuse(&Refusal::CertificateInvalidated, &peer));
            return Box::pin(async { Answer::Reply(reply) });
        }
        let began = Instant::now();
        let metrics = Arc::clone(&self.metrics);
        let fleet = Arc::clone(&self.fleet);
        // Formatted now, because the request is consumed, and only if it will be logged.
        let line = tracing::enabled!(tracing::Level::DEBUG)
            // The path only: a query may contain what must not be logged, and so may the path of a device's page.
            .then(|| format!("{} {}", request.method(), muster_fleetd::route::shown(request.uri().path())));
        // By path: both families use the same port, because orbit and Elastic Agent are often given the same URL.
        if FleetdApi::owns(request.uri().path()) {
            let work = self.fleetd.handle(request, peer);
            return Box::pin(async move {
                let handled = work.await;
                if let Some(reason) = handled.refused {
                    metrics.refused(reason);
                }
                let seen = Seen { asked: handled.route.map_or(Asked::NOTHING, Asked::from), began };
                while_valid(seen.finish(handled.answer, metrics, fleet, line.as_deref()), verified)
            });
        }
        let work = self.api.handle(request, peer);
        Box::pin(async move {
            let Handled { operation, refused, answer } = work.await;
            if let Some(reason) = refused {
                metrics.refused(reason);
            }
            let seen = Seen { asked: operation.map_or(Asked::NOTHING, Asked::from), began };
            while_valid(seen.finish(answer, metrics, fleet, line.as_deref()), verified)
        })
    }
}

/// The client certificate of a connection.
struct Verified {
    clients: Arc<CurrentClients>,
    peer: Peer,
    api: AgentApi,
}

impl Verified {
    fn is_valid(&self) -> bool {
        self.clients.admit(&self.peer)
    }

    async fn invalidated(&self) {
        self.clients.invalidated(&self.peer).await;
    }
}

/// Ends a held poll or an upgraded connection when the client certificate is no longer valid: it may never send another request.
fn while_valid(answer: Answer, verified: Option<Verified>) -> Answer {
    let Some(verified) = verified else { return answer };
    match answer {
        Answer::Reply(reply) => Answer::Reply(reply),
        Answer::Park(slot) => Answer::Park(Box::pin(async move {
            tokio::select! {
                reply = slot => reply,
                () = verified.invalidated() => {
                    closing(verified.api.refuse(&Refusal::CertificateInvalidated, &verified.peer))
                }
            }
        })),
        Answer::Upgrade(Upgrade { reply, takeover }) => {
            let takeover = |stream| {
                let work = takeover(stream);
                let until_then = async move {
                    tokio::select! {
                        () = work => {}
                        () = verified.invalidated() => {}
                    }
                };
                Box::pin(until_then) as Pin<Box<dyn Future<Output = ()> + Send>>
            };
            Answer::Upgrade(Upgrade { reply, takeover: Box::new(takeover) })
        }
    }
}

/// Returns whether only agents request this path. Browsers, which have no certificate, show the pages of devices, and
/// monitoring asks for the status.
fn needs_certificate(path: &str) -> bool {
    path != "/api/status" && muster_fleetd::route::needs_certificate(path)
}

/// A request, for metrics and logs.
#[derive(Clone, Copy)]
struct Seen {
    asked: Asked,
    began: Instant,
}

impl Seen {
    /// Counts an answer, or arranges that it is counted when it is sent.
    fn finish(self, answer: Answer, metrics: Arc<Metrics>, fleet: Arc<Fleet>, line: Option<&str>) -> Answer {
        match answer {
            Answer::Reply(reply) => {
                self.answered(&metrics, &reply, line);
                Answer::Reply(closing_while_draining(&fleet, reply))
            }
            Answer::Park(slot) => {
                metrics.took(self.asked, self.began.elapsed());
                Answer::Park(counted(slot, self, metrics, fleet))
            }
            Answer::Upgrade(upgrade) => {
                metrics.answered(self.asked, upgrade.reply.status(), self.began.elapsed());
                Answer::Upgrade(upgrade)
            }
        }
    }

    fn answered(self, metrics: &Metrics, reply: &Reply, line: Option<&str>) {
        let took = self.began.elapsed();
        metrics.answered(self.asked, reply.status(), took);
        if let Some(request) = line {
            let id = reply.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
            let took_us = took.as_micros();
            debug!(request, id, status = reply.status().as_u16(), took_us, "answered");
        }
    }
}

/// Wraps a parked poll so that its response is counted.
fn counted(slot: Parked, seen: Seen, metrics: Arc<Metrics>, fleet: Arc<Fleet>) -> Parked {
    Box::pin(async move {
        let reply = slot.await;
        metrics.answered_parked(seen.asked, reply.status());
        if let Some(refused) = reply.extensions().get::<RefusedWhileHeld>() {
            metrics.refused(refused.0);
        }
        closing_while_draining(&fleet, reply)
    })
}

/// A draining server closes each connection after a response, so that the agent connects again, to another server.
fn closing_while_draining(fleet: &Fleet, reply: Reply) -> Reply {
    if fleet.is_draining() { closing(reply) } else { reply }
}

/// Makes a response the last one of its connection.
fn closing(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}
