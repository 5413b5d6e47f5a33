//! States of components and units, as they are reported.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Component, Direction};

/// State of a component or a unit, as on the wire (AG §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Health {
    /// Started; whether it works is not known yet.
    Starting,
    /// Applying its configuration.
    Configuring,
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
            Self::Configuring => "CONFIGURING",
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Failed => "FAILED",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
        }
    }

    /// Returns whether somebody should look at it.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Degraded)
    }
}

/// State of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// Id.
    pub id: String,
    /// `input` or `output`.
    #[serde(rename = "type")]
    pub direction: String,
    /// State.
    pub state: Health,
    /// Description of the state.
    pub message: String,
    /// Free-form addition of the component, which is sent to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

/// State of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentState {
    /// Id: `process-default-web`.
    pub id: String,
    /// Type of its inputs.
    #[serde(rename = "type")]
    pub kind: String,
    /// State.
    pub state: Health,
    /// Description of the state.
    pub message: String,
    /// States of its units.
    #[serde(default)]
    pub units: Vec<UnitState>,
}

/// A component of a check-in (EA §4.1). The server's own type has no payloads, because it does not interpret them.
#[derive(Debug, Serialize)]
pub struct Reported<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    status: &'static str,
    message: &'a str,
    units: Vec<ReportedUnit<'a>>,
}

#[derive(Debug, Serialize)]
struct ReportedUnit<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    status: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Value>,
}

impl<'a> ReportedUnit<'a> {
    fn of(unit: &'a UnitState) -> Self {
        let UnitState { id, direction, state, message, payload } = unit;
        Self { id, kind: direction, status: state.as_str(), message, payload: payload.as_ref() }
    }
}

impl ComponentState {
    /// Creates a state in which all units have the state of the component.
    pub fn uniform(component: &Component, state: Health, message: &str) -> Self {
        let unit = |id: &str, direction: Direction| UnitState {
            id: id.to_owned(),
            direction: direction.as_str().to_owned(),
            state,
            message: message.to_owned(),
            payload: None,
        };
        Self {
            id: component.id.clone(),
            kind: component.kind.clone(),
            state,
            message: message.to_owned(),
            units: component.units.iter().map(|of| unit(&of.id, of.direction)).collect(),
        }
    }

    /// Converts the state for a check-in.
    pub fn to_wire(&self) -> Reported<'_> {
        Reported {
            id: &self.id,
            kind: &self.kind,
            status: self.state.as_str(),
            message: &self.message,
            units: self.units.iter().map(ReportedUnit::of).collect(),
        }
    }

    /// Returns the worst fault of the component or one of its units: its place, state and message.
    pub fn fault(&self) -> Option<(&str, Health, &str)> {
        let own = (self.id.as_str(), self.state, self.message.as_str());
        let units = self.units.iter().map(|unit| (unit.id.as_str(), unit.state, unit.message.as_str()));
        // Of equal faults, that of the component comes first: its units usually only repeat it.
        let all = std::iter::once(own).chain(units).filter(|(_, state, _)| state.is_bad());
        all.min_by_key(|(_, state, _)| *state != Health::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_of_a_unit_is_that_of_its_component() {
        let unit = |id: &str, state| UnitState {
            id: id.into(),
            direction: "input".into(),
            state,
            message: format!("{id} message"),
            payload: Some(serde_json::json!({"n": 1})),
        };
        let mut state = ComponentState {
            id: "log-default".into(),
            kind: "log".into(),
            state: Health::Healthy,
            message: "fine".into(),
            units: vec![unit("a", Health::Degraded), unit("b", Health::Failed)],
        };
        assert_eq!(state.fault(), Some(("b", Health::Failed, "b message")));
        let wire = serde_json::to_value(state.to_wire()).unwrap();
        assert_eq!(
            wire["units"][1],
            serde_json::json!({"id": "b", "type": "input", "status": "FAILED",
            "message": "b message", "payload": {"n": 1}})
        );
        state.state = Health::Failed;
        assert_eq!(state.fault().unwrap().0, "log-default");
        state.units.clear();
        state.state = Health::Stopping;
        assert_eq!(state.fault(), None);
    }
}
