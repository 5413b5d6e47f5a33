//! `kill -9` in the middle of enrollments, acks and actions: what was answered is there after the next start.
//!
//! Small in the suite. The whole scale, with a release binary:
//! `MUSTER_KILL_ROUNDS=20 MUSTER_KILL_ENROLLMENTS=1000 MUSTER_KILL_ACKS=10000 MUSTER_KILL_BINARY=target/release/muster
//! cargo test -p muster --test kill -- --nocapture`

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod backup;
mod load;
mod server;
mod verify;

use std::sync::Arc;
use std::time::{Duration, Instant};

use load::{Answered, Fleet, Load};
use server::Server;

/// Agents that ack; they come in before the first round.
const ACKERS: usize = 25;

/// How much is done, and how often the server is killed.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    enrollments: usize,
    acks: usize,
}

impl Scale {
    fn chosen() -> Self {
        let number = |name: &str, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
        Self {
            rounds: number("MUSTER_KILL_ROUNDS", 4),
            enrollments: number("MUSTER_KILL_ENROLLMENTS", 60),
            acks: number("MUSTER_KILL_ACKS", 400),
        }
    }

    /// The number of answers after which a round's server is killed: anywhere but at the ends.
    fn end_of(self, round: usize) -> usize {
        let all = self.enrollments + self.acks;
        let random = usize::try_from(rand::random::<u32>()).unwrap() % (all * 9 / 10);
        // The first round always gets into the middle, whatever chance says.
        if round == 0 { all / 2 } else { random }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_changes_survive_kill_9() {
    let scale = Scale::chosen();
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path());
    let fleet = Arc::new(Fleet::enroll(&server, ACKERS).await);
    let mut answered = Answered::default();
    for round in 0..scale.rounds {
        let end = scale.end_of(round);
        let load = Load::prepare(&server, &fleet, scale.enrollments, scale.acks).await;
        let began = Instant::now();
        let running = load.begin(&server);
        while load.answers() < end && running.is_going() && began.elapsed() < Duration::from_secs(300) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        server.kill();
        let took = began.elapsed();
        let of_round = running.end().await;
        let restart = Instant::now();
        server = Server::start(directory.path());
        let ready = restart.elapsed();
        verify::served(&server, &fleet, &of_round).await;
        println!(
            "round {round}: killed after {} ms; answered: {} enrollments, {} acks, {} actions; ready again in {} ms: all there",
            took.as_millis(),
            of_round.enrollments.len(),
            of_round.acks.len(),
            of_round.actions.len(),
            ready.as_millis()
        );
        answered.take(of_round);
    }
    server.stop();
    verify::stored(directory.path(), &answered).await;
    assert!(answered.enrollments.len() + answered.acks.len() >= (scale.enrollments + scale.acks) / 2, "it did work");
    println!(
        "in all {} enrollments, {} acks, {} actions answered, none lost; the audit chain is whole",
        answered.enrollments.len(),
        answered.acks.len(),
        answered.actions.len()
    );
}
