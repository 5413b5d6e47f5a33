//! Orders to agents: one action each, whatever the number of its targets.
//!
//! [`Fleet::give`](give) is the one way: it asks of every selected agent whether it can be ordered, commits the action
//! with those that can as targets and an error result for each that can't, and then changes the records that the
//! order itself changes. Who can be ordered what is decided in core's `eligibility`, what a valid order is in its
//! `order`, and what an order does to a record before its ack in its `lifecycle`.

mod any;
mod cancel;
mod effect;
mod facts;
mod give;
mod migrate;
mod reassign;
mod secrets;
mod sign;
mod tag;
mod unenroll;
mod upgrade;

use muster_core::action::Action;
use muster_core::id::AgentId;

pub use migrate::MigrateOrder;
pub use unenroll::UnenrollOrder;
pub use upgrade::UpgradeOrder;

/// An order that was given.
#[derive(Debug)]
pub struct Given {
    /// The action that was made.
    pub action: Action,
    /// Agents that it was addressed to.
    pub ordered: u64,
    /// Agents that could not be ordered, and why.
    pub refused: Vec<(AgentId, String)>,
}
