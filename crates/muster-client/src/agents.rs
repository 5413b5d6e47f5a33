//! Agents: reading, updating, deleting, and actions for a single agent.

use muster_protocol::management::action::{Action, CreateAction, NewAction};
use muster_protocol::management::agent::{
    Agent, AgentStatus, Agents, AgentsOfActions, ListAgents, NamedAgent, NamedAgents, UpdateAgent, Words,
};
use muster_protocol::management::agent_action::{
    ChangeTags, CreatedAction, Diagnostics, Migrate, PrivilegeLevelChange, Reassign, Unenroll, Upgrade,
};
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::respond::{Respond, Responded};
use muster_protocol::management::{AgentStatusResults, Empty, Item};

use crate::{Client, Result};

const AGENTS: &str = "agents";

impl Client {
    /// Responds to the compromise of an agent.
    pub async fn respond(&self, id: &str, request: &Respond) -> Result<Responded> {
        self.post(&["agents", id, "respond"], request).await
    }

    /// Returns what [`Self::respond`] would do; changes nothing.
    pub async fn try_respond(&self, id: &str, request: &Respond) -> Result<Responded> {
        self.try_post(&["agents", id, "respond"], request).await
    }

    /// Returns a page of agents.
    pub async fn agents(&self, query: &ListAgents) -> Result<Agents> {
        self.get_with(&[AGENTS], query).await
    }

    /// Returns the agents with these ids or host names. Unknown ids and names are ignored.
    pub async fn agents_named(&self, named: &NamedAgents) -> Result<Vec<NamedAgent>> {
        Ok(self.post::<Whole<_>>(&[AGENTS, "_bulk_get"], named).await?.items)
    }

    /// Returns one agent with its components.
    pub async fn agent(&self, id: &str) -> Result<Agent> {
        Ok(self.get::<Item<_>>(&[AGENTS, id]).await?.item)
    }

    /// Sets tags or notes.
    pub async fn update_agent(&self, id: &str, update: &UpdateAgent) -> Result<Agent> {
        Ok(self.put::<Item<_>>(&[AGENTS, id], update).await?.item)
    }

    /// Returns the ids of the targets of these actions.
    pub async fn agents_of_actions(&self, action_ids: Vec<String>) -> Result<Vec<String>> {
        Ok(self.post::<Words>(&[AGENTS], &AgentsOfActions { action_ids }).await?.items)
    }

    /// Returns the tags of all agents that match.
    pub async fn agent_tags(&self, kuery: Option<&str>) -> Result<Vec<String>> {
        let query: Vec<_> = kuery.map(|kuery| ("kuery", kuery)).into_iter().collect();
        Ok(self.get_with::<Words>(&[AGENTS, "tags"], &query).await?.items)
    }

    /// Returns the number of agents in each status.
    pub async fn agent_status(&self, kuery: Option<&str>) -> Result<AgentStatusResults> {
        let query: Vec<_> = kuery.map(|kuery| ("kuery", kuery)).into_iter().collect();
        Ok(self.get_with::<AgentStatus>(&["agent_status"], &query).await?.results)
    }

    /// Returns the versions that agents can be upgraded to, newest first.
    pub async fn available_versions(&self) -> Result<Vec<String>> {
        Ok(self.get::<Words>(&[AGENTS, "available_versions"]).await?.items)
    }

    /// Unenrolls an agent; with force, revokes its access key immediately.
    pub async fn unenroll(&self, id: &str, request: &Unenroll) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "unenroll"], request).await
    }

    /// Assigns another policy to an agent, or none.
    pub async fn reassign(&self, id: &str, request: &Reassign) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "reassign"], request).await
    }

    /// Upgrades an agent.
    pub async fn upgrade(&self, id: &str, request: &Upgrade) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "upgrade"], request).await
    }

    /// Rolls an agent back to the version before its upgrade.
    pub async fn roll_back_agent(&self, id: &str) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "rollback"], &Empty {}).await
    }

    /// Requests a diagnostics bundle.
    pub async fn request_diagnostics(&self, id: &str, request: &Diagnostics) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "request_diagnostics"], request).await
    }

    /// Adds and removes tags.
    pub async fn change_tags(&self, id: &str, change: &ChangeTags) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "tags"], change).await
    }

    /// Migrates an agent to another server.
    pub async fn migrate(&self, id: &str, request: &Migrate) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "migrate"], request).await
    }

    /// Changes the privilege level of an agent.
    pub async fn change_privilege_level(&self, id: &str, request: &PrivilegeLevelChange) -> Result<CreatedAction> {
        self.post(&[AGENTS, id, "privilege_level_change"], request).await
    }

    /// Creates an action of any type for an agent.
    pub async fn create_action(&self, id: &str, action: NewAction) -> Result<Action> {
        Ok(self.post::<Item<_>>(&[AGENTS, id, "actions"], &CreateAction { action }).await?.item)
    }
}
