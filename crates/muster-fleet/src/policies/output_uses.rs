//! Which output objects each policy uses, as far as its newest revision was compiled to find out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use muster_core::id::{OutputId, PolicyId};
use muster_core::output::Output;
use muster_core::policy::Policy;

/// What was found out. It holds for the outputs that it was found out with.
#[derive(Default)]
pub struct OutputUses(Mutex<Known>);

#[derive(Default)]
struct Known {
    outputs: Vec<Output>,
    /// By policy: the revision, and what it uses.
    policies: HashMap<PolicyId, (i64, Vec<OutputId>)>,
    #[cfg(test)]
    learned: usize,
}

impl OutputUses {
    /// What the policy uses, if it is known.
    pub(super) fn of(&self, policy: &Policy, outputs: &[Output]) -> Option<Vec<OutputId>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, used) = known.policies.get(&policy.id)?;
        (*revision == policy.revision && known.outputs == outputs).then(|| used.clone())
    }

    /// Keeps what the policy uses with these outputs; what was found out with others goes.
    pub(super) fn learn(&self, policy: &Policy, outputs: &[Output], used: Vec<OutputId>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.outputs != outputs {
            known.outputs = outputs.to_vec();
            known.policies.clear();
        }
        #[cfg(test)]
        {
            known.learned += 1;
        }
        known.policies.insert(policy.id.clone(), (policy.revision, used));
    }

    /// Forgets policies that are gone.
    pub(super) fn keep(&self, policies: &[Policy]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.policies.len() > policies.len() {
            known.policies.retain(|id, _| policies.iter().any(|policy| policy.id == *id));
        }
    }

    /// How often something was found out.
    #[cfg(test)]
    pub(super) fn learned(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).learned
    }
}
