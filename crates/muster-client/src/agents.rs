//! Agents: look, note, delete, and orders to one.

use muster_protocol::management::action::{Action, CreateAction, NewAction};
use muster_protocol::management::agent::{Agent, AgentStatus, Agents, AgentsOfActions, ListAgents, UpdateAgent, Words};
use muster_protocol::management::agent_action::{
    ChangeTags, CreatedAction, Diagnostics, Migrate, PrivilegeLevelChange, Reassign, Unenroll, Upgrade,
};
use muster_protocol::management::enrollment_key::Deleted;
use muster_protocol::management::{AgentStatusResults, Empty, Item};

use crate::{Client, Result};

const AGENTS: &str = "agents";

impl Client {
    /// A page of agents.
    pub async fn agents(&self, query: &ListAgents) -> Result<Agents> {
        self.get_with(&[AGENTS], query).await
    }

    /// One agent with its components.
    pub async fn agent(&self, id: &str) -> Result<Agent> {
        Ok(self.get::<Item<_>>(&[AGENTS, id]).await?.item)
    }

    /// Sets tags or notes.
    pub async fn update_agent(&self, id: &str, update: &UpdateAgent) -> Result<Agent> {
        Ok(self.put::<Item<_>>(&[AGENTS, id], update).await?.item)
    }

    /// Purges an agent: its record, keys, results and uploads.
    pub async fn delete_agent(&self, id: &str) -> Result<()> {
        self.delete::<Deleted>(&[AGENTS, id], &()).await.map(drop)
    }

    /// The agents that some actions were for.
    pub async fn agents_of_actions(&self, action_ids: Vec<String>) -> Result<Vec<String>> {
        Ok(self.post::<Words>(&[AGENTS], &AgentsOfActions { action_ids }).await?.items)
    }

    /// Every tag in use among those that match.
    pub async fn agent_tags(&self, kuery: Option<&str>) -> Result<Vec<String>> {
        let query: Vec<_> = kuery.map(|kuery| ("kuery", kuery)).into_iter().collect();
        Ok(self.get_with::<Words>(&[AGENTS, "tags"], &query).await?.items)
    }

    /// Number of agents in each status.
    pub async fn agent_status(&self, kuery: Option<&str>) -> Result<AgentStatusResults> {
        let query: Vec<_> = kuery.map(|kuery| ("kuery", kuery)).into_iter().collect();
        Ok(self.get_with::<AgentStatus>(&["agent_status"], &query).await?.results)
    }

    /// Versions that agents can be upgraded to, newest first.
    pub async fn available_versions(&self) -> Result<Vec<String>> {
        Ok(self.get::<Words>(&[AGENTS, "available_versions"]).await?.items)
    }

    /// Orders an agent to leave, or shuts it out.
    pub async fn unenroll(&self, id: &str, order: &Unenroll) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "unenroll"], order).await
    }

    /// Puts an agent on another policy, or on none.
    pub async fn reassign(&self, id: &str, order: &Reassign) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "reassign"], order).await
    }

    /// Orders another version.
    pub async fn upgrade(&self, id: &str, order: &Upgrade) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "upgrade"], order).await
    }

    /// Orders an agent back to the version it had before.
    pub async fn roll_back_agent(&self, id: &str) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "rollback"], &Empty {}).await
    }

    /// Asks for a diagnostics bundle.
    pub async fn request_diagnostics(&self, id: &str, order: &Diagnostics) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "request_diagnostics"], order).await
    }

    /// Adds tags and takes tags away.
    pub async fn change_tags(&self, id: &str, change: &ChangeTags) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "tags"], change).await
    }

    /// Orders an agent to another server.
    pub async fn migrate(&self, id: &str, order: &Migrate) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "migrate"], order).await
    }

    /// Orders an agent to drop its privileges.
    pub async fn change_privilege_level(&self, id: &str, order: &PrivilegeLevelChange) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "privilege_level_change"], order).await
    }

    /// Gives an agent an order of any type.
    pub async fn create_action(&self, id: &str, action: NewAction) -> Result<Action> {
        Ok(self.post::<Item<_>>(&[AGENTS, id, "actions"], &CreateAction { action }).await?.item)
    }
}
