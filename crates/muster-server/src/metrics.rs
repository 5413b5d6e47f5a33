//! Metrics in the text format of Prometheus. Each server in a process has a registry of its own. Labels are types with
//! few values, and never contain ids of agents.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::host_logs::forward::Forwarded;
use muster_elastic::limits::Operation;
use muster_fleet::Fleet;
use muster_fleetd::route::Route;
use muster_listen::concurrency_limit::ConcurrencyLimit;
use muster_listen::metrics::ConnectionMetrics;
use muster_listen::reply::ListenerKind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabel {
    certificate: &'static str,
}

/// Returns the certificates in use, with the seconds until each expires.
type Expiries = Box<dyn Fn() -> Vec<(&'static str, i64)> + Send + Sync>;

/// Kind of a request, as a label: an operation of the agent API, the management API, or neither. The number is the
/// index of its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked(usize);

impl Asked {
    /// Request to the management API.
    pub const MANAGEMENT: Self = Self(Operation::ALL.len());
    /// Request to the agent API for an unknown path.
    pub const NOTHING: Self = Self(Operation::ALL.len() + 1);
    /// The first request to the API of fleetd.
    const FLEETD: usize = Operation::ALL.len() + 2;
    /// Number of kinds.
    const COUNT: usize = Self::FLEETD + Route::ALL.len();

    fn name(self) -> &'static str {
        match Operation::ALL.get(self.0) {
            Some(operation) => operation.key(),
            None if self == Self::MANAGEMENT => "management",
            None if self.0 >= Self::FLEETD => {
                Route::ALL.get(self.0 - Self::FLEETD).map_or("other", |route| route.key())
            }
            None => "other",
        }
    }
}

impl From<Operation> for Asked {
    fn from(operation: Operation) -> Self {
        Self(operation as usize)
    }
}

impl From<Route> for Asked {
    fn from(route: Route) -> Self {
        Self(Self::FLEETD + route as usize)
    }
}

/// Status classes, in the order of their first digits.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counters of a kind of request, created on first use. Looking them up by label takes a lock, which a request should
/// not wait for.
#[derive(Default)]
struct Counted {
    answered: [OnceLock<Counter>; CLASSES.len()],
    took: OnceLock<Histogram>,
}

/// Limits of one listener.
struct Limits {
    listener: &'static str,
    connections: Arc<ConcurrencyLimit>,
    requests: Arc<ConcurrencyLimit>,
}

/// Metrics of one server.
pub struct Metrics {
    registry: Registry,
    limits: Mutex<Vec<Limits>>,
    expiries: OnceLock<Expiries>,
    certificates: Family<CertificateLabel, Gauge>,
    fleet: OnceLock<Arc<Fleet>>,
    nodes: Gauge,
    draining: Gauge,
    connections: Family<ListenerLabel, Gauge>,
    running: Family<ListenerLabel, Gauge>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<OperationLabel, Histogram>,
    refusals: Family<ReasonLabel, Counter>,
    counted: [Counted; Asked::COUNT],
    /// Counters of the connection layer.
    pub connection: Arc<ConnectionMetrics>,
    /// Counters of the logs of hosts.
    pub forwarded: Arc<Forwarded>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Upper bounds of the buckets for request durations, in seconds.
const BOUNDS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

impl Metrics {
    /// Creates the metrics, with all counters at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("muster"),
            limits: Mutex::default(),
            expiries: OnceLock::new(),
            certificates: Family::default(),
            fleet: OnceLock::new(),
            nodes: Gauge::default(),
            draining: Gauge::default(),
            connections: Family::default(),
            running: Family::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BOUNDS)),
            refusals: Family::default(),
            counted: std::array::from_fn(|_| Counted::default()),
            connection: Arc::default(),
            forwarded: Arc::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("connections", "Open connections by listener", self.connections.clone());
        registry.register(
            "running_requests",
            "Running requests by listener, held polls included",
            self.running.clone(),
        );
        registry.register("requests", "Requests by operation and status class", self.requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time until the response is sent or the check-in is held",
            self.durations.clone(),
        );
        let refusals = self.refusals.clone();
        registry.register("refusals", "Rejected clients and requests of agents, by reason", refusals);
        registry.register(
            "certificate_expires_seconds",
            "Time until a certificate in use expires; negative after its expiration",
            self.certificates.clone(),
        );
        registry.register("nodes", "Live servers of the fleet, as this one sees them", self.nodes.clone());
        registry.register("draining", "1 while this server sends its agents to other servers", self.draining.clone());
        self.connection.register(registry);
        self.forwarded.register(registry);
    }

    /// Adds the limits of a listener to the gauges.
    pub fn show_limits(
        &self,
        kind: ListenerKind,
        connections: &Arc<ConcurrencyLimit>,
        requests: &Arc<ConcurrencyLimit>,
    ) {
        let limits = Limits {
            listener: listener_name(kind),
            connections: Arc::clone(connections),
            requests: Arc::clone(requests),
        };
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).push(limits);
    }

    /// Counts a rejected request or client of an agent listener. `reason` must be one of a few constants.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Adds the expiration of certificates to the gauges. `expiries` is called for each rendering.
    pub fn show_certificates(&self, expiries: impl Fn() -> Vec<(&'static str, i64)> + Send + Sync + 'static) {
        // A server has one set of certificates, so only the first call has an effect.
        let _ = self.expiries.set(Box::new(expiries));
    }

    /// Sets the fleet whose servers are reported in the metrics.
    pub fn show_fleet(&self, fleet: &Arc<Fleet>) {
        // Set once at startup; an attempt to set it again would be ignored.
        let _ = self.fleet.set(Arc::clone(fleet));
    }

    /// Counts a request with its response.
    pub fn answered(&self, asked: Asked, status: StatusCode, took: Duration) {
        self.answers(asked, class(status)).inc();
        self.took(asked, took);
    }

    /// Counts the duration of a request that was parked. `answered_parked` counts its response.
    pub fn took(&self, asked: Asked, took: Duration) {
        let durations = || self.durations.get_or_create(&OperationLabel { operation: asked.name() }).clone();
        self.counted[asked.0].took.get_or_init(durations).observe(took.as_secs_f64());
    }

    /// Counts the response to a parked request. Its duration is that of the poll, which is not of interest.
    pub fn answered_parked(&self, asked: Asked, status: StatusCode) {
        self.answers(asked, class(status)).inc();
    }

    fn answers(&self, asked: Asked, class: usize) -> &Counter {
        let labels = RequestLabels { operation: asked.name(), status: CLASSES[class] };
        self.counted[asked.0].answered[class].get_or_init(|| self.requests.get_or_create(&labels).clone())
    }

    /// Returns all metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        // Read on rendering only, so that opening a connection costs no metric.
        for limits in self.limits.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let label = ListenerLabel { listener: limits.listener };
            let gauge = |inside: usize| i64::try_from(inside).unwrap_or(i64::MAX);
            self.connections.get_or_create(&label).set(gauge(limits.connections.inside()));
            self.running.get_or_create(&label).set(gauge(limits.requests.inside()));
        }
        for (certificate, seconds) in self.expiries.get().map(|expiries| expiries()).unwrap_or_default() {
            self.certificates.get_or_create(&CertificateLabel { certificate }).set(seconds);
        }
        if let Some(fleet) = self.fleet.get() {
            self.nodes.set(i64::try_from(fleet.live_nodes()).unwrap_or(i64::MAX));
            self.draining.set(fleet.is_draining().into());
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string can't fail");
        text
    }
}

fn listener_name(kind: ListenerKind) -> &'static str {
    match kind {
        ListenerKind::Agent => "agent",
        ListenerKind::Local => "local",
        ListenerKind::Admin => "admin",
        ListenerKind::Socket => "socket",
    }
}

fn class(status: StatusCode) -> usize {
    // Statuses begin at 100; those from 600 count as 5xx.
    (usize::from(status.as_u16() / 100) - 1).min(CLASSES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_rendered_with_their_labels() {
        let metrics = Metrics::new();
        let (connections, requests) = (ConcurrencyLimit::new(5), ConcurrencyLimit::new(5));
        let _open = connections.enter();
        metrics.show_limits(ListenerKind::Agent, &connections, &requests);
        metrics.answered(Operation::CheckIn.into(), StatusCode::OK, Duration::from_millis(3));
        metrics.answered(Operation::CheckIn.into(), StatusCode::UNAUTHORIZED, Duration::from_millis(3));
        let text = metrics.render();
        for line in [
            "muster_connections{listener=\"agent\"} 1",
            "muster_requests_total{operation=\"checkin\",status=\"2xx\"} 1",
            "muster_requests_total{operation=\"checkin\",status=\"4xx\"} 1",
            "muster_request_duration_seconds_count{operation=\"checkin\"} 2",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
