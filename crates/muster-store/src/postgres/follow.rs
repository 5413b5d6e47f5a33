//! The thread that tells this server of changes that other servers commit.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::lease;
use super::session::PostgresSession;
use crate::engine::error::OpenError;
use crate::engine::log::publish_newest;
use crate::engine::session::{Next, Result, Session};
use muster_core::error_chain::chain;

/// How often the change log is asked for its newest number: a change made elsewhere is known here within this time.
const EVERY: Duration = Duration::from_millis(25);
/// How often, as long as the database does not answer.
const WHEN_LOST: Duration = Duration::from_secs(1);

/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(2);
/// How often the ids of old commits are removed.
const PRUNE: Duration = Duration::from_secs(60);
/// Outcomes are asked for within seconds; an hour is plenty.
const PRUNE_COMMITS: &str = "DELETE FROM commits WHERE committed_at < now() - interval '1 hour'";

const NEWEST: &str = "SELECT value FROM counters WHERE name = 'changes'";

/// A running thread; dropping it ends the thread.
pub(super) struct Follower {
    ending: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub(super) fn start(
        session: PostgresSession,
        epoch: String,
        newest: Arc<watch::Sender<i64>>,
    ) -> std::result::Result<Self, OpenError> {
        let (ending, ended) = channel();
        let thread = std::thread::Builder::new()
            .name("store-changes".into())
            .spawn(move || {
                follow(&session, &epoch, &newest, &ended);
                // The server stops cleanly: another one need not wait.
                if let Err(error) = lease::release(&session, &epoch) {
                    tracing::warn!(error = %chain(&error), "the lease of the database was not given back; it ends by itself");
                }
            })
            .map_err(OpenError::io("start the thread that follows the change log"))?;
        Ok(Self { ending: Some(ending), thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.ending = None;
        if let Some(thread) = self.thread.take() {
            // There is nobody to report a panic to.
            let _ = thread.join();
        }
    }
}

fn follow(session: &PostgresSession, epoch: &str, newest: &watch::Sender<i64>, ended: &Receiver<()>) {
    let (mut pause, mut is_lost) = (EVERY, false);
    let mut upkeep = Upkeep::new();
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(pause) {
        match upkeep.run(session, epoch).and_then(|()| newest_change(session)) {
            Ok(seq) => {
                if is_lost {
                    tracing::info!("the database answers again");
                }
                (pause, is_lost) = (EVERY, false);
                publish_newest(newest, seq);
            }
            Err(error) => {
                if !is_lost {
                    tracing::warn!(error = %chain(&error), "the database does not answer; trying again");
                }
                (pause, is_lost) = (WHEN_LOST, true);
            }
        }
    }
}

/// What is done now and then beside.
struct Upkeep {
    renewed: Instant,
    pruned: Instant,
    has_lease: bool,
}

impl Upkeep {
    fn new() -> Self {
        Self { renewed: Instant::now(), pruned: Instant::now(), has_lease: true }
    }

    fn run(&mut self, session: &PostgresSession, epoch: &str) -> Result<()> {
        if self.renewed.elapsed() >= RENEW {
            let has_lease = lease::renew(session, epoch)?;
            if self.has_lease && !has_lease {
                tracing::error!(
                    "another server has taken the database over: this one writes nothing any more; stop it"
                );
            }
            self.has_lease = has_lease;
            self.renewed = Instant::now();
        }
        if self.pruned.elapsed() >= PRUNE {
            session.run(PRUNE_COMMITS, &[])?;
            self.pruned = Instant::now();
        }
        Ok(())
    }
}

/// The newest number of the change log.
pub(super) fn newest_change(session: &PostgresSession) -> Result<i64> {
    let mut newest = 0;
    session.query(NEWEST, &[], &mut |row| {
        newest = row.get(0)?;
        Ok(Next::Enough)
    })?;
    Ok(newest)
}
