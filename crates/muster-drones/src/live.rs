//! Mode `live`: an agent's day, with the pauses and back-offs that real ones keep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::drone::{Drone, Fate, Fault};
use crate::session::Shared;
use crate::share::Admission;

/// Failures answered with 401 after which an agent asks once an hour only.
const DEAD_AFTER: u32 = 7;
const HOUR: Duration = Duration::from_secs(3600);

/// Back-off with equal jitter: half of the ceiling and up to as much again at random; the ceiling doubles.
#[derive(Clone, Debug)]
pub struct BackOff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
}

impl BackOff {
    /// Starts at `first`, never above `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, ceiling: first * 2 }
    }

    /// How long to wait now.
    pub fn next_pause(&mut self) -> Duration {
        let ceiling = self.ceiling.min(self.max.max(self.first));
        self.ceiling = ceiling * 2;
        ceiling / 2 + ceiling.mul_f64(rand::random::<f64>() / 2.0)
    }

    /// All is well again.
    pub fn reset(&mut self) {
        self.ceiling = self.first * 2;
    }
}

/// One agent from enrolment until it is told to go.
pub async fn live(shared: Arc<Shared>, number: u32, admission: Arc<Admission>, mut back_off: BackOff) {
    let mut drone = Drone::new(shared.clone(), number);
    admission.admit(&mut drone, &mut back_off).await;
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

/// A check-in and what follows from it. An ack that did not get through is no failed check-in.
async fn turn(drone: &mut Drone) -> Result<Fate, Fault> {
    let reply = drone.check_in(Instant::now()).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_within_its_jitter_and_resets() {
        let seconds = Duration::from_secs;
        let mut back_off = BackOff::new(seconds(60), seconds(600));
        for range in [60..=120, 120..=240, 240..=480, 300..=600, 300..=600] {
            let pause = back_off.next_pause().as_secs_f64();
            assert!(pause >= f64::from(*range.start()) && pause <= f64::from(*range.end()), "{pause} not in {range:?}");
        }
        back_off.reset();
        assert!(back_off.next_pause() <= seconds(120));
    }
}
