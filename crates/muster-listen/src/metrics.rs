//! Metrics of the connection layer.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of all connections of a server, shared by its listeners.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    /// Parked requests.
    pub parked: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed immediately because a limit was reached.
    pub refused_connections: Counter,
    /// Unauthenticated connections without a request, closed to make room for others.
    pub displaced_connections: Counter,
    /// Requests rejected with 429 because too many were running.
    pub refused_requests: Counter,
    /// TLS handshakes that failed or timed out.
    pub failed_handshakes: Counter,
    /// Connections closed at a deadline.
    pub cut_connections: Counter,
}

impl ConnectionMetrics {
    /// Registers all metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("parked_polls", "Held polls", self.parked.clone());
        registry.register("accepted_connections", "Accepted connections", self.accepted.clone());
        let (connections, requests) = (self.refused_connections.clone(), self.refused_requests.clone());
        registry.register("refused_connections", "Connections closed immediately because of the limit", connections);
        let displaced = self.displaced_connections.clone();
        let help = "Unauthenticated connections without a request, closed to make room for others";
        registry.register("displaced_connections", help, displaced);
        registry.register("refused_requests", "Requests rejected with 429 because of max_connections", requests);
        let handshakes = self.failed_handshakes.clone();
        registry.register("failed_handshakes", "TLS handshakes that failed or timed out", handshakes);
        registry.register("cut_connections", "Connections closed at a deadline", self.cut_connections.clone());
    }
}
