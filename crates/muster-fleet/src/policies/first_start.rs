//! The default policy of an empty store.

use muster_core::Error;
use muster_core::authorization::{Actor, Grant, OpContext, PoliciesCreate};
use muster_core::id::SpaceId;
use muster_store::query::Page;
use muster_store::{SettingWrite, Write};

use super::draft::blank;
use super::{Policies, PolicyDraft, SavedPolicy, all_in};
use crate::authority::System;

/// The setting that records that the default policy was created once. Without it, a deleted default policy would come
/// back at every start.
const CREATED: &str = "default_policy";

impl Policies {
    /// Returns the name of a policy that can have enrollment keys: the default one, else the first by name.
    pub async fn first_policy_name(&self) -> Result<Option<String>, Error> {
        let mut policies = all_in(self.store.within(&System, &SpaceId::default())).await?;
        policies.retain(|policy| !policy.is_managed);
        // `false` sorts before `true`, so `!is_default` puts the default policy first.
        policies.sort_by(|one, other| (!one.is_default, &one.name).cmp(&(!other.is_default, &other.name)));
        Ok(policies.into_iter().next().map(|policy| policy.name))
    }

    /// Creates the `Default policy` with its enrollment key in a store that never had a policy; otherwise returns
    /// `None`. To be called at the first start.
    pub async fn ensure_default(&self) -> Result<Option<SavedPolicy>, Error> {
        self.ensure_default_for(&OpContext::administrator(Actor::System).grant()?).await
    }

    /// Creates the `Default policy` on behalf of a caller, if the store never had a policy. It belongs to the default
    /// space; nothing is created for callers in another one.
    pub async fn ensure_default_for(&self, grant: &Grant<PoliciesCreate>) -> Result<Option<SavedPolicy>, Error> {
        if *grant.space() != SpaceId::default() {
            return Ok(None);
        }
        self.in_turn(move |turn| async move {
            let everywhere = self.store.everywhere(&System);
            let has_policies = everywhere.policies(None, Page { offset: 0, limit: 1 }).await?.total > 0;
            if has_policies || everywhere.setting(CREATED).await?.is_some() {
                return Ok(None);
            }
            // Created like any other policy, through the checks and the compiler, so that it can't differ from one that an
            // administrator creates.
            let draft = PolicyDraft {
                name: Some("Default policy".into()),
                description: Some("Created at the first start".into()),
                is_default: Some(true),
                ..PolicyDraft::default()
            };
            let id = self.new_policy_id(None)?;
            let (policy, mut writes) =
                self.apply_draft(blank(id.clone(), SpaceId::default(), self.clock.now()), draft).await?;
            // The marker is in the commit of the policy: a crash in between would otherwise leave a store that never gets
            // one, or gets two.
            writes.push(Write::Setting(SettingWrite::Put { name: CREATED.into(), value: id.as_str().to_owned() }));
            self.insert_policy(grant, &turn, policy, writes).await.map(Some)
        })
        .await
    }
}
