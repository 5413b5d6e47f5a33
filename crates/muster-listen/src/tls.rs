//! The TLS configuration of a listener, which can be replaced without closing connections.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::ServerConfig;

/// The TLS configuration of new connections. Open connections keep the configuration that they were accepted with.
#[derive(Debug)]
pub struct ServerTls(ArcSwap<ServerConfig>);

impl ServerTls {
    /// Creates a holder with this configuration.
    pub fn new(config: ServerConfig) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(config)))
    }

    /// Returns the configuration for a new connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        // Lock-free, because every handshake of a reconnecting fleet reads it.
        self.0.load_full()
    }

    /// Replaces the configuration.
    pub fn replace(&self, config: ServerConfig) {
        self.0.store(Arc::new(config));
    }
}
