//! Cache of the output objects that each policy uses. Finding out takes a compilation.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use muster_core::id::{OutputId, PolicyId};
use muster_core::network_object::Shared;
use muster_core::policy::Policy;

/// The cache. Its entries are valid only for the objects that they were compiled with.
#[derive(Default)]
pub struct OutputUses(Mutex<Known>);

#[derive(Default)]
struct Known {
    shared: Shared,
    /// By policy: the revision, and the outputs it uses.
    policies: HashMap<PolicyId, (i64, Vec<OutputId>)>,
    #[cfg(test)]
    insertions: usize,
}

impl OutputUses {
    /// Returns the outputs that the policy uses, if cached.
    pub(super) fn get(&self, policy: &Policy, shared: &Shared) -> Option<Vec<OutputId>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, used) = known.policies.get(&policy.id)?;
        // Compared and not invalidated: another node may have changed policies or outputs.
        (*revision == policy.revision && known.shared == *shared).then(|| used.clone())
    }

    /// Caches the outputs that the policy uses; drops entries that were compiled with other objects.
    pub(super) fn insert(&self, policy: &Policy, shared: &Shared, used: Vec<OutputId>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.shared != *shared {
            known.shared = shared.clone();
            known.policies.clear();
        }
        #[cfg(test)]
        {
            known.insertions += 1;
        }
        known.policies.insert(policy.id.clone(), (policy.revision, used));
    }

    /// Drops policies that no longer exist.
    pub(super) fn retain(&self, policies: &[Policy]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.policies.len() > policies.len() {
            // Quadratic, but only after a deletion.
            known.policies.retain(|id, _| policies.iter().any(|policy| policy.id == *id));
        }
    }

    /// Number of insertions so far.
    #[cfg(test)]
    pub(super) fn insertions(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insertions
    }
}
