//! What one component is told, and what its reports mean (AG §5.3). A pure state machine: time is a parameter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::messages::{
    AgentInfo, CheckinExpected, CheckinObserved, ComponentSettings, Features, Fqdn, Limits, LogLevel, State,
    UnitExpected, UnitObserved, UnitType,
};
use super::values::{to_json, to_struct, unit_config};
use crate::components::{ComponentState, Health, UnitState};
use crate::model::{Component, Direction, Level, Unit};

/// Number of missed check-ins after which a component is killed (AG61).
pub const MISSES_MAX: u32 = 3;
/// Maximum length of the message of a unit, in characters.
const MESSAGE_MAX: usize = 2048;
/// Maximum number of units that the component was not told about and that are listed in its state.
const STRANGERS_MAX: usize = 16;
/// Maximum size of a payload as JSON, in bytes. Payloads are sent to the server.
const PAYLOAD_MAX: usize = 64 << 10;

/// What follows from the passing of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// The component does not respond, and must be killed.
    Kill,
}

type Key = (Direction, String);

/// A unit with what it should do and what it does.
#[derive(Debug)]
struct Tracked {
    config: Arc<Value>,
    level: Level,
    /// Whether the level was sent.
    knows_level: bool,
    /// Index of the configuration: starts at 1, grows with each change.
    index: u64,
    is_leaving: bool,
    observed: Option<UnitObserved>,
    /// Why the model has no configuration for it.
    fault: Option<String>,
    /// It was reported, and then no longer.
    is_missing: bool,
}

impl Tracked {
    fn new(unit: &Unit) -> Self {
        Self {
            config: unit.config.clone(),
            level: unit.level,
            knows_level: false,
            index: 1,
            is_leaving: false,
            observed: None,
            fault: unit.fault.clone(),
            is_missing: false,
        }
    }

    fn expected(&self, key: &Key) -> UnitExpected {
        let knows = self.observed.as_ref().is_some_and(|observed| observed.config_state_idx == self.index);
        // A unit that is leaving needs no configuration.
        let config = (!knows && !self.is_leaving).then(|| unit_config(&self.config));
        UnitExpected {
            id: key.1.clone(),
            kind: wire_type(key.0).into(),
            state: self.wanted().into(),
            config_state_idx: self.index,
            config,
            log_level: wire_level(self.level).into(),
        }
    }

    fn wanted(&self) -> State {
        if self.is_leaving { State::Stopped } else { State::Healthy }
    }

    fn is_settled(&self) -> bool {
        self.knows_level
            && self.observed.as_ref().is_some_and(|observed| {
                observed.config_state_idx == self.index && observed.state == i32::from(self.wanted())
            })
    }

    fn state(&self) -> (Health, String, Option<Value>) {
        let Some(observed) = &self.observed else { return (Health::Starting, "Starting".into(), None) };
        if self.is_missing {
            return (Health::Failed, "Failed: not reported by the component".into(), None);
        }
        let payload = observed.payload.as_ref().map(to_json).filter(|payload| payload.to_string().len() <= PAYLOAD_MAX);
        let state = health(observed.state);
        let message = observed.message.chars().take(MESSAGE_MAX).collect();
        // A report about an earlier configuration says nothing about the current one.
        if observed.config_state_idx != self.index && !self.is_leaving && state != Health::Failed {
            return (Health::Configuring, "Configuring".into(), payload);
        }
        (state, message, payload)
    }
}

/// The check-ins of one component. Its indexes go on counting when the component is restarted (AG163).
#[derive(Debug)]
pub struct Session {
    component: Arc<Component>,
    agent: AgentInfo,
    units: BTreeMap<Key, Tracked>,
    strangers: Vec<UnitState>,
    features_idx: u64,
    component_idx: u64,
    seen_features: u64,
    seen_component: u64,
    in_contact: bool,
    last_check_in: Option<Instant>,
    misses: u32,
    pid: u32,
    state: (Health, String),
}

impl Session {
    /// Creates a session of a component that is not running.
    pub fn new(component: Arc<Component>, agent: AgentInfo) -> Self {
        let fresh = component.units.iter().map(|unit| ((unit.direction, unit.id.clone()), Tracked::new(unit)));
        Self {
            units: fresh.collect(),
            component,
            agent,
            strangers: Vec::new(),
            features_idx: 1,
            component_idx: 1,
            seen_features: 0,
            seen_component: 0,
            in_contact: false,
            last_check_in: None,
            misses: 0,
            pid: 0,
            state: (Health::Starting, "Starting".into()),
        }
    }

    /// Takes a changed component. Returns the message for the component, if it is connected.
    pub fn update(&mut self, component: Arc<Component>) -> Option<CheckinExpected> {
        let mut gone: Vec<Key> = self.units.keys().cloned().collect();
        for unit in &component.units {
            let key = (unit.direction, unit.id.clone());
            gone.retain(|one| *one != key);
            match self.units.get_mut(&key) {
                // A unit that left and comes back is a new one.
                Some(known) if !known.is_leaving => {
                    known.index += u64::from(known.config != unit.config);
                    known.knows_level &= known.level == unit.level;
                    (known.config, known.level) = (unit.config.clone(), unit.level);
                    known.fault.clone_from(&unit.fault);
                }
                _ => drop(self.units.insert(key, Tracked::new(unit))),
            }
        }
        for key in gone {
            match self.units.get_mut(&key) {
                // A component that does not know the unit will not report that it has stopped.
                Some(known) if known.observed.is_some() => known.is_leaving = true,
                _ => drop(self.units.remove(&key)),
            }
        }
        // Compared with the indexes that the component reports, which tells whether it has taken the change.
        self.features_idx += u64::from(component.features != self.component.features);
        self.component_idx += u64::from(component.limits != self.component.limits);
        self.component = component;
        (self.in_contact && !self.is_settled()).then(|| self.expected())
    }

    /// Records that the process was started.
    pub fn started(&mut self, pid: u32, now: Instant) {
        self.begin(pid, now, format!("Starting: spawned pid '{pid}'"));
    }

    /// Records that a service, which the agent does not start itself, may connect.
    pub fn awaited(&mut self, now: Instant) {
        self.begin(0, now, "Starting: waiting for the service".into());
    }

    fn begin(&mut self, pid: u32, now: Instant, message: String) {
        // A new process knows nothing: its first message contains all configurations and levels.
        for unit in self.units.values_mut() {
            (unit.observed, unit.is_missing, unit.knows_level) = (None, false, false);
        }
        self.units.retain(|_, unit| !unit.is_leaving);
        self.strangers.clear();
        (self.seen_features, self.seen_component) = (0, 0);
        (self.in_contact, self.misses, self.pid) = (false, 0, pid);
        // The first check-in is due as if there had been one at the start.
        self.last_check_in = Some(now);
        self.state = (Health::Starting, message);
    }

    /// Records that the process has ended or is being stopped. Late check-ins are ignored.
    pub fn ended(&mut self, state: Health, message: String) {
        (self.in_contact, self.last_check_in) = (false, None);
        self.strangers.clear();
        self.state = (state, message);
    }

    /// Records a check-in. Returns the message for the component, if there is anything that it does not know or do yet.
    pub fn check_in(&mut self, message: CheckinObserved, now: Instant) -> Option<CheckinExpected> {
        // Nothing was started, or it has ended.
        self.last_check_in?;
        let is_first = !self.in_contact;
        (self.in_contact, self.misses, self.last_check_in) = (true, 0, Some(now));
        (self.seen_features, self.seen_component) = (message.features_idx, message.component_idx);
        if self.pid == 0 {
            // Only a service itself knows its process.
            self.pid = u32::try_from(message.pid).unwrap_or_default();
        }
        self.state = (Health::Healthy, format!("Healthy: communicating with pid '{}'", self.pid));
        self.observe(message.units);
        (is_first || !self.is_settled()).then(|| self.expected())
    }

    fn observe(&mut self, reported: Vec<UnitObserved>) {
        self.strangers.clear();
        let mut more = 0;
        let mut silent: Vec<Key> = self.units.keys().cloned().collect();
        for observed in reported {
            let key = (direction(observed.kind), observed.id.clone());
            silent.retain(|one| *one != key);
            match self.units.get_mut(&key) {
                // It has stopped, as it should.
                Some(known) if known.is_leaving && observed.state == i32::from(State::Stopped) => {
                    self.units.remove(&key);
                }
                Some(known) => (known.observed, known.is_missing) = (Some(observed), false),
                // Removed here when it reported this for the first time.
                None if observed.state == i32::from(State::Stopped) => {}
                None if self.strangers.len() < STRANGERS_MAX => self.strangers.push(stranger(&key)),
                None => more += 1,
            }
        }
        if more > 0
            && let Some(last) = self.strangers.last_mut()
        {
            last.message = format!("Failed: unknown unit, as are {more} others");
        }
        for key in silent {
            match self.units.get_mut(&key) {
                // It has stopped, and the component has dropped it already.
                Some(known) if known.is_leaving => drop(self.units.remove(&key)),
                // A unit that was never reported may still be starting (AG69).
                Some(known) => {
                    let starting = i32::from(State::Starting);
                    known.is_missing = known.observed.as_ref().is_some_and(|unit| unit.state != starting);
                }
                None => {}
            }
        }
    }

    /// Records the passing of time: a check-in that is late by another `period` counts as missed, and after `misses_max` the
    /// component has failed.
    pub fn tick(&mut self, now: Instant, period: Duration, misses_max: u32) -> Verdict {
        let Some(last) = self.last_check_in else { return Verdict::Fine };
        let missed = now.duration_since(last).as_nanos() / period.as_nanos().max(1);
        self.misses = u32::try_from(missed).unwrap_or(u32::MAX);
        if self.misses == 0 {
            return Verdict::Fine;
        }
        if self.misses >= misses_max {
            self.ended(Health::Failed, format!("Failed: pid '{}' missed {} check-ins", self.pid, self.misses));
            return Verdict::Kill;
        }
        let message = format!("Degraded: pid '{}' missed {} check-in(s)", self.pid, self.misses);
        self.state = (Health::Degraded, message);
        Verdict::Fine
    }

    /// Returns the message with everything that is expected.
    fn expected(&mut self) -> CheckinExpected {
        // Without a configuration, there is nothing to ask of the component: the unit is reported as failed.
        let sent = self.units.iter_mut().filter(|(_, unit)| unit.fault.is_none());
        let units = sent.map(|(key, unit)| {
            unit.knows_level = true;
            unit.expected(key)
        });
        let units = units.collect();
        let limits = &self.component.limits;
        let fqdn = Fqdn { enabled: self.component.features["fqdn"]["enabled"] == true };
        CheckinExpected {
            units,
            agent_info: Some(self.agent.clone()),
            // Both in every message, unlike configurations (AG162).
            features: Some(Features {
                source: Some(to_struct(&json!({"agent": {"features": self.component.features}}))),
                fqdn: Some(fqdn),
            }),
            features_idx: self.features_idx,
            component: Some(ComponentSettings {
                limits: Some(Limits {
                    source: Some(to_struct(limits)),
                    go_max_procs: limits["go_max_procs"].as_u64().unwrap_or_default(),
                }),
            }),
            component_idx: self.component_idx,
            units_timestamp: None,
        }
    }

    /// Returns whether the component has taken everything that is expected of it.
    pub fn is_settled(&self) -> bool {
        let units = self.units.values().filter(|unit| unit.fault.is_none());
        self.seen_features == self.features_idx
            && self.seen_component == self.component_idx
            && self.strangers.is_empty()
            && units.into_iter().all(Tracked::is_settled)
    }

    /// Returns the state to report.
    pub fn report(&self) -> ComponentState {
        let (state, message) = &self.state;
        let unit = |(key, unit): (&Key, &Tracked)| {
            let (state, message, payload) = match &unit.fault {
                Some(fault) => (Health::Failed, fault.clone(), None),
                // Without a running process, its units are in the state of the component.
                None if self.last_check_in.is_none() => (*state, message.clone(), None),
                None => unit.state(),
            };
            UnitState { id: key.1.clone(), direction: key.0.as_str().into(), state, message, payload }
        };
        let units = self.units.iter().map(unit).chain(self.strangers.iter().cloned());
        ComponentState {
            id: self.component.id.clone(),
            kind: self.component.kind.clone(),
            state: *state,
            message: message.clone(),
            units: units.collect(),
        }
    }

    /// Returns the component as it should be.
    pub fn component(&self) -> &Arc<Component> {
        &self.component
    }

    /// Returns the first input unit of this type, for an action.
    pub fn input_of(&self, kind: &str) -> Option<String> {
        let is_input = |unit: &&Unit| unit.direction == Direction::Input && unit.config["type"] == kind;
        self.component.units.iter().find(is_input).map(|unit| unit.id.clone())
    }
}

fn stranger(key: &Key) -> UnitState {
    UnitState {
        // Bounded, because it comes from the component and goes to the server.
        id: key.1.chars().take(256).collect(),
        direction: key.0.as_str().into(),
        state: Health::Failed,
        message: "Failed: unknown unit".into(),
        payload: None,
    }
}

pub(super) fn wire_type(direction: Direction) -> UnitType {
    match direction {
        Direction::Input => UnitType::Input,
        Direction::Output => UnitType::Output,
    }
}

fn direction(kind: i32) -> Direction {
    if kind == i32::from(UnitType::Output) { Direction::Output } else { Direction::Input }
}

fn wire_level(level: Level) -> LogLevel {
    match level {
        Level::Error => LogLevel::Error,
        Level::Warn => LogLevel::Warn,
        Level::Info => LogLevel::Info,
        Level::Debug => LogLevel::Debug,
        Level::Trace => LogLevel::Trace,
    }
}

fn health(state: i32) -> Health {
    match State::try_from(state) {
        Ok(State::Starting) => Health::Starting,
        Ok(State::Configuring) => Health::Configuring,
        Ok(State::Healthy) => Health::Healthy,
        Ok(State::Degraded) => Health::Degraded,
        Ok(State::Stopping) => Health::Stopping,
        Ok(State::Stopped) => Health::Stopped,
        // Also a state that does not exist.
        Ok(State::Failed) | Err(_) => Health::Failed,
    }
}

#[cfg(test)]
mod tests;
