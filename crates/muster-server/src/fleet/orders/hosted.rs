//! Hosted policies: their agents are changed only when forced.

use std::collections::HashSet;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::id::PolicyId;
use muster_store::query::Page;

use crate::fleet::Fleet;

const READ_AT_ONCE: u32 = 500;

/// The hosted policies.
#[derive(Debug, Default)]
pub(super) struct Hosted(HashSet<PolicyId>);

impl Hosted {
    /// Refuses an agent of a hosted policy.
    pub(super) fn refuse(&self, record: &AgentRecord) -> Result<(), String> {
        match &record.policy_id {
            Some(policy) if self.0.contains(policy) => Err(format!("its policy {policy} is hosted")),
            _ => Ok(()),
        }
    }
}

impl Fleet {
    /// The hosted policies; none of them counts when the order is forced.
    pub(super) async fn hosted_policies(&self, force: bool) -> Result<Hosted, Error> {
        let mut hosted = HashSet::new();
        let mut page = Page { offset: 0, limit: READ_AT_ONCE };
        while !force {
            let policies = self.store.policies(page).await?.items;
            if policies.is_empty() {
                break;
            }
            hosted.extend(policies.into_iter().filter(|policy| policy.is_managed).map(|policy| policy.id));
            page.offset += READ_AT_ONCE;
        }
        Ok(Hosted(hosted))
    }
}
