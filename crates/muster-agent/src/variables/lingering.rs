//! Sets of variables that stay for a while after their container is gone: its last logs are still to be read, and a
//! restart must not stop the input.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::DynamicSet;

/// Maximum number of containers or pods. Further ones are left out.
pub const FOUND_MAX: usize = 1000;

/// Sets of variables by the id of their container or pod.
#[derive(Debug)]
pub struct Lingering {
    stay: Duration,
    overflown: bool,
    found: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    sets: Vec<DynamicSet>,
    /// When the container was found to be gone.
    gone: Option<Instant>,
}

impl Lingering {
    /// Creates an empty collection. Sets stay this long after their container is gone.
    pub fn new(stay: Duration) -> Self {
        Self { stay, overflown: false, found: BTreeMap::new() }
    }

    /// Adds or replaces the sets of a container.
    pub fn put(&mut self, id: String, sets: Vec<DynamicSet>) {
        // Known containers are still updated, so that the limit does not freeze the inputs that run.
        if self.found.len() >= FOUND_MAX && !self.found.contains_key(&id) {
            self.overflown = true;
            return;
        }
        self.found.insert(id, Entry { sets, gone: None });
    }

    /// Returns the fault if some `what` are left out.
    pub fn overflow(&self, what: &str) -> Option<String> {
        self.overflown.then(|| format!("more than {FOUND_MAX} {what}; the others are ignored"))
    }

    /// Marks a container as gone.
    pub fn remove(&mut self, id: &str, now: Instant) {
        if let Some(entry) = self.found.get_mut(id) {
            entry.gone.get_or_insert(now);
        }
    }

    /// Marks all other containers as gone.
    pub fn keep_only(&mut self, ids: &BTreeSet<String>, now: Instant) {
        for (id, entry) in &mut self.found {
            if !ids.contains(id) {
                entry.gone.get_or_insert(now);
            }
        }
    }

    /// Returns the sets that are still valid, and when the next of them ends.
    pub fn valid(&mut self, now: Instant) -> (Vec<DynamicSet>, Option<Instant>) {
        let stay = self.stay;
        self.found.retain(|_, entry| entry.gone.is_none_or(|gone| gone + stay > now));
        // The fault ends as soon as there is room again; the next list then finds the others.
        self.overflown &= self.found.len() >= FOUND_MAX;
        let next = self.found.values().filter_map(|entry| entry.gone).min().map(|gone| gone + stay);
        (self.found.values().flat_map(|entry| entry.sets.iter().cloned()).collect(), next)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_container_that_is_gone_stays_for_a_while_and_a_restarted_one_stays() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let mut found = Lingering::new(minute);
        let set = |id: &str| vec![DynamicSet { id: id.into(), provider: "docker".into(), ..DynamicSet::default() }];
        for id in ["a", "b"] {
            found.put(id.into(), set(id));
        }
        found.keep_only(&["a".to_owned()].into(), start);
        assert_eq!(found.valid(start), ([set("a"), set("b")].concat(), Some(start + minute)));
        found.remove("a", start + minute / 2);
        found.put("a".into(), set("a"));
        assert_eq!(found.valid(start + minute), (set("a"), None));
        found.put("c".into(), vec![DynamicSet { values: json!(1), ..set("c").remove(0) }]);
        assert_eq!((found.valid(start + minute).0.len(), found.overflow("x")), (2, None));
        for number in 0..FOUND_MAX {
            found.put(number.to_string(), Vec::new());
        }
        assert_eq!(found.overflow("pods").unwrap(), "more than 1000 pods; the others are ignored");
    }
}
