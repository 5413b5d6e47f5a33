//! Orders to agents: one action each, whatever the number of its targets.
//!
//! [`Fleet::give`] is the one way: it asks of every selected agent whether it can be ordered, commits the action with
//! those that can as targets and an error result for each that can't, and then changes the records that the order
//! itself changes. What an order does before its ack is decided in core's `lifecycle`.

mod any;
mod cancel;
mod give;
mod hosted;
mod migrate;
mod reassign;
mod secrets;
pub mod sign;
mod tag;
mod unenroll;
mod upgrade;

use muster_core::Error;
use muster_core::action::{Action, ActionType};
use muster_core::id::AgentId;
use muster_core::schedule::schedule;
use muster_core::time::Timestamp;
use muster_store::Write;
use serde_json::Value;

pub use migrate::MigrateOrder;
pub use unenroll::UnenrollOrder;
pub use upgrade::UpgradeOrder;

/// An order before it is given.
#[derive(Debug)]
pub struct NewOrder {
    /// What is ordered.
    pub kind: ActionType,
    /// Its own fields.
    pub data: Option<Value>,
    /// Component type that an `INPUT_ACTION` is for.
    pub input_type: String,
    /// How long the agent may take, seconds.
    pub timeout: Option<i64>,
    /// When it ends; `None`: after its type's usual time.
    pub expiration: Option<Timestamp>,
    /// When the agents are to run it.
    pub start_time: Option<Timestamp>,
    /// Window over which their starts are spread, seconds.
    pub rollout_seconds: Option<i64>,
    /// Sealed secrets that its data refers to.
    secrets: Vec<Write>,
}

impl NewOrder {
    /// An order of that type, with nothing in it.
    pub fn new(kind: ActionType) -> Self {
        Self {
            kind,
            data: None,
            input_type: String::new(),
            timeout: None,
            expiration: None,
            start_time: None,
            rollout_seconds: None,
            secrets: Vec::new(),
        }
    }

    /// The same order with its times settled: when it starts, and when it ends.
    fn scheduled(self, now: Timestamp) -> Result<Self, Error> {
        let times = schedule(self.kind, now, self.start_time, self.rollout_seconds, self.expiration)?;
        Ok(Self { start_time: times.start, expiration: times.end, ..self })
    }

    /// The same order with these fields of its own.
    #[must_use]
    pub fn data(self, data: Value) -> Self {
        Self { data: Some(data), ..self }
    }
}

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
