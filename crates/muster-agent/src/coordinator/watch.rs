//! Readers of the agent's state (AG51): each gets the current state, and then every state that differs from the last one it got.

use tokio::sync::mpsc;

use super::report::Snapshot;

/// Maximum number of states that wait for a reader. A reader that is further behind gets the newest state next.
pub const WAITING: usize = 16;

/// The readers.
#[derive(Debug, Default)]
pub struct Watchers(Vec<Watcher>);

#[derive(Debug)]
struct Watcher {
    states: mpsc::Sender<Snapshot>,
    /// What was sent last.
    last: Option<Snapshot>,
}

impl Watchers {
    /// Adds a reader.
    pub fn add(&mut self, states: mpsc::Sender<Snapshot>) {
        self.0.push(Watcher { states, last: None });
    }

    /// Returns whether nobody is reading.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends the state to those who do not have it yet. Never waits for a reader.
    pub fn tell(&mut self, state: impl FnOnce() -> Snapshot) {
        self.0.retain(|watcher| !watcher.states.is_closed());
        if self.is_empty() {
            return;
        }
        let state = state();
        for watcher in &mut self.0 {
            // A full queue keeps its order. What is current when there is a place again is sent then.
            if watcher.last.as_ref() != Some(&state) && watcher.states.try_send(state.clone()).is_ok() {
                watcher.last = Some(state.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(number: usize) -> Snapshot {
        let fleet =
            serde_json::json!({"state": "HEALTHY", "message": "", "last_check_in": null, "failures": 0, "servers": []});
        let state = serde_json::json!({"agent_id": "a", "version": "1", "pid": 7, "state": "HEALTHY", "message": number.to_string(),
            "fleet": fleet, "policy": null, "components": [], "queued_actions": 0, "pending_acks": 0, "log_level": "info",
            "signing_key_pinned": false});
        serde_json::from_value(state).unwrap()
    }

    #[test]
    fn ag51_a_reader_gets_every_state_in_order_and_a_slow_one_the_newest() {
        let mut watchers = Watchers::default();
        watchers.tell(|| unreachable!("nobody is reading"));
        let (sender, mut reader) = mpsc::channel(WAITING);
        watchers.add(sender);
        let mut read = || reader.try_recv().map(|state| state.message).ok();
        watchers.tell(|| state(0));
        watchers.tell(|| state(0));
        watchers.tell(|| state(1));
        assert_eq!([read(), read(), read()], [Some("0".into()), Some("1".into()), None], "no state twice");
        for n in 2..100 {
            watchers.tell(|| state(n));
        }
        let waiting: Vec<String> = std::iter::from_fn(&mut read).collect();
        assert_eq!(waiting, (2..2 + WAITING).map(|n| n.to_string()).collect::<Vec<_>>());
        watchers.tell(|| state(99));
        assert_eq!(read().as_deref(), Some("99"), "after the gap");
        drop(reader);
        watchers.tell(|| unreachable!("it is gone"));
        assert!(watchers.is_empty());
    }
}
