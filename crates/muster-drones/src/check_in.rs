//! Modes `heartbeat` and `change`: check-ins one after another, to see how many a server takes.
//!
//! With a rate, each agent has a schedule, and a check-in's latency counts from the moment it was due: if the server
//! stalls, the check-ins that could not be sent meanwhile are charged to it as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::drone::{Drone, Fault};
use crate::session::Shared;

/// A check-in that is not answered within this time is held.
const HELD: Duration = Duration::from_secs(2);

/// Where a share stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Getting ready.
    Waiting,
    /// Measuring.
    Running,
    /// Over.
    Stopped,
}

/// How the check-ins go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Report a changed component each time.
    pub change: bool,
    /// Time between two check-ins of one agent; `None`: at once.
    pub interval: Option<Duration>,
}

/// Brings an agent to where it has nothing new to hear: connected, on its policy.
///
/// # Errors
/// When the server refuses.
pub async fn settle(drone: &mut Drone, invented: bool) -> Result<(), Fault> {
    drone.connect().await?;
    if !invented {
        let reply = drone.check_in(Instant::now()).await?;
        drone.act_on(reply).await?;
        // The second says that the policy runs: only then does a heartbeat change nothing. A server that holds it has
        // written that down already.
        match tokio::time::timeout(HELD, drone.check_in(Instant::now())).await {
            Ok(reply) => drop(drone.act_on(reply?).await?),
            Err(_) => drone.connect().await?,
        }
    }
    Ok(())
}

/// Checks in from when the phase says so until it ends.
pub async fn repeat(shared: Arc<Shared>, mut drone: Drone, pace: Pace, mut phase: watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase != Phase::Waiting).await.is_err() {
        return;
    }
    let mut over = phase.clone();
    let mut due = Instant::now() + pace.interval.unwrap_or_default().mul_f64(rand::random());
    while *phase.borrow() == Phase::Running {
        tokio::time::sleep_until(due.into()).await;
        drone.pid += u32::from(pace.change);
        // A server that holds the poll must not hold the end of the run.
        let turned = tokio::select! {
            turned = turn(&mut drone, due) => turned,
            _ = over.wait_for(|phase| *phase == Phase::Stopped) => return,
        };
        if let Err(fault) = turned {
            shared.tally.failed(&format!("check-in: {fault}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        due = pace.interval.map_or_else(Instant::now, |interval| due + interval);
    }
}

async fn turn(drone: &mut Drone, due: Instant) -> Result<(), Fault> {
    let reply = drone.check_in(due).await?;
    drone.act_on(reply).await.map(drop)
}
