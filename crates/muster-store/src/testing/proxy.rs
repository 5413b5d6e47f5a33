//! A proxy between a store and its database, which delays, cuts, or loses a chosen message.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Cluster;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// They pass.
    Pass,
    /// What the database sends arrives later.
    Delayed(Duration),
    /// Connections are closed, and new ones too.
    Cut,
    /// The connection of the next `COMMIT` is closed before the database gets it. Then bytes pass again.
    LoseCommit,
    /// The connection of the next `COMMIT` is closed after the database has answered it. Then bytes pass again.
    LoseAnswer,
}

/// A proxy. Its threads end with the process.
pub struct Proxy {
    address: SocketAddr,
    traffic: Arc<Mutex<Traffic>>,
}

fn lock(traffic: &Mutex<Traffic>) -> MutexGuard<'_, Traffic> {
    traffic.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A proxy in front of a server.
    ///
    /// # Panics
    /// When it can't listen.
    pub fn to(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("listen: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("its address: {error}"));
        let traffic = Arc::new(Mutex::new(Traffic::Pass));
        let (socket, shared) = (cluster.directory.join(".s.PGSQL.5432"), Arc::clone(&traffic));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                pass(client, &socket, &shared);
            }
        });
        Self { address, traffic }
    }

    /// The address of a schema through this proxy.
    pub fn address(&self, schema: &str) -> String {
        let port = self.address.port();
        format!(
            "postgres://postgres@127.0.0.1:{port}/postgres?options=-csearch_path%3D{schema}&application_name={schema}"
        )
    }

    /// Changes what becomes of the bytes from now on.
    pub fn set(&self, traffic: Traffic) {
        *lock(&self.traffic) = traffic;
    }

    /// What becomes of the bytes.
    pub fn traffic(&self) -> Traffic {
        *lock(&self.traffic)
    }
}

/// Joins a client with the server, by a thread for each direction.
fn pass(client: TcpStream, socket: &PathBuf, traffic: &Arc<Mutex<Traffic>>) {
    if *lock(traffic) == Traffic::Cut {
        return;
    }
    let Ok(server) = UnixStream::connect(socket) else { return };
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
    let (one, other) = (Arc::clone(traffic), Arc::clone(traffic));
    std::thread::spawn(move || up(client, server, &one));
    std::thread::spawn(move || down(server_too, client_too, &other));
}

/// From the client to the server.
fn up(mut client: TcpStream, mut server: UnixStream, traffic: &Mutex<Traffic>) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let now = *lock(traffic);
        let loses = now == Traffic::LoseCommit && contains(&bytes[..length]);
        if loses {
            *lock(traffic) = Traffic::Pass;
        }
        if loses || now == Traffic::Cut || server.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    close(&client, &server);
}

/// From the server to the client.
fn down(mut server: UnixStream, mut client: TcpStream, traffic: &Mutex<Traffic>) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(length @ 1..) = server.read(&mut bytes) {
        let now = *lock(traffic);
        if let Traffic::Delayed(time) = now {
            std::thread::sleep(time);
        }
        let loses = now == Traffic::LoseAnswer && contains(&bytes[..length]);
        if loses {
            *lock(traffic) = Traffic::Pass;
        }
        if loses || now == Traffic::Cut || client.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    close(&client, &server);
}

/// Both the statement and the tag of its answer end with NUL.
fn contains(bytes: &[u8]) -> bool {
    bytes.windows(7).any(|window| window == b"COMMIT\0")
}

fn close(client: &TcpStream, server: &UnixStream) {
    // The other thread may have closed them already.
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
