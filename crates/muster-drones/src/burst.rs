//! Mode `burst`: one large check-in per agent, all at the same time, to see what the server's memory does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::back_off::BackOff;
use crate::drone::Drone;
use crate::session::Shared;

/// A server that takes this long has taken the body, and holds the check-in.
const HELD: Duration = Duration::from_secs(10);

/// Time between the start of the measured part and the burst, for whoever measures the memory before.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends one check-in with a body of about `bytes`, uncompressed, with retries until the server has taken it.
pub async fn send(shared: Arc<Shared>, mut drone: Drone, bytes: usize, mut back_off: BackOff) {
    tokio::time::sleep(PAUSE).await;
    loop {
        // A response means that the body was small work; a held request, that the server has taken it.
        let sent = tokio::time::timeout(HELD, drone.check_in_with(Instant::now(), bytes)).await;
        match sent {
            Ok(Ok(_)) | Err(_) => return,
            // A server that limits memory refuses some of them for now: that is what the burst is for.
            Ok(Err(fault)) => {
                shared.tally.failed(&format!("burst: {fault}"));
                tokio::time::sleep(back_off.next_pause()).await;
            }
        }
    }
}
