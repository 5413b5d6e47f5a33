//! The thread that renews the registration of this node, and publishes changes that other nodes commit.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::registration::{self, Described, Node};
use super::session::PostgresSession;
use crate::engine::error::OpenError;
use crate::engine::feed::Feed;
use crate::engine::membership::Membership;
use crate::engine::session::{Next, Result, Session};
use crate::engine::writer::Sealing;
use crate::port::NodeLease;
use muster_core::error_chain::chain;

/// Interval at which the newest number of the change log is queried, and therefore the maximum delay of changes by
/// other nodes.
const EVERY: Duration = Duration::from_millis(25);
/// Interval while the database does not respond or this node can't register.
const WHEN_LOST: Duration = Duration::from_secs(1);

/// Interval at which the lease is renewed.
const RENEW: Duration = Duration::from_secs(2);
/// Interval at which other nodes' chains of the audit log are sealed, if they have grown.
const SEAL: Duration = Duration::from_secs(10);
/// Interval at which the ids of old commits are deleted.
const PRUNE: Duration = Duration::from_secs(60);
/// Outcomes are queried within seconds, so an hour is more than enough.
const PRUNE_COMMITS: &str = "DELETE FROM commits WHERE committed_at < now() - interval '1 hour'";

const NEWEST: &str = "SELECT value FROM counters WHERE name = 'changes'";

/// Handle of the thread. Dropping it ends the thread.
pub(super) struct Follower {
    ending: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub(super) fn start(
        session: PostgresSession,
        node: Node,
        membership: Arc<Membership>,
        feed: Arc<Feed>,
        sealing: Option<Sealing>,
    ) -> std::result::Result<Self, OpenError> {
        let (ending, ended) = channel();
        let follow = Follow {
            session,
            node,
            membership,
            feed,
            described: Described::default(),
            sealing,
            renewed: None,
            sealed: Instant::now(),
            pruned: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("store-changes".into())
            .spawn(move || follow.run(&ended))
            .map_err(OpenError::io("start the thread that follows the change log"))?;
        Ok(Self { ending: Some(ending), thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Wakes the thread, which ends when the sender is gone.
        self.ending = None;
        if let Some(thread) = self.thread.take() {
            // There is nobody to report a panic to.
            let _ = thread.join();
        }
    }
}

struct Follow {
    session: PostgresSession,
    node: Node,
    membership: Arc<Membership>,
    feed: Arc<Feed>,
    /// The node's row, as of the last renewal.
    described: Described,
    sealing: Option<Sealing>,
    renewed: Option<Instant>,
    sealed: Instant,
    pruned: Instant,
}

/// Result of the last round, so that each state is logged once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    /// This node can't register.
    Refused,
    NoAnswer,
}

impl Follow {
    fn run(mut self, ended: &Receiver<()>) {
        let mut state = State::Well;
        let mut pause = EVERY;
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(pause) {
            state = self.round(state);
            pause = if state == State::Well { EVERY } else { WHEN_LOST };
        }
        self.leave();
    }

    fn round(&mut self, before: State) -> State {
        // Upkeep first: while the lease is lost, the answer to `look` is no confirmation.
        match self.upkeep(before).and_then(|state| self.look().map(|()| state)) {
            Ok(state) => {
                if before == State::NoAnswer {
                    tracing::info!("the database responds again");
                }
                state
            }
            Err(error) => {
                if before != State::NoAnswer {
                    tracing::warn!(error = %chain(&error), "the database does not respond; retrying");
                }
                State::NoAnswer
            }
        }
    }

    /// Queries the newest change. While the lease is lost, the result does not count as a confirmation.
    fn look(&self) -> Result<()> {
        // Before the query: a change that was committed after it was sent may be missing in the answer.
        let asked = Instant::now();
        let newest = newest_change(&self.session)?;
        match self.membership.epoch() {
            Some(_) => self.feed.confirm(newest, asked),
            None => self.feed.publish(newest),
        }
        Ok(())
    }

    fn upkeep(&mut self, before: State) -> Result<State> {
        let standing = self.membership.standing();
        if standing.lease == NodeLease::Held && self.renewed.is_none_or(|at| at.elapsed() >= RENEW) {
            let asked = Instant::now();
            match registration::renew(&self.session, &standing.epoch, self.feed.handled())? {
                Some(described) => self.described = described,
                None => self.lost(),
            }
            // From when it was asked, so that slow answers do not stretch the interval.
            self.renewed = Some(asked);
            // Every node does this. Who wins does not matter, since a second deletion finds no row.
            registration::remove_expired(&self.session)?;
        }
        if self.sealed.elapsed() >= SEAL {
            self.sealing.iter().for_each(Sealing::seal);
            self.sealed = Instant::now();
        }
        if self.pruned.elapsed() >= PRUNE {
            self.session.run(PRUNE_COMMITS, &[])?;
            self.pruned = Instant::now();
        }
        // Read again: `renew`, or a commit of the writer, may have found the lease lost in between.
        match self.membership.standing().lease {
            NodeLease::Held => Ok(State::Well),
            NodeLease::Lost => self.register_again(before),
        }
    }

    fn lost(&self) {
        self.membership.lost(&self.membership.standing().epoch);
    }

    /// Registers again under a new epoch, after another node declared this one's lease ended.
    fn register_again(&mut self, before: State) -> Result<State> {
        self.session.begin()?;
        let registered = registration::register(&self.session, &self.node, &self.described, self.feed.handled());
        let epoch = match registered {
            Ok(Ok(epoch)) => epoch,
            Ok(Err(refusal)) => {
                self.session.roll_back()?;
                if before != State::Refused {
                    let error = refusal.into_error();
                    tracing::error!(%error, "this server lost its lease in the database and cannot register again; it cannot write");
                }
                return Ok(State::Refused);
            }
            Err(error) => {
                // Otherwise the transaction would keep the lock of the schema, and no server could start.
                self.session.roll_back()?;
                return Err(error);
            }
        };
        self.session.commit_unfenced()?;
        tracing::warn!("the lease of this node expired; registered again");
        // After the commit: whoever sees the new epoch must be able to commit under it.
        self.membership.registered(epoch);
        self.renewed = Some(Instant::now());
        Ok(State::Well)
    }

    /// Releases the lease, so that other nodes see at once that this one has stopped.
    fn leave(&self) {
        if let Some(epoch) = self.membership.epoch()
            && let Err(error) = registration::release(&self.session, &epoch)
        {
            tracing::warn!(error = %chain(&error), "failed to release the lease in the database; it will expire");
        }
    }
}

/// Returns the newest number of the change log.
pub(super) fn newest_change(session: &PostgresSession) -> Result<i64> {
    let mut newest = 0;
    session.query(NEWEST, &[], &mut |row| {
        newest = row.get(0)?;
        Ok(Next::Enough)
    })?;
    Ok(newest)
}
