//! Requests while the database does not respond: they end with an error instead of waiting for it.

use std::time::Duration;

use muster_core::error::STORE_UNAVAILABLE;
use muster_core::{Error, ErrorKind};
use muster_store::Currency;

use super::authority::System;
use super::watched_store::WatchedStore;

/// Time without any answer of a shared database after which requests are refused. Longer than a restart of a proxy in
/// front of it. A database that is only busy keeps answering, so nothing is refused while it is.
const SILENT: Duration = Duration::from_secs(5);
/// Interval at which a waiting request looks whether the database is silent.
const LOOK: Duration = Duration::from_secs(1);

/// Returns whether a shared database has not answered for a while; never with the embedded store. Reads nothing.
pub(crate) fn is_silent(store: &WatchedStore) -> bool {
    store.everywhere(&System).confirmed().age() > SILENT
}

/// Runs `work` until it is done, or until the database has not answered for a while. Whether the work is done then is
/// unknown, as after any lost connection.
pub(crate) async fn unless_silent<T>(store: &WatchedStore, work: impl Future<Output = T>) -> Result<T, Error> {
    // Without timers for the embedded store, which every ack and enrollment would set in vain.
    if store.everywhere(&System).confirmed() == Currency::Always {
        return Ok(work.await);
    }
    let silence = async {
        while !is_silent(store) {
            tokio::time::sleep(LOOK).await;
        }
    };
    if is_silent(store) {
        return Err(silent());
    }
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = silence => Err(silent()),
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Unavailable, STORE_UNAVAILABLE, "the database does not respond; retry later")
}
