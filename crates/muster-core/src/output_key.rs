//! Keys of agents at the Elasticsearch clusters of their outputs (EA §6): which ones an agent needs, and when a key is
//! created, changed, retired and invalidated.
//!
//! A policy names the keys that each of its agents needs ([`KeyNeed`]); the store holds the keys that an agent has
//! ([`OutputKey`]). [`plan`] compares the two before a policy is delivered, and [`confirm`] after the agent has confirmed
//! it. Neither calls a cluster: they leave states behind, from which the background work knows what to do.

mod roles;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

pub use self::roles::{Roles, has_former_roles, widened};
use crate::hex;
use crate::id::{AgentId, ClusterId, KeyId, PolicyId};
use crate::policy::bootstrap::Trial;
use crate::time::Timestamp;

/// Maximum time for which a policy is held back for a key that is being created. A cluster that is known to fail delays
/// no policy; this limit is for background work that does not come to the key at all.
pub const MAX_WAIT: Duration = Duration::from_secs(300);

/// A key that a policy requires for each of its agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyNeed {
    /// Name of the output in the policy.
    pub output: String,
    /// Where the key is created.
    pub cluster: ClusterId,
    /// [`permissions_hash`] of the output's permissions.
    pub permissions_hash: String,
}

/// Pending work for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It does not exist yet.
    Wanted,
    /// Its permissions must be changed.
    Outdated,
    /// It has the new permissions and the former ones, which the agent needs until it confirms the policy (EA106).
    Widened,
    /// The agent has confirmed the policy: the former permissions must be removed.
    Confirmed,
    /// Nothing.
    Live,
}

/// Counts of an output's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// Keys that agents can use.
    pub issued: u64,
    /// Keys that must be created.
    pub wanted: u64,
    /// Issued keys whose permissions must be changed.
    pub outdated: u64,
    /// Keys, issued or not, whose creation or change the cluster rejected.
    pub failed: u64,
    /// Keys that must be invalidated now.
    pub to_invalidate: u64,
}

impl std::ops::AddAssign for KeyCounts {
    fn add_assign(&mut self, more: Self) {
        self.issued += more.issued;
        self.wanted += more.wanted;
        self.outdated += more.outdated;
        self.failed += more.failed;
        self.to_invalidate += more.to_invalidate;
    }
}

impl KeyState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Wanted, Self::Outdated, Self::Widened, Self::Confirmed, Self::Live];
}

/// A key that a cluster has created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedKey {
    /// Its id in the cluster.
    pub id: KeyId,
    /// `id:secret`, sealed (EA109).
    pub sealed: Vec<u8>,
}

/// The key of an agent for an output, wanted or issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputKey {
    /// The agent.
    pub agent_id: AgentId,
    /// Name of the output in the agent's policy.
    pub output: String,
    /// Version for optimistic locking, from 1.
    pub version: i64,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Pending work.
    pub state: KeyState,
    /// The key; `None` while it is wanted.
    pub issued: Option<IssuedKey>,
    /// Hash of the permissions that it should have.
    pub permissions_hash: String,
    /// Policy that needs it in this form.
    pub policy_id: PolicyId,
    /// Revision of that policy.
    // Also tells the background work where the permissions themselves are: they are not copied for each agent.
    pub revision: i64,
    /// Whether a policy was delivered without this key, so that it must be delivered again (EA110, D18).
    pub is_withheld: bool,
    /// Time since which it is wanted in this form.
    pub since: Timestamp,
    /// Reason why the cluster does not create or change it, although it handles others.
    pub failure: Option<KeyFailure>,
}

/// Rejection of a request for one key by a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFailure {
    /// Reason, for people.
    pub reason: String,
    /// Time of the next attempt.
    pub retry_at: Timestamp,
}

/// A key that must be invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetiredKey {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id there.
    pub id: KeyId,
    /// Agent that had it, which may be deleted.
    pub agent_id: AgentId,
    /// Policy and revision after whose confirmation by the agent it is invalidated; `None` means now.
    pub after: Option<(PolicyId, i64)>,
    /// Time of retirement.
    pub at: Timestamp,
}

/// A cluster that an output connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputCluster {
    /// Its id.
    pub id: ClusterId,
    /// Output object by its id, or output of a policy as `POLICY:NAME`, for people.
    pub output: String,
    /// Connection settings with the credential that creates keys: JSON, sealed.
    pub sealed: Vec<u8>,
    /// Failure because of which its keys are not created now.
    pub failure: Option<ClusterFailure>,
    /// Which settings are used to reach it, if the output has a `bootstrap` block.
    pub trial: Trial,
}

/// Failure of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFailure {
    /// Kind.
    pub kind: FailureKind,
    /// Reason, for people.
    pub reason: String,
    /// Time of the first failure.
    pub since: Timestamp,
    /// Time of the next attempt.
    pub retry_at: Timestamp,
}

/// Kind of a cluster's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The credential is rejected, or lacks a privilege.
    Refused,
    /// The cluster is overloaded, and limits the rate of requests.
    Overloaded,
    /// It does not respond, or not as Elasticsearch does.
    Unavailable,
    /// The output's settings can't be used to reach it.
    Unusable,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Refused, Self::Overloaded, Self::Unavailable, Self::Unusable];

    /// Returns whether policies are delivered without the keys that can't be created. For an overloaded cluster,
    /// delivery waits.
    pub fn withholds_keys(self) -> bool {
        self != Self::Overloaded
    }
}

/// Returns the hash of an output's permissions: SHA-256 of their JSON with sorted keys, in hexadecimal (EA §6.4).
pub fn permissions_hash(permissions: &Value) -> String {
    hex::encode(&hex::sha256(permissions.to_string().as_bytes()))
}

/// Returns the id of a cluster, derived from the output and its hosts. Other hosts are another cluster, where the
/// existing keys are unknown (EA §6.3).
pub fn cluster_id<'a>(output: &str, hosts: impl Iterator<Item = &'a str>) -> ClusterId {
    // Sorted and without duplicates: the order of hosts in the settings does not make another cluster.
    let mut hosts: Vec<String> = hosts.map(compared_host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let digest = hex::sha256(serde_json::json!([output, hosts]).to_string().as_bytes());
    ClusterId::trusted(hex::encode(&digest[..16]))
}

/// Returns a host's URL in the form in which it is compared: without `USER:PASSWORD@`, because another user or password does
/// not make another cluster of it.
pub fn compared_host(host: &str) -> String {
    let host = host.trim_end_matches('/');
    let anonymous = host.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (_, address) = rest[..end].rsplit_once('@')?;
        Some(format!("{scheme}://{address}{}", &rest[end..]))
    });
    anonymous.unwrap_or_else(|| host.to_owned())
}

/// Changes of an agent's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Keys to insert (version 1) or to update (from the version before).
    pub put: Vec<OutputKey>,
    /// Keys to remove, in their present versions.
    pub remove: Vec<OutputKey>,
    /// Keys to invalidate.
    pub retire: Vec<RetiredKey>,
}

impl Plan {
    /// Returns whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty() && self.retire.is_empty()
    }
}

/// The policy that will be delivered to an agent.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The agent.
    pub agent_id: &'a AgentId,
    /// The policy.
    pub policy_id: &'a PolicyId,
    /// Its revision.
    pub revision: i64,
    /// The keys that it needs.
    pub needs: &'a [KeyNeed],
}

/// Decides what happens to the keys that an agent has before it gets a policy (EA §6.3).
pub fn plan(target: &Target<'_>, held: &[OutputKey], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for need in target.needs {
        // The name of the output identifies a key within an agent; the cluster can change under it.
        match held.iter().find(|key| key.output == need.output) {
            None => plan.put.push(wanted(target, need, 1, now)),
            Some(key) if key.cluster != need.cluster => {
                plan.retire.extend(retired(target, key, now));
                // The former key is of no use at the new cluster, so the agent has none until the new one exists.
                plan.put.push(wanted(target, need, key.version + 1, now));
            }
            Some(key) => plan.put.extend(adjusted(target, need, key, now)),
        }
    }
    // Outputs that the target does not have: the agent keeps their keys until it has confirmed the target.
    for key in held.iter().filter(|key| target.needs.iter().all(|need| need.output != key.output)) {
        plan.retire.extend(retired(target, key, now));
        plan.remove.push(key.clone());
    }
    plan
}

fn wanted(target: &Target<'_>, need: &KeyNeed, version: i64, now: Timestamp) -> OutputKey {
    OutputKey {
        agent_id: target.agent_id.clone(),
        output: need.output.clone(),
        version,
        cluster: need.cluster.clone(),
        state: KeyState::Wanted,
        issued: None,
        permissions_hash: need.permissions_hash.clone(),
        policy_id: target.policy_id.clone(),
        revision: target.revision,
        is_withheld: false,
        since: now,
        failure: None,
    }
}

/// Returns the changed key of the same cluster; `None` if it stays as it is.
fn adjusted(target: &Target<'_>, need: &KeyNeed, key: &OutputKey, now: Timestamp) -> Option<OutputKey> {
    let is_of_target = key.policy_id == *target.policy_id;
    let has_permissions = key.permissions_hash == need.permissions_hash;
    // A new revision alone changes nothing, or else each one would write a row for every agent. Only what waits for a
    // confirmation must wait for one that can come: of the policy that the agent gets.
    let waits = key.state != KeyState::Live || key.is_withheld;
    if has_permissions && (is_of_target || !waits) {
        return None;
    }
    let state = match (has_permissions, &key.issued) {
        (true, _) => key.state,
        (false, None) => KeyState::Wanted,
        (false, Some(_)) => KeyState::Outdated,
    };
    Some(OutputKey {
        version: key.version + 1,
        state,
        permissions_hash: need.permissions_hash.clone(),
        policy_id: target.policy_id.clone(),
        revision: target.revision,
        since: now,
        failure: None,
        ..key.clone()
    })
}

/// Retires an issued key once the agent has confirmed the target: until then, it runs a policy with that key.
fn retired(target: &Target<'_>, key: &OutputKey, now: Timestamp) -> Option<RetiredKey> {
    let issued = key.issued.as_ref()?;
    Some(RetiredKey {
        cluster: key.cluster.clone(),
        id: issued.id.clone(),
        agent_id: key.agent_id.clone(),
        after: Some((target.policy_id.clone(), target.revision)),
        at: now,
    })
}

/// Confirmation of a policy by an agent.
#[derive(Clone, Copy, Debug)]
pub struct Confirmation<'a> {
    /// Policy that it runs.
    pub policy_id: &'a PolicyId,
    /// Revision that it runs.
    pub revision: i64,
    /// Revision that it acknowledged after a delivery with keys that had been withheld; 0 if none. Only an ack tells about
    /// the repeated delivery of a revision: check-ins report the same number before and after it.
    pub acked: i64,
}

/// Changes of an agent's keys because it has confirmed a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// Keys to update.
    pub put: Vec<OutputKey>,
    /// Retired keys to invalidate now.
    pub due: Vec<RetiredKey>,
}

/// Decides the changes after the agent has confirmed a policy: former permissions and former keys are removed (EA106).
pub fn confirm(confirmed: Confirmation<'_>, held: &[OutputKey], retired: &[RetiredKey]) -> Confirmed {
    let put: Vec<OutputKey> = held.iter().filter_map(|key| confirmed_key(confirmed, key)).collect();
    let now = |key: &OutputKey| put.iter().find(|after| after.output == key.output).cloned();
    // Keys that were retired for another policy wait until the agent has all keys of this one: it may have come back to a
    // policy that it still runs with its former keys.
    // All keys, not only those of this change: one that is missing would leave the agent without any.
    let is_settled = held.iter().all(|key| {
        let key = now(key).unwrap_or_else(|| key.clone());
        key.issued.is_some() && !key.is_withheld
    });
    let is_due = |key: &&RetiredKey| match &key.after {
        Some((policy, revision)) if policy == confirmed.policy_id => *revision <= confirmed.revision,
        Some(_) => is_settled,
        None => false,
    };
    let due = retired.iter().filter(is_due).map(|key| RetiredKey { after: None, ..key.clone() }).collect();
    Confirmed { put, due }
}

fn confirmed_key(confirmed: Confirmation<'_>, key: &OutputKey) -> Option<OutputKey> {
    if key.policy_id != *confirmed.policy_id || key.revision > confirmed.revision {
        return None;
    }
    // A key that was withheld reaches the agent with a newer revision, or with the repeated delivery of the same one.
    let has_key = key.issued.is_some() && (key.revision < confirmed.revision || key.revision <= confirmed.acked);
    let is_withheld = key.is_withheld && !has_key;
    let state = if key.state == KeyState::Widened { KeyState::Confirmed } else { key.state };
    let is_new = is_withheld != key.is_withheld || state != key.state;
    is_new.then(|| OutputKey { version: key.version + 1, state, is_withheld, ..key.clone() })
}

/// Returns the key after a policy was delivered without it; `None` if that is recorded already.
pub fn withheld(key: &OutputKey, policy_id: &PolicyId, revision: i64) -> Option<OutputKey> {
    let is_recorded = key.is_withheld && key.policy_id == *policy_id && key.revision == revision;
    // The revision is that of the delivery. Otherwise, the confirmation of a revision that was delivered without the key
    // would look like one of a newer revision with it.
    let policy_id = policy_id.clone();
    (!is_recorded).then(|| OutputKey {
        version: key.version + 1,
        is_withheld: true,
        policy_id,
        revision,
        ..key.clone()
    })
}

/// Delivery of a policy with regard to one of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// With the key.
    With,
    /// Not yet: the key will be ready soon. At most this long.
    Wait(Duration),
    /// Without the key, which follows later (EA107).
    Without,
}

/// Decides how a policy is delivered with regard to a key. `failure` is that of the key's cluster.
pub fn stance(key: &OutputKey, failure: Option<&ClusterFailure>, now: Timestamp) -> Stance {
    let is_down = key.failure.is_some() || failure.is_some_and(|failure| failure.kind.withholds_keys());
    // From the time since which it is wanted, so that repeated polls do not extend the wait.
    let left = MAX_WAIT.checked_sub(now.since(key.since)).filter(|left| !left.is_zero());
    match (key.state, left) {
        (KeyState::Wanted | KeyState::Outdated, Some(left)) if !is_down => Stance::Wait(left),
        (KeyState::Wanted, _) => Stance::Without,
        // With the permissions of the former policy, which are better than none.
        (KeyState::Outdated, _) | (KeyState::Widened | KeyState::Confirmed | KeyState::Live, _) => Stance::With,
    }
}

/// The keys that are delivered to an agent, by the name of the output. Wiped on drop.
#[derive(Clone, Default)]
pub struct AgentKeys(BTreeMap<String, Zeroizing<String>>);

impl AgentKeys {
    /// Adds `id:secret` for an output.
    pub fn insert(&mut self, output: &str, key: Zeroizing<String>) {
        self.0.insert(output.to_owned(), key);
    }

    /// Returns the key in the form of `outputs.NAME.api_key` (EA102).
    pub fn plain(&self, output: &str) -> Option<&str> {
        self.0.get(output).map(|key| key.as_str())
    }

    /// Returns the key in the form that OpenTelemetry exporters require (EA103).
    pub fn encoded(&self, output: &str) -> Option<Zeroizing<String>> {
        self.0.get(output).map(|key| Zeroizing::new(STANDARD.encode(key.as_bytes())))
    }
}

impl fmt::Debug for AgentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
