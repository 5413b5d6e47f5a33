//! Which agents an order is for: ids, a filter, or all.

use clap::Args;
use muster_client::Client;
use muster_protocol::management::agent::ListAgents;
use muster_protocol::management::bulk::AgentSelector;

use super::confirm::Care;
use super::failure::Failed;

/// Ids, `--filter` or `--all`.
#[derive(Args, Clone, Debug)]
pub struct Selection {
    /// Agents, by id
    #[arg(value_name = "AGENT", required_unless_present_any = ["filter", "all"], conflicts_with_all = ["filter", "all"])]
    agents: Vec<String>,
    /// Agents that match: 'status:offline', 'tags:"web" and policy_id:"…"'
    #[arg(long, value_name = "KQL", conflicts_with = "all")]
    filter: Option<String>,
    /// Every agent
    #[arg(long)]
    all: bool,
    /// With --filter or --all: inactive agents too
    #[arg(long)]
    include_inactive: bool,
    #[command(flatten)]
    care: Care,
}

/// What the flags came to.
pub enum Chosen {
    /// Carry it out for these.
    These(AgentSelector),
    /// `--dry-run`: nothing more to do.
    OnlyCounted,
}

impl Selection {
    /// Whether inactive agents are meant as well.
    pub fn include_inactive(&self) -> Option<bool> {
        self.include_inactive.then_some(true)
    }

    /// The one agent, if the order is for one.
    pub fn single(&self) -> Option<&str> {
        match self.agents.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    fn selector(&self) -> AgentSelector {
        match &self.filter {
            Some(filter) => AgentSelector::Query(filter.clone()),
            None if self.all => AgentSelector::Query(String::new()),
            None => AgentSelector::Ids(self.agents.clone()),
        }
    }

    /// Counts, asks, and answers whom to order. `what` completes "… 12 agents?".
    pub async fn choose(&self, client: &Client, what: &str) -> Result<Chosen, Failed> {
        let count = self.count(client).await?;
        if self.care.dry_run {
            println!("would {what} {}", agents(count));
            return Ok(Chosen::OnlyCounted);
        }
        if count == 0 {
            return Err(Failed::not_found("no agent matches"));
        }
        if self.single().is_none() {
            self.care.confirm(&format!("{what} {}?", agents(count)))?;
        }
        Ok(Chosen::These(self.selector()))
    }

    async fn count(&self, client: &Client) -> Result<u64, Failed> {
        if !self.agents.is_empty() {
            return Ok(self.agents.len() as u64);
        }
        let query = ListAgents {
            kuery: self.filter.clone(),
            show_inactive: self.include_inactive(),
            per_page: Some(1),
            ..ListAgents::default()
        };
        Ok(client.agents(&query).await?.total)
    }
}

fn agents(count: u64) -> String {
    if count == 1 { "1 agent".to_owned() } else { format!("{count} agents") }
}
