//! Agent policies.

use muster_protocol::management::agent_policy::{
    AgentPolicy, AppliedPolicy, ApplyPolicy, BulkGet, CopyAgentPolicy, DeleteAgentPolicy, DeletedAgentPolicy, Diff,
    ListAgentPolicies, Revision, RevisionDetails, Rollback, SaveAgentPolicy,
};
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::uninstall_token::Message;
use muster_protocol::management::{Item, Items};
use serde_json::Value;

use crate::{Client, Result};

const POLICIES: &str = "agent_policies";

impl Client {
    /// Returns a page of policies, sorted by name.
    pub async fn agent_policies(&self, query: &ListAgentPolicies) -> Result<Items<AgentPolicy>> {
        self.get_with(&[POLICIES], query).await
    }

    /// Returns one policy.
    pub async fn agent_policy(&self, id: &str) -> Result<AgentPolicy> {
        Ok(self.get::<Item<_>>(&[POLICIES, id]).await?.item)
    }

    /// Returns several policies. The server returns 404 if one does not exist, unless the request ignores missing
    /// policies.
    pub async fn agent_policies_of(&self, request: &BulkGet) -> Result<Vec<AgentPolicy>> {
        Ok(self.post::<Whole<_>>(&[POLICIES, "_bulk_get"], request).await?.items)
    }

    /// Creates a policy.
    pub async fn create_agent_policy(&self, policy: &SaveAgentPolicy) -> Result<AgentPolicy> {
        Ok(self.post::<Item<_>>(&[POLICIES], policy).await?.item)
    }

    /// Updates a policy. Creates a revision if something differs.
    pub async fn update_agent_policy(&self, id: &str, policy: &SaveAgentPolicy) -> Result<AgentPolicy> {
        Ok(self.put::<Item<_>>(&[POLICIES, id], policy).await?.item)
    }

    /// Returns what [`Self::create_agent_policy`] would create; changes nothing.
    pub async fn try_create_agent_policy(&self, policy: &SaveAgentPolicy) -> Result<AgentPolicy> {
        Ok(self.try_post::<Item<_>>(&[POLICIES], policy).await?.item)
    }

    /// Returns what [`Self::update_agent_policy`] would create; changes nothing.
    pub async fn try_update_agent_policy(&self, id: &str, policy: &SaveAgentPolicy) -> Result<AgentPolicy> {
        Ok(self.try_put::<Item<_>>(&[POLICIES, id], policy).await?.item)
    }

    /// Applies a policy file: creates or updates the policy with the name in the file.
    pub async fn apply_policy(&self, file: &ApplyPolicy) -> Result<AppliedPolicy> {
        Ok(self.post::<Item<_>>(&[POLICIES, "_apply"], file).await?.item)
    }

    /// Returns what [`Self::apply_policy`] would do; changes nothing.
    pub async fn try_apply_policy(&self, file: &ApplyPolicy) -> Result<AppliedPolicy> {
        Ok(self.try_post::<Item<_>>(&[POLICIES, "_apply"], file).await?.item)
    }

    /// Copies a policy to another name.
    pub async fn copy_agent_policy(&self, id: &str, copy: &CopyAgentPolicy) -> Result<AgentPolicy> {
        Ok(self.post::<Item<_>>(&[POLICIES, id, "copy"], copy).await?.item)
    }

    /// Deletes a policy, which must not have active agents.
    pub async fn delete_agent_policy(&self, id: &str, force: bool) -> Result<DeletedAgentPolicy> {
        let request = DeleteAgentPolicy { agent_policy_id: id.to_owned(), force: force.then_some(true) };
        self.post(&[POLICIES, "delete"], &request).await
    }

    /// Validates [`Self::delete_agent_policy`]; changes nothing.
    pub async fn try_delete_agent_policy(&self, id: &str, force: bool) -> Result<DeletedAgentPolicy> {
        let request = DeleteAgentPolicy { agent_policy_id: id.to_owned(), force: force.then_some(true) };
        self.try_post(&[POLICIES, "delete"], &request).await
    }

    /// Returns the policy as agents receive it, with references in place of secrets.
    pub async fn full_agent_policy(&self, id: &str, revision: Option<i64>) -> Result<Value> {
        let query: Vec<_> = revision.map(|revision| ("revision", revision)).into_iter().collect();
        Ok(self.get_with::<Item<_>>(&[POLICIES, id, "full"], &query).await?.item)
    }

    /// Replaces the key that signs policies and actions: every policy gets a new revision.
    pub async fn rotate_signing_key(&self) -> Result<Message> {
        // Kibana's API requires this confirmation.
        self.post_with(&["message_signing_service", "rotate_key_pair"], &[("acknowledge", true)]).await
    }

    /// Returns a policy's revisions, newest first.
    pub async fn policy_revisions(&self, id: &str) -> Result<Vec<Revision>> {
        Ok(self.get::<Whole<_>>(&[POLICIES, id, "revisions"]).await?.items)
    }

    /// Returns one revision.
    pub async fn policy_revision(&self, id: &str, revision: i64) -> Result<RevisionDetails> {
        Ok(self.get::<Item<_>>(&[POLICIES, id, "revisions", &revision.to_string()]).await?.item)
    }

    /// Returns the differences between two revisions.
    pub async fn policy_diff(&self, id: &str, from: i64, to: i64) -> Result<Diff> {
        Ok(self.get_with::<Item<_>>(&[POLICIES, id, "diff"], &[("from", from), ("to", to)]).await?.item)
    }

    /// Creates a revision with the content of an older one.
    pub async fn roll_back_policy(&self, id: &str, rollback: &Rollback) -> Result<AgentPolicy> {
        Ok(self.post::<Item<_>>(&[POLICIES, id, "rollback"], rollback).await?.item)
    }

    /// Returns what [`Self::roll_back_policy`] would create; changes nothing.
    pub async fn try_roll_back_policy(&self, id: &str, rollback: &Rollback) -> Result<AgentPolicy> {
        Ok(self.try_post::<Item<_>>(&[POLICIES, id, "rollback"], rollback).await?.item)
    }
}
