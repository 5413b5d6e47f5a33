//! What an empty store gets: a default policy.

use muster_core::Error;
use muster_core::context::{Actor, OpContext};
use muster_store::query::Page;
use muster_store::{SettingWrite, Write};

use super::draft::blank;
use super::{PolicyDraft, SavedPolicy};
use crate::Fleet;

/// Says that the default policy was made once: who deletes it does not get it again.
const MADE: &str = "default_policy";

impl Fleet {
    /// The name of a policy that enrollment keys can be made for: the default one, else the first by name.
    pub async fn policy_to_begin_with(&self) -> Result<Option<String>, Error> {
        let mut policies = self.all_policies().await?;
        policies.retain(|policy| !policy.is_managed);
        policies.sort_by(|one, other| (!one.is_default, &one.name).cmp(&(!other.is_default, &other.name)));
        Ok(policies.into_iter().next().map(|policy| policy.name))
    }

    /// Makes the `Default policy` with its enrollment key, in a store that never had one. `None`: nothing to do.
    pub async fn ensure_default_policy(&self) -> Result<Option<SavedPolicy>, Error> {
        let _turn = self.revising.lock().await;
        let has_policies = self.store.policies(Page { offset: 0, limit: 1 }).await?.total > 0;
        if has_policies || self.store.setting(MADE).await?.is_some() {
            return Ok(None);
        }
        let context = OpContext::administrator(Actor::System);
        let draft = PolicyDraft {
            name: Some("Default policy".into()),
            description: Some("Made at the first start".into()),
            is_default: Some(true),
            ..PolicyDraft::default()
        };
        let id = self.new_policy_id(None)?;
        let (policy, mut writes) = self.drafted(blank(id.clone(), self.clock.now()), draft).await?;
        writes.push(Write::Setting(SettingWrite::Put { name: MADE.into(), value: id.as_str().to_owned() }));
        self.insert_policy(&context, policy, writes).await.map(Some)
    }
}
