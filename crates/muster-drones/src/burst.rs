//! Mode `burst`: one large check-in per agent, all at the same time, to measure the server's memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::back_off::BackOff;
use crate::drone::Drone;
use crate::session::Shared;

/// If there is no response after this time, the server has received the body and holds the check-in.
const HELD: Duration = Duration::from_secs(10);

/// Time between the start of the measured part and the burst, in which the caller can measure the memory before it.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends one uncompressed check-in with a body of about `bytes` bytes. Retries until the server has received it.
pub async fn send(shared: Arc<Shared>, mut drone: Drone, bytes: usize, mut back_off: BackOff) {
    tokio::time::sleep(PAUSE).await;
    loop {
        // A response or a held request means that the server has processed the body.
        let sent = tokio::time::timeout(HELD, drone.check_in_with(Instant::now(), bytes)).await;
        match sent {
            Ok(Ok(_)) | Err(_) => return,
            // A server that limits its memory rejects some of them at first, which is the purpose of the burst.
            Ok(Err(fault)) => {
                shared.tally.failed(&format!("burst: {fault}"));
                tokio::time::sleep(back_off.next_pause()).await;
            }
        }
    }
}
