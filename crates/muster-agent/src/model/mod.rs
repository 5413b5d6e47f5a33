//! What a policy means on this host: its components and their units (AG §4.3).
//!
//! The model is a pure function of the policy, the variables, the installed components and the local rules. A component
//! that cannot run is part of the model, with the reason, so that the author of the policy learns about it.

pub mod build;
pub mod capabilities;
pub mod catalog;
pub mod command;
pub mod fleet_block;
pub mod inputs;
pub mod metrics;
pub mod otlp;
pub mod process;
pub mod service;
pub mod specification;

use std::sync::Arc;

use serde_json::Value;

pub use build::{Built, Document, Surroundings, build};
pub use catalog::Catalog;
use command::CommandSpec;
use metrics::MetricsSpec;
use process::ProcessSpec;
use service::ServiceSpec;

use crate::local_server::ServerSpec;

/// Level of the log messages of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Errors.
    Error,
    /// Also warnings.
    Warn,
    /// Also information.
    #[default]
    Info,
    /// Also debug messages.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// Parses a level of a policy.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "error" => Some(Self::Error),
            "warning" | "warn" => Some(Self::Warn),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            "trace" => Some(Self::Trace),
            _ => None,
        }
    }
}

/// Whether a unit reads or writes data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// An input of the policy.
    Input,
    /// The output that the inputs of the component write to.
    Output,
}

impl Direction {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// An input or an output of a component.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Id: that of the component for an output, that of the component and the input for an input.
    pub id: String,
    /// Input or output.
    pub direction: Direction,
    /// Rendered configuration.
    pub config: Arc<Value>,
    /// Log level.
    pub level: Level,
    /// Why it has no configuration. The other units of its component run without it.
    pub fault: Option<String>,
}

/// How a component runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// A program of the policy.
    Process(ProcessSpec),
    /// Readings of the host, by the agent itself.
    Metrics(MetricsSpec),
    /// An installed component that speaks the component protocol.
    Command(CommandSpec),
    /// An installed component that is a service of the operating system.
    Service(ServiceSpec),
    /// The fleet server on this host.
    Server(ServerSpec),
}

/// One component: the inputs of one type with one output.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// Id: `log-default`, or `process-default-web` for a type that runs each input by itself.
    pub id: String,
    /// Type of the inputs.
    pub kind: String,
    /// Its units; at least one input.
    pub units: Vec<Unit>,
    /// How it runs, or why it cannot.
    pub work: Result<Work, String>,
    /// Feature flags of the policy.
    pub features: Value,
    /// Limits of the policy.
    pub limits: Value,
}

/// All components of a policy, with unique ids.
pub type Model = Vec<Arc<Component>>;
