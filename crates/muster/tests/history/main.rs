//! Three servers over one PostgreSQL database through crashes, a long sleep, cuts, restarts of the database and a rolling upgrade:
//! the histories that agents and administrators keep show nothing acknowledged lost, nothing delivered after its ack, and no revoked
//! key admitted.
//!
//! Small in the suite. Larger, and with other programs:
//!
//! ```text
//! MUSTER_HISTORY_AGENTS=5000 MUSTER_HISTORY_ROUNDS=3 MUSTER_HISTORY_POLL=10 MUSTER_HISTORY_BALANCER=haproxy \
//!     MUSTER_HISTORY_OLD_BINARY=old/muster MUSTER_HISTORY_BINARY=target/release/muster \
//!     cargo test --workspace --test history -- --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod administrators;
mod agents;
mod balancer;
mod faults;
mod process;
mod record;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use record::History;
use world::World;

/// Time for enough to happen after the faults, and then for deliveries, acks and retries to end.
const REST: Duration = Duration::from_secs(60);

/// What is run, and how much of it.
pub struct Scale {
    /// Agents at the beginning.
    agents: u32,
    /// How often the faults are repeated.
    rounds: u32,
    /// Time for which the servers hold a poll.
    poll: Duration,
    /// The program with which the servers begin.
    old: PathBuf,
    /// The program to which the first round upgrades them.
    new: PathBuf,
    /// HAProxy, if agents connect through it.
    balancer: Option<PathBuf>,
}

impl Scale {
    fn from_environment() -> Self {
        let number = |name: &str, default: u32| std::env::var(name).map_or(default, |value| value.parse().unwrap());
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let new = path("MUSTER_HISTORY_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_muster").into());
        Self {
            agents: number("MUSTER_HISTORY_AGENTS", 16),
            rounds: number("MUSTER_HISTORY_ROUNDS", 1),
            poll: Duration::from_secs(number("MUSTER_HISTORY_POLL", 2).into()),
            old: path("MUSTER_HISTORY_OLD_BINARY").unwrap_or_else(|| new.clone()),
            new,
            balancer: path("MUSTER_HISTORY_BALANCER"),
        }
    }

    /// Time after which an agent gives a request up: a stopped server does not answer.
    pub fn patience(&self) -> Duration {
        self.poll + Duration::from_secs(2)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_are_consistent_through_faults() {
    muster_drones::dial::raise_open_files().unwrap();
    let scale = Scale::from_environment();
    let (agents, rounds) = (scale.agents, scale.rounds);
    let began = Instant::now();
    let world = World::start(scale).await;
    let history = Arc::new(History::default());
    let fleet = agents::Fleet::start(&world, &history, agents).await;
    println!("{:.0?}: {}", began.elapsed(), history.summary());
    let work = administrators::start(&world, &history, &fleet);
    for round in 0..rounds {
        faults::happen(&world).await;
        println!("{:.0?}, round {round}: {}", began.elapsed(), history.summary());
    }
    // On a busy machine, the faults can be over before much has happened.
    assert!(comes_true(|| history.is_eventful()).await, "too little happened: {}", history.summary());
    // Every server accepts again; whatever is open comes to an end.
    work.stop().await;
    let rests = comes_true(|| history.is_at_rest()).await;
    println!("{:.0?}, at rest: {}", began.elapsed(), history.summary());
    fleet.stop().await;
    assert!(rests, "not delivered or not acknowledged: {}", history.open());
    history.check();
    administrators::verify(&world, &history).await;
    println!("{:.0?}, verified on every server", began.elapsed());
}

/// Waits until something is true; returns whether that happened within [`REST`].
async fn comes_true(is_true: impl Fn() -> bool) -> bool {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(REST, waiting).await.is_ok()
}
