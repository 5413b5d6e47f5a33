//! What agents and administrators saw, and what must hold for it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Time within which a revocation is in force on every server.
const IN_FORCE: Duration = Duration::from_secs(1);

/// An action and its target.
type Target = (String, String);

#[derive(Default)]
pub struct History(Mutex<Events>);

#[derive(Default)]
struct Events {
    /// Agents whose enrollment was answered.
    enrolled: HashSet<String>,
    /// When the revocation of an agent was requested, and when it was answered.
    revoking: HashSet<String>,
    revoked: HashMap<String, Instant>,
    /// Actions whose creation was answered.
    created: HashSet<Target>,
    delivered: HashSet<Target>,
    /// Actions whose ack was answered.
    acknowledged: HashSet<Target>,
    check_ins: usize,
    redeliveries: usize,
    violations: Vec<String>,
}

impl History {
    fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap()
    }

    pub fn enrolled(&self, agent: &str) {
        self.events().enrolled.insert(agent.to_owned());
    }

    /// To be called before the request: from now on, the agent may be rejected.
    pub fn is_revoking(&self, agent: &str) {
        self.events().revoking.insert(agent.to_owned());
    }

    pub fn revoked(&self, agent: &str) {
        self.events().revoked.insert(agent.to_owned(), Instant::now());
    }

    pub fn created(&self, action: &str, agent: &str) {
        self.events().created.insert((action.to_owned(), agent.to_owned()));
    }

    /// A request of the agent that began at `began` was accepted.
    pub fn admitted(&self, agent: &str, began: Instant) {
        let mut events = self.events();
        events.check_ins += 1;
        if let Some(late) = events.revoked.get(agent).and_then(|at| began.checked_duration_since(*at + IN_FORCE)) {
            events.violations.push(format!("{agent} was admitted {late:?} after its revocation was in force"));
        }
    }

    /// A request of the agent was rejected. Returns true if that is right.
    pub fn rejected(&self, agent: &str) -> bool {
        let mut events = self.events();
        let is_right = events.revoking.contains(agent);
        if !is_right {
            events.violations.push(format!("{agent} was rejected, and nobody revoked it"));
        }
        is_right
    }

    /// The agent received an action. Returns true the first time.
    pub fn delivered(&self, action: &str, agent: &str) -> bool {
        let (mut events, target) = (self.events(), (action.to_owned(), agent.to_owned()));
        if events.acknowledged.contains(&target) {
            events.violations.push(format!("{action} was delivered to {agent} again after its ack was answered"));
        }
        let is_new = events.delivered.insert(target);
        events.redeliveries += usize::from(!is_new);
        is_new
    }

    pub fn acknowledged(&self, action: &str, agent: &str) {
        self.events().acknowledged.insert((action.to_owned(), agent.to_owned()));
    }

    /// Created actions of agents that stay, without an answered ack.
    fn waiting(events: &Events) -> Vec<&Target> {
        let is_open = |target: &&Target| !events.acknowledged.contains(*target) && !events.revoking.contains(&target.1);
        events.created.iter().filter(is_open).collect()
    }

    pub fn is_at_rest(&self) -> bool {
        Self::waiting(&self.events()).is_empty()
    }

    pub fn open(&self) -> String {
        format!("{:?}", Self::waiting(&self.events()))
    }

    pub fn summary(&self) -> String {
        let events = self.events();
        format!(
            "{} agents ({} revoked), {} accepted check-ins, {} actions created, {} delivered ({} again before an ack), {} acknowledged",
            events.enrolled.len(),
            events.revoked.len(),
            events.check_ins,
            events.created.len(),
            events.delivered.len(),
            events.redeliveries,
            events.acknowledged.len()
        )
    }

    /// Whether there were revocations, and more than a few actions.
    pub fn is_eventful(&self) -> bool {
        let events = self.events();
        !events.revoked.is_empty() && events.created.len() > 10
    }

    pub fn check(&self) {
        let violations = &self.events().violations;
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// Agents that were enrolled, and whether they were revoked; `None` if the revocation was not answered.
    pub fn agents(&self) -> Vec<(String, Option<bool>)> {
        let events = self.events();
        let is_revoked = |agent: &String| match (events.revoking.contains(agent), events.revoked.contains_key(agent)) {
            (true, false) => None,
            (_, revoked) => Some(revoked),
        };
        events.enrolled.iter().map(|agent| (agent.clone(), is_revoked(agent))).collect()
    }

    /// Created actions, and whether their ack was answered.
    pub fn actions(&self) -> Vec<(Target, bool)> {
        let events = self.events();
        events.created.iter().map(|target| (target.clone(), events.acknowledged.contains(target))).collect()
    }
}
