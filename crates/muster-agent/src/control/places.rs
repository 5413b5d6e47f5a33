//! Decides which connections of the control socket are kept, so that no client can lock out the others.
//!
//! A connection is silent until it has sent the head of a request. Silent connections cost little and are limited: another
//! one displaces the oldest. Requests in progress have a limit of their own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// Maximum number of silent connections.
const SILENT: usize = 16;
/// Maximum number of requests in progress.
const REQUESTS: u32 = 16;
/// Maximum number of requests of other users than root and the one that runs the agent.
const OF_OTHERS: usize = 8;

/// The connections of a control socket.
pub(super) struct Places {
    requests: Arc<Semaphore>,
    of_others: Arc<Semaphore>,
    silent: Mutex<VecDeque<Silent>>,
}

struct Silent {
    connection: Arc<Connection>,
    task: AbortHandle,
}

/// One connection.
pub(super) struct Connection {
    is_owner: bool,
    /// Taken until the response is sent, and not only until it is known.
    place: OnceLock<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
    is_long: AtomicBool,
}

impl Connection {
    /// A connection whose other end the kernel names.
    pub(super) fn of(stream: &UnixStream) -> Self {
        let own = nix::unistd::geteuid().as_raw();
        let is_owner = stream.peer_cred().is_ok_and(|peer| [0, own].contains(&peer.uid()));
        Self { is_owner, place: OnceLock::new(), is_long: AtomicBool::new(false) }
    }

    /// Whether the client is root or the user that runs the agent, and not only a member of its group (AG47).
    pub(super) fn is_owner(&self) -> bool {
        self.is_owner
    }

    /// Records that the response may take any time.
    pub(super) fn take_long(&self) {
        self.is_long.store(true, Ordering::Relaxed);
    }

    /// Waits for the end of a connection; at most for `limit`, unless its response may take any time.
    pub(super) async fn within<T>(&self, limit: Duration, serving: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(serving);
        match tokio::time::timeout(limit, &mut serving).await {
            Ok(ended) => Some(ended),
            Err(_) if self.is_long.load(Ordering::Relaxed) => Some(serving.await),
            Err(_) => None,
        }
    }
}

impl Places {
    pub(super) fn new() -> Self {
        let requests = usize::try_from(REQUESTS).unwrap_or(usize::MAX);
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            of_others: Arc::new(Semaphore::new(OF_OTHERS)),
            silent: Mutex::default(),
        }
    }

    /// Serves a new connection in a task, which ends if too many other connections are silent, too.
    pub(super) fn admit(&self, connection: Arc<Connection>, serve: impl Future<Output = ()> + Send + 'static) {
        // Locked during the start, so that the task cannot leave the list before it is in it.
        let mut silent = self.silent();
        if silent.len() >= SILENT {
            // Those of the owner stay as long as there are others, so that nobody else can displace a command of root.
            let oldest = silent.iter().position(|known| !known.connection.is_owner).unwrap_or(0);
            if let Some(displaced) = silent.remove(oldest) {
                displaced.task.abort();
            }
        }
        let task = tokio::spawn(serve).abort_handle();
        silent.push_back(Silent { connection, task });
    }

    /// Begins a request. Returns false if too many are in progress.
    pub(super) fn begin(&self, connection: &Arc<Connection>) -> bool {
        self.leave(connection);
        let of_others = if connection.is_owner {
            None
        } else {
            let Ok(place) = self.of_others.clone().try_acquire_owned() else { return false };
            Some(place)
        };
        let Ok(place) = self.requests.clone().try_acquire_owned() else { return false };
        connection.place.set((place, of_others)).is_ok()
    }

    /// Forgets a connection that is no longer silent.
    pub(super) fn leave(&self, connection: &Arc<Connection>) {
        self.silent().retain(|known| !Arc::ptr_eq(&known.connection, connection));
    }

    /// Returns when no request is in progress.
    pub(super) async fn idle(&self) {
        // An error would mean that the semaphore was closed, which never happens.
        let _ = self.requests.acquire_many(REQUESTS).await;
    }

    fn silent(&self) -> MutexGuard<'_, VecDeque<Silent>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
