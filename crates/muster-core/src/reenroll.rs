//! Reenrollment of a second host that uses the key of an agent, if the policy requests it.
//!
//! Both hosts present the same key, which therefore can't be revoked for one of them. The first host keeps the agent.
//! The others are told to enroll again one at a time, each at most once an hour, and only while the first host is
//! certain to exist.

use std::time::Duration;

use serde_json::Value;

use crate::action::{Action, ActionType};
use crate::duplicate_hosts::{DuplicateHosts, HostMark, Reenrollment, ReenrollmentState};
use crate::id::{ActionId, EnrollmentKeyId};
use crate::time::Timestamp;

/// Lifetime of the action and of its enrollment token.
pub const TOKEN_LIFE: Duration = Duration::from_secs(600);
// Host ids are not authenticated. Without this limit, a script with the key could make the server create any number of
// enrollment keys.
/// Maximum number of reenrollments of an agent's hosts within [`HOUR`].
const MOST_AN_HOUR: usize = 12;
const HOUR: Duration = Duration::from_secs(3600);
/// Time since the hosts last alternated after which none is told: the second one may have replaced the first.
const FRESH: Duration = Duration::from_secs(900);
/// Field of the action's data with the host. It is not delivered to agents.
const HOST: &str = "host";

/// Reaction to hosts that share the key of an agent (setting `duplicate_hosts`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDuplicateHosts {
    /// Warns.
    #[default]
    Warn,
    /// Warns, and has the second host enroll again.
    Reenroll,
}

impl OnDuplicateHosts {
    /// The values of the setting.
    pub const WORDS: [&'static str; 2] = ["warn", "reenroll"];

    /// Reads the setting from the fields of a policy.
    pub fn of(fields: &Value) -> Self {
        if fields["duplicate_hosts"] == "reenroll" { Self::Reenroll } else { Self::Warn }
    }
}

impl DuplicateHosts {
    /// Returns whether `host` must be told now to enroll again.
    pub fn calls_for_reenrollment(&self, host: &HostMark, now: Timestamp) -> bool {
        let mut recent = self.reenrollments.iter().filter(|one| now.since(one.at) < HOUR);
        *host != self.keeper
            && now.since(self.last) <= FRESH
            && recent.clone().count() < MOST_AN_HOUR
            && !recent.any(|one| one.host == *host || one.is_pending(now))
    }

    /// Adds a reenrollment of `host`. Returns the keys of completed ones, which must be deleted.
    pub fn begin_reenrollment(
        &mut self,
        host: HostMark,
        state: ReenrollmentState,
        now: Timestamp,
    ) -> Vec<EnrollmentKeyId> {
        // Before the old entries are dropped: with them, their keys would be forgotten, and stay valid until they
        // expire.
        let spent = self.reenrollments.iter_mut().filter_map(|one| one.take_spent_key(now)).collect();
        self.reenrollments.retain(|one| now.since(one.at) < HOUR);
        self.reenrollments.push(Reenrollment { host, at: now, state });
        spent
    }

    /// Records that the host acknowledged `action`. Returns whether the reenrollment was pending.
    pub fn answer_reenrollment(&mut self, action: &ActionId) -> bool {
        for one in &mut self.reenrollments {
            if let ReenrollmentState::Pending { action: pending, key } = &one.state
                && pending == action
            {
                one.state = ReenrollmentState::Answered { key: key.clone() };
                return true;
            }
        }
        false
    }

    /// Returns whether a host was told within the last hour. A report that the agent migrated then comes from that
    /// host.
    pub fn was_reenrolled(&self, now: Timestamp) -> bool {
        let told = |one: &Reenrollment| one.state != ReenrollmentState::ByHand;
        self.reenrollments.iter().any(|one| told(one) && now.since(one.at) < HOUR)
    }
}

impl Reenrollment {
    fn is_pending(&self, now: Timestamp) -> bool {
        matches!(self.state, ReenrollmentState::Pending { .. }) && now.since(self.at) < TOKEN_LIFE
    }

    fn take_spent_key(&mut self, now: Timestamp) -> Option<EnrollmentKeyId> {
        // The host may still be enrolling with this key.
        if self.is_pending(now) {
            return None;
        }
        match std::mem::replace(&mut self.state, ReenrollmentState::Over) {
            ReenrollmentState::Pending { key, .. } | ReenrollmentState::Answered { key } => Some(key),
            state @ (ReenrollmentState::ByHand | ReenrollmentState::Over) => {
                self.state = state;
                None
            }
        }
    }
}

/// Returns the data of the action for `host`: that of a `MIGRATE` to this server.
pub fn action_data(mut migration: Value, host: &HostMark) -> Value {
    migration[HOST] = host.as_str().into();
    migration
}

/// Returns the `MIGRATE` that is delivered to `host` for a reenrollment; `None` if it is for another host.
pub fn delivered_to(action: &Action, host: Option<&HostMark>) -> Option<Action> {
    let mut data: Value = serde_json::from_str(action.data.as_deref()?).ok()?;
    let named = data.as_object_mut()?.remove(HOST)?;
    // All hosts poll with the same key. The keeper must never get this action, since it would leave the agent.
    host.filter(|host| named == host.as_str())?;
    Some(Action { kind: ActionType::Migrate, data: Some(data.to_string().into()), ..action.clone() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{action, at};

    fn known() -> DuplicateHosts {
        DuplicateHosts {
            hosts: vec!["a".into(), "b".into()],
            since: at(0),
            last: at(0),
            keeper: HostMark::of("a"),
            reenrollments: Vec::new(),
        }
    }

    fn pending(number: usize) -> ReenrollmentState {
        let (action, key) = (ActionId::trusted(format!("act{number}")), EnrollmentKeyId::trusted(format!("k{number}")));
        ReenrollmentState::Pending { action, key }
    }

    fn calls(known: &DuplicateHosts, host: &str, now: u64) -> bool {
        known.calls_for_reenrollment(&HostMark::of(host), at(now))
    }

    #[test]
    fn the_second_host_is_told_and_the_first_one_never() {
        assert_eq!((calls(&known(), "a", 1), calls(&known(), "b", 1)), (false, true));
        assert!(!calls(&known(), "b", 901), "the first host may be gone");
    }

    #[test]
    fn one_host_at_a_time_is_told_until_it_answers_or_its_token_expires() {
        let mut told = known();
        assert!(told.begin_reenrollment(HostMark::of("b"), pending(1), at(1)).is_empty());
        assert_eq!((calls(&told, "b", 2), calls(&told, "c", 2)), (false, false));
        assert!(calls(&DuplicateHosts { last: at(601), ..told.clone() }, "c", 601));
        assert!(told.answer_reenrollment(&ActionId::trusted("act1")));
        assert!(!told.answer_reenrollment(&ActionId::trusted("act1")));
        assert_eq!((calls(&told, "b", 3), calls(&told, "c", 3)), (false, true));
        let spent = told.begin_reenrollment(HostMark::of("c"), pending(2), at(3));
        assert_eq!(spent, [EnrollmentKeyId::trusted("k1")], "its key is deleted with the next one");
        assert!(told.begin_reenrollment(HostMark::of("d"), pending(3), at(4)).is_empty());
    }

    #[test]
    fn reenrollments_have_an_hourly_limit() {
        let mut told = known();
        for number in 0..MOST_AN_HOUR {
            assert!(calls(&told, "next", 1), "{number}");
            told.begin_reenrollment(HostMark::of(&number.to_string()), pending(number), at(1));
            told.answer_reenrollment(&ActionId::trusted(format!("act{number}")));
        }
        assert!(!calls(&told, "next", 2));
        told.last = at(3601);
        assert!(calls(&told, "next", 3601) && calls(&told, "0", 3601));
        told.begin_reenrollment(HostMark::of("next"), pending(99), at(3601));
        assert_eq!(told.reenrollments.len(), 1);
    }

    #[test]
    fn a_host_that_a_person_must_enroll_is_noted_once_an_hour_and_holds_up_nobody() {
        let mut told = known();
        told.begin_reenrollment(HostMark::of("b"), ReenrollmentState::ByHand, at(1));
        assert_eq!((calls(&told, "b", 2), calls(&told, "c", 2), told.was_reenrolled(at(2))), (false, true, false));
        told.begin_reenrollment(HostMark::of("c"), pending(1), at(2));
        assert!(told.was_reenrolled(at(3)) && !told.was_reenrolled(at(4000)));
    }

    #[test]
    fn ea84_the_named_host_gets_a_migrate_without_the_name() {
        let data = action_data(json!({"target_uri": "u", "enrollment_token": "t"}), &HostMark::of("b"));
        let mut stored = action("x", ActionType::Reenroll, at(0));
        stored.data = Some(data.to_string().into());
        let got = delivered_to(&stored, Some(&HostMark::of("b"))).unwrap();
        assert_eq!(got.kind, ActionType::Migrate);
        let got: Value = serde_json::from_str(got.data.as_deref().unwrap()).unwrap();
        assert_eq!(got, json!({"target_uri": "u", "enrollment_token": "t"}));
        assert!(delivered_to(&stored, Some(&HostMark::of("a"))).is_none() && delivered_to(&stored, None).is_none());
    }

    #[test]
    fn without_the_setting_nobody_is_told() {
        let of = |fields: Value| OnDuplicateHosts::of(&fields);
        assert_eq!(of(json!({"duplicate_hosts": "reenroll"})), OnDuplicateHosts::Reenroll);
        assert_eq!(
            (of(json!({})), of(json!({"duplicate_hosts": "warn"}))),
            (OnDuplicateHosts::Warn, OnDuplicateHosts::Warn)
        );
    }
}
