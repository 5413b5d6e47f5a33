//! Sockets: binding listeners, options of accepted connections, and the limit on open files.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use camino::Utf8Path;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// Length of the accept queue. After an outage, all agents of a site may reconnect at the same time.
const BACKLOG: i32 = 4096;
/// TCP keepalive, which detects a peer that has disappeared after 60 s + 4 × 15 s. Nothing else would detect it,
/// because nothing is sent for minutes on a parked connection.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 4;

/// Binds a listener to `address`. Errors contain the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Otherwise, a restart would fail while connections of the old process are in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|error| io::Error::new(error.kind(), format!("listening on {address}: {error}")))
}

/// Binds a listener to a socket file with mode 0600. Replaces an existing file. The caller must hold the lock of the
/// data directory, so that no other server uses the file.
pub fn bind_unix(path: &Utf8Path) -> io::Result<UnixListener> {
    let bind = || {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Other users cannot access the directory, so that nobody can connect before the mode is set.
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
        Ok(listener)
    };
    bind().map_err(|error| io::Error::new(error.kind(), format!("listening on {path}: {error}")))
}

/// Sets up an accepted connection.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Responses are written in as few pieces as possible, so that Nagle's algorithm would only add delays.
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_AGAIN).with_retries(KEEPALIVE_TRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Raises the limit on open files to the hard limit. Returns the new limit.
pub fn raise_open_files() -> u64 {
    const SMALL: u64 = 1024;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return SMALL };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}
