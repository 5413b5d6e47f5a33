//! The listeners: those of a running server answer, and their addresses are free otherwise.

use std::fs::{File, TryLockError};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Finding;
use crate::config::Config;
use crate::data_dir::{ADMIN_SOCKET, LISTEN_FILE, ListenAddresses};

const CHECK: &str = "ports";
/// Maximum wait for a listener on this host.
const CONNECT: Duration = Duration::from_secs(2);

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let configured = [("agent", config.listen.agent), ("local", config.listen.local), ("admin", config.listen.admin)];
    if is_running(config) {
        let listeners = in_use(config).unwrap_or(configured);
        return [socket(config)].into_iter().chain(present(listeners).map(|(name, at)| answers(name, at))).collect();
    }
    present(configured).map(|(name, address)| is_free(name, address)).collect()
}

type Listeners = [(&'static str, Option<SocketAddr>); 3];

fn present(listeners: Listeners) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    listeners.into_iter().filter_map(|(name, address)| Some((name, address?)))
}

/// The addresses of the running server, which may have been started with flags. `None` while it starts.
fn in_use(config: &Config) -> Option<Listeners> {
    let text = fs_err::read(config.data_dir.join(LISTEN_FILE)).ok()?;
    let ListenAddresses { agent, local, admin } = serde_json::from_slice(&text).ok()?;
    Some([("agent", agent), ("local", local), ("admin", admin)])
}

/// Whether a server holds the lock of the data directory.
pub(super) fn is_running(config: &Config) -> bool {
    let Ok(lock) = File::open(config.data_dir.join("lock")) else { return false };
    // Only the attempt tells: the file stays behind when a server ends.
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
}

fn socket(config: &Config) -> Finding {
    let path = config.data_dir.join(ADMIN_SOCKET);
    match UnixStream::connect(&path) {
        Ok(_) => Finding::ok("server", format!("running, {path} responds")),
        Err(error) => {
            let remedy = "the server may be starting or hanging: check its log";
            Finding::error("server", format!("running, but {path} does not respond: {error}"), remedy)
        }
    }
}

fn answers(name: &str, address: SocketAddr) -> Finding {
    // The port of a listener with port 0 is known to the running server only.
    if address.port() == 0 {
        return Finding::ok(CHECK, format!("{name}.listen uses any free port"));
    }
    let mut reachable = address;
    if address.ip().is_unspecified() {
        // One cannot connect to the wildcard address itself.
        reachable.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    match TcpStream::connect_timeout(&reachable, CONNECT) {
        Ok(_) => Finding::ok(CHECK, format!("{name}.listen {address} responds")),
        Err(error) => {
            let remedy = "the server may be starting or hanging: check its log";
            Finding::error(CHECK, format!("{name}.listen {address} does not respond: {error}"), remedy)
        }
    }
}

fn is_free(name: &str, address: SocketAddr) -> Finding {
    // Bound for a moment only; the socket is closed at once.
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(CHECK, format!("{name}.listen {address} is free")),
        Err(error) => {
            let remedy = format!("stop the program that uses the address (ss -ltnp), or change {name}.listen");
            Finding::error(CHECK, format!("{name}.listen {address} cannot be used: {error}"), remedy)
        }
    }
}
