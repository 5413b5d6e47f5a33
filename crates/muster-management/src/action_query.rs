//! Queries over actions. The store filters by agent; other conditions are evaluated on rows in memory.

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::id::AgentId;

use super::action_convert::status_word;
use super::convert::document;
use super::kql::rows::Table;
use super::kql::{Expr, parse, plain_field, syntax_error};
use muster_fleet::action_views::ActionView;

const PREFIXES: [&str; 1] = ["fleet-actions"];

/// Fields of an action that a query may use, in addition to `agent_id`. Types and statuses match in upper or lower case.
pub static TABLE: Table<ActionView> = Table {
    prefixes: &PREFIXES,
    fields: &[
        ("id", |view| vec![view.action.id.to_string()]),
        ("type", |view| both_cases(view.action.kind.as_str())),
        ("status", |view| both_cases(status_word(view.progress.status))),
        ("policy_id", policy),
        ("created_by", |view| vec![view.action.created_by.clone()]),
    ],
    text: &["type", "created_by"],
};

// Values are compared as they are, so a field that ignores case offers both spellings.
fn both_cases(word: &str) -> Vec<String> {
    vec![word.to_owned(), word.to_lowercase()]
}

/// Returns the policy that a reassignment assigns.
fn policy(view: &ActionView) -> Vec<String> {
    let data = document(view.action.data.as_deref());
    let id = data["policy_id"].as_str().filter(|id| view.action.kind == ActionType::PolicyReassign && !id.is_empty());
    id.map(str::to_owned).into_iter().collect()
}

/// A parsed query: the condition that the store evaluates, and the rest.
#[derive(Debug, Default, PartialEq)]
pub struct ActionQuery {
    /// The agent that must be a target.
    pub agent: Option<AgentId>,
    /// The other conditions.
    pub rest: Option<Expr>,
}

impl ActionQuery {
    /// Parses a query.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut query = Self::default();
        let mut rest = Vec::new();
        // Only conditions at the top level can be separated: below an `or` or `not`, the store's answer alone would be wrong.
        let parts = match parse(text)? {
            Some(Expr::And(parts)) => parts,
            other => other.into_iter().collect(),
        };
        for part in parts {
            match part {
                Expr::Is(field, term) if is_agent(&field) && !term.pattern && query.agent.is_none() => {
                    query.agent = Some(AgentId::trusted(term.text));
                }
                // Targets are not part of the rows: an action may have 100,000 of them.
                part if names_agent(&part) => {
                    return Err(syntax_error(
                        "agent_id must be one complete id, combined with other conditions by and",
                    ));
                }
                // Evaluated on the rows that the store returns.
                part => rest.push(part),
            }
        }
        query.rest = (!rest.is_empty()).then_some(Expr::And(rest));
        Ok(query)
    }
}

fn is_agent(field: &str) -> bool {
    plain_field(field, &PREFIXES) == "agent_id"
}

fn names_agent(expr: &Expr) -> bool {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().any(names_agent),
        Expr::Not(inner) => names_agent(inner),
        Expr::Is(field, _) | Expr::Compare(field, ..) => is_agent(field),
        Expr::Text(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_condition_is_separated_from_the_rest() {
        let query = |text| ActionQuery::parse(text).unwrap();
        assert_eq!(query(""), ActionQuery::default());
        assert_eq!(query("agent_id:a"), ActionQuery { agent: Some(AgentId::trusted("a")), rest: None });
        let both = query("type:UPGRADE and agent_id:\"a\"");
        assert_eq!((both.agent, both.rest.is_some()), (Some(AgentId::trusted("a")), true));
        for text in ["agent_id:a or type:x", "not agent_id:a", "agent_id:a and agent_id:b", "agent_id:a*"] {
            assert!(
                ActionQuery::parse(text).unwrap_err().message.contains("agent_id must be one complete id"),
                "{text}"
            );
        }
    }
}
