//! The programs that a policy makes run, and how they are.

pub mod log_file;
pub mod orphans;
pub mod process;
pub mod spec;
pub mod supervisor;

use async_trait::async_trait;
use muster_protocol::elastic::check_in::{Component, Unit};
use serde::{Deserialize, Serialize};

use spec::Wanted;

/// State of a component or a unit (AG §3.3), in the words of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Health {
    /// Started, not known to work yet.
    Starting,
    /// Works.
    Healthy,
    /// Works in part.
    Degraded,
    /// Does not work.
    Failed,
    /// On its way down.
    Stopping,
    /// Down, as wanted.
    Stopped,
}

impl Health {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Failed => "FAILED",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// How one component is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentState {
    /// `process-default-web`.
    pub id: String,
    /// The input's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// How it is.
    pub state: Health,
    /// The message beside it.
    pub message: String,
}

impl ComponentState {
    /// As it stands in a check-in: the component with its output and its input (EA §4.1).
    pub fn to_wire(&self) -> Component<'_> {
        let unit = |id: String, kind: &'static str| Unit {
            id: id.into(),
            kind: kind.into(),
            status: self.state.as_str().into(),
            message: self.message.as_str().into(),
        };
        Component {
            id: self.id.as_str().into(),
            kind: self.kind.as_str().into(),
            status: self.state.as_str().into(),
            message: self.message.as_str().into(),
            units: Some(vec![unit(self.id.clone(), "output"), unit(format!("{}-unit", self.id), "input")]),
        }
    }
}

/// Whatever runs components: processes, or a pretence in simulations.
#[async_trait]
pub trait Components: Send + Sync {
    /// Makes exactly `wanted` run: stops what is gone or changed and waits for it, then starts what is new.
    async fn apply(&self, wanted: Vec<Wanted>);
    /// Stops everything, since the agent ends. What the programs keep in their working folders stays.
    async fn halt(&self);
    /// How every component is, by id.
    fn states(&self) -> Vec<ComponentState>;
    /// Returns after something changed since the last call.
    async fn changed(&self);
}
