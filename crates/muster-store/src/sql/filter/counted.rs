//! Numbers of agents, from the maintained ones if the filter allows it.

use super::Composed;
use crate::engine::agent_counts::tag_key;
use crate::query::{AgentCondition, AgentFilter};

/// A filter over maintained numbers: about nothing but the space, the policy, the status and at most one tag.
pub(super) struct Counted<'f> {
    filter: &'f AgentFilter,
    pub(super) tag: Option<&'f str>,
}

/// The maintained numbers, with the columns that conditions name.
const COUNTS: &str = " FROM (SELECT space, tag, nullif(policy_id, '') AS policy_id, status, number FROM agent_counts) AS agents \
    WHERE 1 = 1";

impl<'f> Counted<'f> {
    /// Returns `None` if agents must be counted.
    pub(super) fn of(filter: &'f AgentFilter) -> Option<Self> {
        let mut tag = None;
        // All or nothing: with one condition beyond the maintained columns, the numbers cannot be split.
        filter.conditions.iter().all(|condition| Self::is_counted(condition, &mut tag)).then_some(Self { filter, tag })
    }

    fn is_counted(condition: &'f AgentCondition, tag: &mut Option<&'f str>) -> bool {
        match condition {
            AgentCondition::All(parts) | AgentCondition::Any(parts) => {
                parts.iter().all(|part| Self::is_counted(part, tag))
            }
            AgentCondition::Not(inner) => Self::is_counted(inner, tag),
            AgentCondition::Policies(_) | AgentCondition::HasPolicy | AgentCondition::Statuses(_) => true,
            AgentCondition::Tags(tags) => match tags.as_slice() {
                // The same tag may occur several times in a filter, but numbers for combinations of tags are not
                // kept.
                [only] => *tag.get_or_insert(only) == only,
                // An agent can have several of them.
                _ => false,
            },
            _ => false,
        }
    }

    /// Composes the sum of the numbers.
    pub(super) fn sums(&self, head: &'static str, tail: &'static str) -> Composed {
        let mut statement = Composed { text: head.to_owned(), ..Composed::default() };
        statement.push("CAST(coalesce(sum(");
        match self.tag {
            // Without a tag, the row with the empty key counts each agent once.
            None => statement.push("agents.number), 0) AS BIGINT)"),
            // Those without the tag are all, less those with it.
            Some(_) => {
                statement.push("agents.number * (CASE WHEN agents.tag <> '' AND (");
                self.conditions(&mut statement, true);
                statement.push(") THEN 1 ELSE 0 END + CASE WHEN NOT (");
                self.conditions(&mut statement, false);
                statement.push(") THEN 0 WHEN agents.tag = '' THEN 1 ELSE -1 END)), 0) AS BIGINT)");
            }
        }
        statement.push(COUNTS);
        if let Some(space) = &self.filter.space {
            statement.text(" AND agents.space = $?", space.as_str());
        }
        match self.tag {
            // The row of the tag and that of all agents: the difference of both is the agents without the tag.
            None => {
                statement.push(" AND agents.tag = '' AND (");
                self.conditions(&mut statement, false);
                statement.push(")");
            }
            Some(tag) => statement.text(" AND (agents.tag = '' OR agents.tag = $?)", &tag_key(tag)),
        }
        statement.push(tail);
        statement
    }

    /// Composes the query for the tags.
    pub(super) fn tags(&self) -> Composed {
        let mut statement = Composed { text: "SELECT substr(agents.tag, 2)".to_owned(), ..Composed::default() };
        statement.push(COUNTS);
        if let Some(space) = &self.filter.space {
            statement.text(" AND agents.space = $?", space.as_str());
        }
        statement.push(" AND agents.tag > '' AND (");
        self.conditions(&mut statement, false);
        statement.push(") GROUP BY agents.tag HAVING sum(agents.number) <> 0");
        statement
    }

    /// Appends the conditions for agents with the tag, or without it.
    fn conditions(&self, statement: &mut Composed, has_tag: bool) {
        statement.push("1 = 1");
        for condition in &self.filter.conditions {
            statement.push(" AND ");
            statement.condition(&decided(condition, has_tag));
        }
    }
}

/// Replaces the condition on a tag by its value.
fn decided(condition: &AgentCondition, has_tag: bool) -> AgentCondition {
    let all = |parts: &[AgentCondition]| parts.iter().map(|part| decided(part, has_tag)).collect();
    match condition {
        AgentCondition::All(parts) => AgentCondition::All(all(parts)),
        AgentCondition::Any(parts) => AgentCondition::Any(all(parts)),
        AgentCondition::Not(inner) => !decided(inner, has_tag),
        AgentCondition::Tags(_) if has_tag => AgentCondition::All(Vec::new()),
        AgentCondition::Tags(_) => AgentCondition::Any(Vec::new()),
        other => other.clone(),
    }
}
