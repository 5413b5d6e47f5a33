//! Conditions on operating systems. A fleet has few different ones, so that conditions are decided for each of them once, and not for
//! each agent.

use super::Composed;
use crate::query::{AgentCondition, AgentFilter};

/// Returns whether a filter has a condition on the operating system.
pub(crate) fn has_systems(conditions: &[AgentCondition]) -> bool {
    conditions.iter().any(|condition| match condition {
        AgentCondition::Os(..) => true,
        AgentCondition::All(parts) | AgentCondition::Any(parts) => has_systems(parts),
        AgentCondition::Not(inner) => has_systems(std::slice::from_ref(inner)),
        _ => false,
    })
}

/// Composes the query for the different systems of a space. It looks up the next one in the index instead of reading all agents. `None`
/// for all spaces, for which there is no index.
pub(crate) fn systems(filter: &AgentFilter, limit: u32) -> Option<Composed> {
    let space = filter.space.as_ref()?.as_str();
    let mut statement = Composed {
        text: "WITH RECURSIVE s (os) AS (SELECT min(a.os) FROM agents a WHERE a.space = ".to_owned(),
        ..Composed::default()
    };
    statement.text("$? UNION ALL SELECT (SELECT min(a.os) FROM agents a WHERE a.space = ", space);
    statement.text("$? AND a.os > s.os) FROM s WHERE s.os IS NOT NULL) ", space);
    statement.push("SELECT os FROM s WHERE os IS NOT NULL");
    statement.integer(" LIMIT $?", limit.into());
    Some(statement)
}

/// Replaces the conditions on operating systems, given all different systems.
pub(crate) fn on_systems(condition: &AgentCondition, systems: &[String]) -> AgentCondition {
    let all = |parts: &[AgentCondition]| parts.iter().map(|part| on_systems(part, systems)).collect();
    match condition {
        AgentCondition::All(parts) => AgentCondition::All(all(parts)),
        AgentCondition::Any(parts) => AgentCondition::Any(all(parts)),
        AgentCondition::Not(inner) => !on_systems(inner, systems),
        AgentCondition::Os(fact, value, is_prefix) => {
            let met: Vec<String> =
                systems.iter().filter(|system| fact.is_met(system, value, *is_prefix)).cloned().collect();
            // No alternatives: the engines see that nothing matches.
            if met.is_empty() { AgentCondition::Any(Vec::new()) } else { AgentCondition::Systems(met) }
        }
        other => other.clone(),
    }
}
