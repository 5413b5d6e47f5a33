//! The agents that a page acts on: ticked ones, all that match a query, or those for which an action failed.

use muster_core::Error;
use muster_core::action::Action;
use muster_core::authorization::AgentsRead;
use muster_core::plural::counted;
use muster_core::shell;
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use muster_fleet::selection::Selected;
use muster_management::selector::{MOST_IDS, by_ids};
use serde_json::{Value, json};

use super::asked::Asked;
use super::bulk::Order;
use crate::visitor::Visitor;

/// Maximum number of ids in a command that is shown.
const SHOWN: usize = 10;

/// The chosen agents, and what people and programs call them.
pub struct Chosen {
    /// The agents.
    pub selected: Selected,
    /// For people: `3 agents`.
    pub text: String,
    /// For the command line.
    pub cli: String,
    /// For the API: ids, or a query.
    pub api: Value,
}

impl Chosen {
    /// Finds out which agents a page is about.
    pub async fn of(fleet: &Fleet, visitor: &Visitor, order: &Order) -> Result<Self, Error> {
        if !order.failed.is_empty() {
            let action: Authorized<Action, AgentsRead> = fleet.actions().find(&visitor.context, &order.failed).await?;
            let limit = u32::try_from(MOST_IDS).unwrap_or(u32::MAX);
            let ids = fleet.actions().failed_agents(&action, limit).await?;
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let text = format!("{} for which the action {} failed", counted(ids.len(), "agent"), action.id);
            return Ok(Self { text, ..Self::named(&ids)? });
        }
        if order.of != "all" {
            return Self::named(&order.agent);
        }
        let asked = Asked { q: order.q.clone(), status: order.status.clone(), ..Asked::default() };
        let query = asked.kuery();
        let (text, cli) = match query.as_str() {
            "" => ("all agents, except inactive and unenrolled ones".to_owned(), "--all".to_owned()),
            query => (format!("all agents that match {query}"), shell::option("--filter", query)),
        };
        Ok(Self { selected: Selected::Matching(Box::new(asked.filter(fleet)?)), text, cli, api: json!(query) })
    }

    fn named(ids: &[String]) -> Result<Self, Error> {
        if ids.is_empty() {
            let error = Error::invalid("agents", "no agent is selected");
            return Err(error.remedy("go back and select agents, or act on all that match"));
        }
        let words: Vec<String> = ids.iter().take(SHOWN).map(|id| shell::argument(id)).collect();
        let rest = if ids.len() > SHOWN { " …" } else { "" };
        Ok(Self {
            selected: by_ids(ids)?,
            text: counted(ids.len(), "agent"),
            cli: format!("{}{rest}", words.join(" ")),
            api: json!(&ids[..ids.len().min(SHOWN)]),
        })
    }
}
