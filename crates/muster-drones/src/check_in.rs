//! Modes `heartbeat` and `change`: consecutive check-ins, to measure the server's throughput.
//!
//! With a rate, each agent has a schedule, and the latency of a check-in counts from the time at which it was due. If
//! the server stalls, check-ins that could not be sent in the meantime also count as slow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::drone::Drone;
use crate::fault::Fault;
use crate::session::Shared;

/// If a check-in has no response after this time, the server holds it.
const HELD: Duration = Duration::from_secs(2);

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Enrolling, and the first check-ins.
    Waiting,
    /// Measuring.
    Running,
    /// Ending.
    Stopped,
}

/// The pattern of the check-ins.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Whether each check-in reports a changed component.
    pub change: bool,
    /// Time between two check-ins of one agent; `None` means none.
    pub interval: Option<Duration>,
}

/// Connects an agent and applies its policy, so that nothing is pending for it.
///
/// # Errors
/// If the server rejects a request.
pub async fn settle(drone: &mut Drone, invented: bool) -> Result<(), Fault> {
    drone.connect().await?;
    if !invented {
        let reply = drone.check_in(Instant::now()).await?;
        drone.act_on(reply).await?;
        // The second check-in reports the running policy. Only after it does a heartbeat change nothing. If the server
        // holds this check-in, it has already stored the report.
        match tokio::time::timeout(HELD, drone.check_in(Instant::now())).await {
            Ok(reply) => drop(drone.act_on(reply?).await?),
            Err(_) => {
                drone.disconnect();
                drone.connect().await?;
            }
        }
    }
    Ok(())
}

/// Checks in repeatedly while the phase is `Running`.
pub async fn repeat(shared: Arc<Shared>, mut drone: Drone, pace: Pace, mut phase: watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase != Phase::Waiting).await.is_err() {
        return;
    }
    let mut over = phase.clone();
    // Agents start at random points of their schedules, so that they do not all check in at the same time.
    let mut due = Instant::now() + pace.interval.unwrap_or_default().mul_f64(rand::random());
    while *phase.borrow() == Phase::Running {
        tokio::time::sleep_until(due.into()).await;
        drone.pid += u32::from(pace.change);
        // A held check-in must not delay the end of the run.
        let turned = tokio::select! {
            turned = turn(&mut drone, due) => turned,
            _ = over.wait_for(|phase| *phase == Phase::Stopped) => return,
        };
        if let Err(fault) = turned {
            // A short pause prevents a busy loop if the server fails.
            shared.tally.failed(&format!("check-in: {fault}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Based on the schedule and not on the current time, because a late check-in must not delay the following ones.
        due = pace.interval.map_or_else(Instant::now, |interval| due + interval);
    }
}

async fn turn(drone: &mut Drone, due: Instant) -> Result<(), Fault> {
    let reply = drone.check_in(due).await?;
    drone.act_on(reply).await.map(drop)
}
