//! The thread that keeps this server a node of its database, and tells it of changes that other nodes commit.

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

/// How often the change log is asked for its newest number: a change made elsewhere is known here within this time.
const EVERY: Duration = Duration::from_millis(25);
/// How often, as long as the database does not answer or this node can't register.
const WHEN_LOST: Duration = Duration::from_secs(1);

/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(2);
/// How often the other nodes' chains of the audit log are sealed, if they have grown.
const SEAL: Duration = Duration::from_secs(10);
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

/// What the last round came to, so that each state is logged once.
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
        match self.upkeep(before).and_then(|state| self.look().map(|()| state)) {
            Ok(state) => {
                if before == State::NoAnswer {
                    tracing::info!("the database answers again");
                }
                state
            }
            Err(error) => {
                if before != State::NoAnswer {
                    tracing::warn!(error = %chain(&error), "the database does not answer; retrying");
                }
                State::NoAnswer
            }
        }
    }

    /// Asks for the newest change. While the lease is lost, the answer is no confirmation.
    fn look(&self) -> Result<()> {
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
            self.renewed = Some(asked);
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
        match self.membership.standing().lease {
            NodeLease::Held => Ok(State::Well),
            NodeLease::Lost => self.register_again(before),
        }
    }

    fn lost(&self) {
        self.membership.lost(&self.membership.standing().epoch);
    }

    /// Registers again under a new epoch, after this node was taken for dead.
    fn register_again(&mut self, before: State) -> Result<State> {
        self.session.begin()?;
        let registered = registration::register(&self.session, &self.node, &self.described, self.feed.handled());
        let epoch = match registered {
            Ok(Ok(epoch)) => epoch,
            Ok(Err(refusal)) => {
                self.session.roll_back()?;
                if before != State::Refused {
                    let error = refusal.into_error();
                    tracing::error!(%error, "this server lost its lease on the database and can't register again; it writes nothing");
                }
                return Ok(State::Refused);
            }
            Err(error) => {
                self.session.roll_back()?;
                return Err(error);
            }
        };
        self.session.commit_unfenced()?;
        tracing::warn!("this node was taken for dead by another one, and has registered again");
        self.membership.registered(epoch);
        self.renewed = Some(Instant::now());
        Ok(State::Well)
    }

    /// Gives the lease back, so that the others know at once that this node has stopped.
    fn leave(&self) {
        if let Some(epoch) = self.membership.epoch()
            && let Err(error) = registration::release(&self.session, &epoch)
        {
            tracing::warn!(error = %chain(&error), "the lease on the database was not given back; it ends by itself");
        }
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
