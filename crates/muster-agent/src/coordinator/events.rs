//! What the loop waits for. Everything that takes time runs in a slot, with at most one future of each kind.

use std::future::Future;
use std::pin::Pin;

use muster_protocol::elastic::ack::AckItem;
use tokio::task::{Id, JoinError};

use super::Command;
use super::background::Finished;
use super::trial::Route;
use super::upgrade::Outcome;
use crate::fleet::CallError;
use crate::fleet::check_in::Reply;
use crate::policy::Accepted;
use crate::state::{Action, Enrollment, PendingAck};

/// The enrollment at the server of a migration.
pub(super) type Joining = Pin<Box<dyn Future<Output = Result<Enrollment, String>> + Send>>;

pub(super) type Slot<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// How a check-in ended.
pub(super) enum Poll {
    Answered(Reply),
    /// The agent ended it before a device on the network path would have.
    GivenUp,
    Failed(CallError),
}

/// The acks that were sent, and the server's response to each.
pub(super) type Delivery = (Vec<PendingAck>, Result<Vec<AckItem>, CallError>);

/// Result of a task.
pub(super) enum Done {
    /// The variables of the policy to apply are known, as far as they are available.
    Prepared,
    /// A new policy is in effect. Contains the route to try from now on, or the reason to keep the current one.
    Applied(Box<Accepted>, Result<Option<Route>, String>),
    /// The route of the stored policy, which is not in use, was tested after the start.
    Elected(Result<Route, String>),
    /// The components of an unenrolled agent have stopped, or had enough time to.
    Stopped,
    /// The server that a migrated agent leaves has been notified, or there was enough time to.
    Told,
}

pub(super) enum Event {
    Polled(Poll),
    Acknowledged(Vec<PendingAck>, Result<Vec<AckItem>, CallError>),
    Worked(Done),
    BackgroundDone(Result<(Id, Finished), JoinError>),
    /// Without an outcome, it is only progress.
    Upgraded(Option<Outcome>),
    Joined(Action, Box<Result<Enrollment, String>>),
    /// An unreachable server responds again.
    Recovered,
    ComponentsChanged,
    VariablesChanged,
    Tick,
    Command(Command),
}

/// Waits for the enrollment of a migration; never returns if there is none.
pub(super) async fn joined(migrating: &mut Option<(Action, Joining)>) -> (Action, Result<Enrollment, String>) {
    let Some((_, joining)) = migrating else { return std::future::pending().await };
    let outcome = joining.await;
    match migrating.take() {
        Some((action, _)) => (action, outcome),
        None => std::future::pending().await,
    }
}

/// Waits for the future in the slot and empties it; never returns if the slot is empty.
pub(super) async fn settle<T>(slot: &mut Slot<T>) -> T {
    match slot {
        Some(future) => {
            // The future stays in the slot while it is pending, so that a `select!` that drops this call loses nothing.
            let outcome = future.await;
            *slot = None;
            outcome
        }
        None => std::future::pending().await,
    }
}
