//! The listeners: their sockets, limits and handlers.

use std::io;
use std::sync::Arc;

use muster_fleet::Fleet;
use muster_fleet::health::Health;
use muster_listen::accept::{self, Drained};
use muster_listen::concurrency_limit::ConcurrencyLimit;
use muster_listen::reply::ListenerKind;
use muster_listen::unauthenticated::UnauthenticatedLimit;
use muster_listen::web::OnHyper;
use muster_listen::{Listening, Serve, socket};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use super::admin::{AdminHandler, Allowed};
use super::agents::AgentHandler;
use super::hosts::Hosts;
use crate::config::Config;
use crate::data_dir::{ADMIN_SOCKET, DataDir, ListenAddresses};
use crate::metrics::Metrics;
use crate::tls::{Tls, host};

/// Number of open files that are reserved for everything except connections of agents: database, certificates, uploads
/// and the other listeners.
const RESERVED_FILES: u64 = 1280;
/// Maximum number of concurrent requests on the other listeners. Small, so that enough open files are reserved for
/// them.
const FEW: usize = 256;

/// Sockets that are bound, but do not accept connections yet.
pub(super) struct Bound {
    agent: Option<TcpListener>,
    local: Option<TcpListener>,
    admin: Option<TcpListener>,
    socket: UnixListener,
}

impl Bound {
    pub(super) fn bind(config: &Config, data: &DataDir) -> Result<Self, ServeError> {
        let bind = |address: Option<std::net::SocketAddr>, key: &str, flag: &str| {
            address.map(socket::bind).transpose().map_err(|error| ServeError::Listen(with_remedy(&error, key, flag)))
        };
        Ok(Self {
            agent: bind(config.listen.agent, "agent.listen", "--agent-listen")?,
            local: bind(config.listen.local, "local.listen", "--local-listen")?,
            admin: bind(config.listen.admin, "admin.listen", "--admin-listen")?,
            socket: socket::bind_unix(&data.join(ADMIN_SOCKET)).map_err(ServeError::Listen)?,
        })
    }

    pub(super) fn addresses(&self) -> io::Result<ListenAddresses> {
        let address = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        Ok(ListenAddresses { agent: address(&self.agent)?, local: address(&self.local)?, admin: address(&self.admin)? })
    }
}

/// Adds to the error of a listener how to choose another address.
fn with_remedy(error: &io::Error, key: &str, flag: &str) -> io::Error {
    let message = format!("{error}; choose another address with `{key}` in the configuration or with {flag}");
    io::Error::new(error.kind(), message)
}

/// Returns the maximum number of concurrent requests of agents.
pub(super) fn limit(config: &Config, files: u64) -> usize {
    let wanted = match config.max_connections {
        // Ten elevenths of the files, because a listener accepts 10 % more connections than requests.
        0 => files.saturating_sub(RESERVED_FILES).max(64) / 11 * 10,
        wanted => wanted,
    };
    usize::try_from(wanted).unwrap_or(usize::MAX)
}

/// Parameters for starting the listeners.
pub(super) struct Starting<'a> {
    pub(super) config: &'a Config,
    pub(super) tls: &'a Arc<Tls>,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) shutdown: &'a CancellationToken,
    pub(super) limit: usize,
}

impl Starting<'_> {
    pub(super) fn listeners(&self, bound: Bound, fleet: &Arc<Fleet>, health: &Health) -> JoinSet<Drained> {
        let mut tasks = JoinSet::new();
        let agent_tls = (!self.config.insecure_http).then(|| Arc::clone(self.tls));
        for (kind, listener) in [(ListenerKind::Agent, bound.agent), (ListenerKind::Local, bound.local)] {
            if let Some(listener) = listener {
                let clients = agent_tls.as_ref().map(|tls| Arc::clone(tls.current_clients()));
                let metrics = Arc::clone(self.metrics);
                let handler = AgentHandler::new(fleet, self.config, health.clone(), metrics, clients);
                tasks.spawn(accept::run(listener, self.listening(kind, handler, agent_tls.clone())));
            }
        }
        let own = self.config.admin_hosts.iter().cloned().chain(host::name());
        let hosts = Hosts::new(own, fleet.urls().watch());
        let proxies = self.config.trusted_proxies.clone();
        let base_path = self.config.base_path.clone();
        let allowed = Allowed { proxies, hosts, base_path, metrics_on: self.config.metrics_on };
        let admin = AdminHandler::new(fleet, health.clone(), self.metrics, agent_tls, allowed);
        let web = || OnHyper(admin.clone());
        if let Some(listener) = bound.admin {
            let plain = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
            let tls = (!plain).then(|| Arc::clone(self.tls));
            tasks.spawn(accept::run(listener, self.listening(ListenerKind::Admin, web(), tls)));
        }
        tasks.spawn(accept::run_unix(bound.socket, self.listening(ListenerKind::Socket, web(), None)));
        tasks
    }

    fn listening<H: Serve>(&self, kind: ListenerKind, handler: H, tls: Option<Arc<Tls>>) -> Arc<Listening<H>> {
        let limit = if kind == ListenerKind::Agent { self.limit } else { self.limit.min(FEW) };
        let places = limit.saturating_add(limit / 10);
        // Each listener has limits of its own, so that agents can't lock out administrators.
        let (requests, connections, unauthenticated) =
            (ConcurrencyLimit::new(limit), ConcurrencyLimit::new(places), UnauthenticatedLimit::new(places));
        self.metrics.show_limits(kind, &connections, &requests);
        let timeouts = self.config.timeouts;
        let tls = tls.map(|tls| Arc::clone(tls.live()));
        let (idle, metrics, shutdown) = (Arc::default(), Arc::clone(&self.metrics.connection), self.shutdown.clone());
        Arc::new(Listening {
            kind,
            handler,
            tls,
            timeouts,
            requests,
            connections,
            unauthenticated,
            idle,
            metrics,
            shutdown,
        })
    }
}
