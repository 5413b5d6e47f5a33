//! Selection of agents: by name, by a filter, or all.

use clap::{ArgGroup, Args};
use muster_client::{Bulk, Client};
use muster_core::plural::counted;
use muster_protocol::management::agent::ListAgents;
use muster_protocol::management::bulk::AgentSelector;
use muster_protocol::management::envelope::Counted;

use super::confirm::Care;
use super::failure::Failed;
use super::find::{find_agents, quoted};
use super::text::print_line;

/// Names, `--filter` or `--all`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("which agents").required(true).args(["agents", "filter", "all"]))]
pub struct Selection {
    /// Agents, by id or host name
    #[arg(value_name = "AGENT")]
    agents: Vec<String>,
    /// Filter, such as 'status:offline' or 'tags:"web" and policy_id:"…"'
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    /// All agents
    #[arg(long)]
    all: bool,
    /// With --filter or --all: include inactive agents
    #[arg(long, conflicts_with = "agents")]
    include_inactive: bool,
    #[command(flatten)]
    care: Care,
}

/// The selected agents.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Selector for a bulk request.
    pub agents: AgentSelector,
    /// Whether a filter includes inactive agents.
    pub include_inactive: Option<bool>,
    /// Number of agents.
    pub count: u64,
}

impl Chosen {
    /// Returns the agent if exactly one was named.
    pub fn single(&self) -> Option<&str> {
        match &self.agents {
            AgentSelector::Ids(ids) => ids.first().filter(|_| ids.len() == 1).map(String::as_str),
            AgentSelector::Query(_) => None,
        }
    }
}

impl Selection {
    /// Returns whether exactly one agent was named.
    pub fn names_one(&self) -> bool {
        self.agents.len() == 1
    }

    /// Resolves the selection and asks for confirmation. With `--dry-run`, has the server validate `request`, prints
    /// the result and returns `None`. `what` turns "12 agents" into "unenroll 12 agents".
    pub async fn choose<B: Bulk>(
        &self,
        client: &Client,
        what: impl Fn(&str) -> String,
        request: impl FnOnce(&Chosen) -> B,
    ) -> Result<Option<Chosen>, Failed> {
        let chosen = self.resolve(client).await?;
        // Before the confirmation, because a dry run changes nothing.
        if self.care.dry_run {
            let counted = client.try_bulk(request(&chosen)).await?;
            print_dry_run(&counted, chosen.single(), &what)?;
            return Ok(None);
        }
        let change = what(&agents(chosen.count));
        // A single agent that is named explicitly needs no confirmation.
        if chosen.single().is_none() {
            self.care.confirm(&format!("{}?", capitalised(&change)))?;
        }
        Ok(Some(chosen))
    }

    /// Resolves the selection. Returns an error if it contains no agent.
    pub async fn resolve(&self, client: &Client) -> Result<Chosen, Failed> {
        let chosen = self.look(client).await?;
        if chosen.count == 0 {
            return Err(
                Failed::not_found("no agent matches").remedy("test the filter with: muster agent list --filter …")
            );
        }
        Ok(chosen)
    }

    /// Returns `--yes` and `--dry-run`.
    pub fn care(&self) -> Care {
        self.care
    }

    async fn look(&self, client: &Client) -> Result<Chosen, Failed> {
        if !self.agents.is_empty() {
            let ids = find_agents(client, &self.agents).await?;
            return Ok(Chosen { count: ids.len() as u64, agents: AgentSelector::Ids(ids), include_inactive: None });
        }
        // Only the number is needed for the confirmation: the server resolves the filter again when it runs the action.
        let query = ListAgents {
            kuery: self.filter.clone(),
            show_inactive: self.include_inactive.then_some(true),
            per_page: Some(1),
            ..ListAgents::default()
        };
        let count = client.agents(&query).await?.total;
        // An empty filter selects all agents.
        let agents = AgentSelector::Query(self.filter.clone().unwrap_or_default());
        Ok(Chosen { agents, include_inactive: query.show_inactive, count })
    }
}

/// Returns the filter for agents on hosts with one of these labels that also match another filter.
pub fn labelled(labels: &[String], filter: Option<String>) -> Option<String> {
    if labels.is_empty() {
        return filter;
    }
    let names: Vec<String> = labels.iter().map(|name| quoted(name)).collect();
    let labels = format!("labels:({})", names.join(" or "));
    Some(match filter.filter(|filter| !filter.trim().is_empty()) {
        Some(filter) => format!("{labels} and ({filter})"),
        None => labels,
    })
}

/// Prints the result of a dry run. Returns an error if no agent is eligible, as the action itself would.
fn print_dry_run(counted: &Counted, single: Option<&str>, what: &impl Fn(&str) -> String) -> Result<(), Failed> {
    let first = counted.errors.first();
    if let (Some(agent), Some(refusal), 0) = (single, first, counted.count) {
        return Err(Failed::new(format!("agent {agent}: {}", refusal.error)));
    }
    let refused =
        refused(counted.refused, counted.count + counted.refused, first.map(|it| (&*it.agent_id, &*it.error)));
    match refused {
        Some(refused) if counted.count == 0 => return Err(refused),
        Some(refused) => eprintln!("{refused}"),
        None => {}
    }
    note_excluded(counted.excluded);
    print_line(format!("would {}", what(&agents(counted.count))))
}

/// Tells how many of the selected agents the caller may not act on.
fn note_excluded(excluded: u64) {
    if excluded > 0 {
        eprintln!("excluded {}, which you may read but not act on", agents(excluded));
    }
}

/// Returns an error with the number of agents that are not eligible and the reason for the first of them, or `None` if
/// all are eligible.
pub fn refused(refused: u64, all: u64, first: Option<(&str, &str)>) -> Option<Failed> {
    let first = first.map(|(agent, error)| format!("; agent {agent}: {error}")).unwrap_or_default();
    (refused > 0).then(|| Failed::new(format!("{refused} of {} not eligible{first}", agents(all))))
}

/// `1 agent`, `3 agents`.
pub fn agents(count: u64) -> String {
    counted(count, "agent")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_narrow_a_filter() {
        let labels = ["a".to_owned(), "b \"c\"".to_owned()];
        let both = labelled(&labels, Some("status:online or tags:x".into()));
        assert_eq!(both.as_deref(), Some(r#"labels:("a" or "b \"c\"") and (status:online or tags:x)"#));
        assert_eq!(labelled(&labels[..1], None).as_deref(), Some(r#"labels:("a")"#));
        assert_eq!(labelled(&[], Some("x".into())).as_deref(), Some("x"));
    }

    #[test]
    fn counts_and_questions_are_formatted() {
        assert_eq!((agents(1), agents(0)), ("1 agent".into(), "0 agents".into()));
        assert_eq!((capitalised("delete 2 agents"), capitalised("")), ("Delete 2 agents".into(), String::new()));
    }
}
