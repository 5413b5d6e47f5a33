//! Three servers over one PostgreSQL database through a crash, a long sleep and lost connections: the histories that agents
//! and administrators keep show nothing acknowledged lost, nothing delivered after its ack, and no revoked key admitted.
//!
//! Small in the suite. `MUSTER_HISTORY_AGENTS=500 MUSTER_HISTORY_ROUNDS=10 cargo test -p muster --test history -- --nocapture`
//! runs for longer.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod administrators;
mod agents;
mod record;
mod world;

use std::sync::Arc;
use std::time::Duration;

use record::History;
use world::World;

/// Longer than the lease of a server, so that the others take over.
const ASLEEP: Duration = Duration::from_secs(18);
/// Time to come to rest at the end: deliveries, acks and retries.
const REST: Duration = Duration::from_secs(60);

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_are_consistent_through_faults() {
    let (agents, rounds) = (number("MUSTER_HISTORY_AGENTS", 16), number("MUSTER_HISTORY_ROUNDS", 1));
    let world = World::start().await;
    let history = Arc::new(History::default());
    let fleet = agents::Fleet::start(&world, &history, agents).await;
    let work = administrators::start(&world, &history, &fleet);
    for round in 0..rounds {
        faults(&world).await;
        println!("round {round}: {}", history.summary());
    }
    // Every server accepts again; whatever is open comes to an end.
    work.stop().await;
    let resting = async {
        while !history.is_at_rest() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let rests = tokio::time::timeout(REST, resting).await;
    fleet.stop().await;
    assert!(rests.is_ok(), "not delivered or not acknowledged: {}", history.open());
    history.check();
    administrators::verify(&world, &history).await;
    println!("{}", history.summary());
}

async fn faults(world: &World) {
    let pause = || tokio::time::sleep(Duration::from_millis(1500));
    pause().await;
    world.kill(0).await;
    pause().await;
    world.restart(0).await;
    pause().await;
    world.cut_connections().await;
    pause().await;
    world.stop_process(1);
    tokio::time::sleep(ASLEEP).await;
    world.continue_process(1);
    pause().await;
    world.cut_connections().await;
    pause().await;
}
