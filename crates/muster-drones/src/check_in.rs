//! Modes `heartbeat` and `change`: check-ins one after another, to measure the server's throughput.
//!
//! With a rate, each agent has a schedule, and the latency of a check-in counts from when it was due: if the server
//! stalls, check-ins that could not be sent meanwhile count as slow too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::drone::Drone;
use crate::fault::Fault;
use crate::session::Shared;

/// A check-in without a response after this time is held by the server.
const HELD: Duration = Duration::from_secs(2);

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Enrolling and settling.
    Waiting,
    /// Measuring.
    Running,
    /// Ending.
    Stopped,
}

/// The pattern of the check-ins.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Report a changed component each time.
    pub change: bool,
    /// Time between two check-ins of one agent; `None` means none.
    pub interval: Option<Duration>,
}

/// Brings an agent to where nothing is pending for it: connected, with its policy applied.
///
/// # Errors
/// If the server rejects a request.
pub async fn settle(drone: &mut Drone, invented: bool) -> Result<(), Fault> {
    drone.connect().await?;
    if !invented {
        let reply = drone.check_in(Instant::now()).await?;
        drone.act_on(reply).await?;
        // The second check-in reports that the policy runs: only then does a heartbeat change nothing. If the server
        // holds it, it has stored that already.
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
    // Agents start at random points of their schedules, or all would check in at once.
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
            // A short pause keeps a failing server from being hit in a busy loop.
            shared.tally.failed(&format!("check-in: {fault}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // From the schedule and not from now: a late check-in must not shift the following ones.
        due = pace.interval.map_or_else(Instant::now, |interval| due + interval);
    }
}

async fn turn(drone: &mut Drone, due: Instant) -> Result<(), Fault> {
    let reply = drone.check_in(due).await?;
    drone.act_on(reply).await.map(drop)
}
