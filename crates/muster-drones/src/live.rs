//! Mode `live`: agents with the pauses and back-offs of real agents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Admission;
use crate::back_off::BackOff;
use crate::drone::{Drone, Fate};
use crate::fault::Fault;
use crate::session::Shared;

/// Number of consecutive 401 responses after which an agent polls hourly, like real agents.
const DEAD_AFTER: u32 = 7;
const HOUR: Duration = Duration::from_secs(3600);

/// Runs one agent from enrollment until it is unenrolled.
pub async fn live(shared: Arc<Shared>, mut drone: Drone, admission: Arc<Admission>, mut back_off: BackOff) {
    admission.admit(&mut drone, &mut back_off).await;
    // As in real agents, the first check-in has a random delay, and later ones follow a response after 1 to 1.5 s.
    tokio::time::sleep(up_to_half_a_second()).await;
    let mut refused = 0;
    loop {
        match turn(&mut drone).await {
            Ok(Fate::Goes) => return,
            Ok(Fate::Stays) => {
                refused = 0;
                back_off.reset();
                tokio::time::sleep(Duration::from_secs(1) + up_to_half_a_second()).await;
            }
            Err(fault) => {
                shared.tally.failed(&format!("check-in: {fault}"));
                refused = if fault.is_unauthorized() { refused + 1 } else { 0 };
                let pause = if refused < DEAD_AFTER { back_off.next_pause() } else { HOUR };
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Checks in and handles the response. A failed ack is not a failed check-in, except for the ack of an UNENROLL.
async fn turn(drone: &mut Drone) -> Result<Fate, Fault> {
    let reply = drone.check_in(Instant::now()).await?;
    // Known only before `act_on`, which consumes the response.
    let goes = reply.actions.iter().any(|action| action.kind == "UNENROLL");
    match drone.act_on(reply).await {
        Ok(fate) => Ok(fate),
        Err(_) if !goes => Ok(Fate::Stays),
        Err(fault) => Err(fault),
    }
}

fn up_to_half_a_second() -> Duration {
    Duration::from_millis(500).mul_f64(rand::random())
}
