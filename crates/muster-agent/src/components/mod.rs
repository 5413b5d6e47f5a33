//! The programs of a policy and their states.

pub mod log_file;
pub mod orphans;
pub mod process;
pub mod spec;
pub mod supervisor;

use async_trait::async_trait;
use muster_protocol::elastic::check_in::{Component, Unit};
use serde::{Deserialize, Serialize};

use spec::Wanted;

/// State of a component or a unit, as on the wire (AG §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Health {
    /// Started; whether it works is not known yet.
    Starting,
    /// Working.
    Healthy,
    /// Partly working.
    Degraded,
    /// Not working.
    Failed,
    /// Shutting down.
    Stopping,
    /// Stopped intentionally.
    Stopped,
}

impl Health {
    /// Returns the name on the wire.
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

/// State of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentState {
    /// Id: `process-default-web`.
    pub id: String,
    /// Type of the input.
    #[serde(rename = "type")]
    pub kind: String,
    /// State.
    pub state: Health,
    /// Description of the state.
    pub message: String,
}

impl ComponentState {
    /// Converts the state for a check-in: a component with an output unit and an input unit (EA §4.1).
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
            // Elastic Agents report both units of every component, and servers expect this.
            units: Some(vec![unit(self.id.clone(), "output"), unit(format!("{}-unit", self.id), "input")]),
        }
    }
}

/// Runs components, as processes or simulated in tests.
#[async_trait]
pub trait Components: Send + Sync {
    /// Runs exactly the components in `wanted`: stops removed and changed components, waits for them, and then starts
    /// new ones.
    async fn apply(&self, wanted: Vec<Wanted>);
    /// Stops all components because the agent exits. Keeps their working directories.
    async fn halt(&self);
    /// Returns the state of every component, sorted by id.
    fn states(&self) -> Vec<ComponentState>;
    /// Returns when a state has changed since the last call.
    async fn changed(&self);
}
