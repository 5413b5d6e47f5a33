//! Conditions that few agents meet, which are looked up in an index.

use muster_core::id::{AgentId, HostId};

use super::Composed;
use crate::query::{AgentCondition, Identifier};

impl Composed {
    /// Appends alternatives of which each has an index. In a query of its own, because SQLite reads all agents of the space for an `OR`.
    pub(super) fn looked_up(&mut self, leaves: &[&AgentCondition]) {
        let space = self.space.clone();
        let mut head = "(agents.id IN (SELECT c.id FROM agents c WHERE 1 = 1";
        for leaf in leaves {
            self.push(head);
            if let Some(space) = &space {
                self.text(" AND c.space = $?", space.as_str());
            }
            match leaf {
                AgentCondition::Ids(ids) => self.list(" AND c.id ", ids.iter().map(AgentId::as_str)),
                AgentCondition::Hosts(ids) => {
                    self.list(" AND c.host_id IS NOT NULL AND c.host_id ", ids.iter().map(HostId::as_str));
                }
                AgentCondition::Hostnames(names) => {
                    self.list(" AND lower(c.hostname) ", names.iter().map(|name| name.to_ascii_lowercase()));
                }
                AgentCondition::Hardware(Identifier::Serial, values) => {
                    self.list(" AND c.serial <> '' AND c.serial ", identifiers(values));
                }
                AgentCondition::Hardware(Identifier::Uuid, values) => {
                    self.list(" AND c.hardware_uuid <> '' AND c.hardware_uuid ", identifiers(values));
                }
                // Not among those of `looked_up`.
                _ => self.push(" AND 1 = 0"),
            }
            head = " UNION ALL SELECT c.id FROM agents c WHERE 1 = 1";
        }
        self.push("))");
    }
}

/// Returns identifiers of hardware as they are stored.
pub(super) fn identifiers(values: &[String]) -> impl Iterator<Item = String> {
    values.iter().map(|value| value.trim().to_ascii_lowercase())
}

/// Returns whether a condition is met by few agents, which an index finds.
pub(super) fn selects_few(condition: &AgentCondition) -> bool {
    match condition {
        AgentCondition::Ids(_)
        | AgentCondition::IdsBetween(..)
        | AgentCondition::Hosts(_)
        | AgentCondition::Hostnames(_)
        | AgentCondition::Hardware(..) => true,
        AgentCondition::Any(parts) => parts.iter().all(selects_few),
        _ => false,
    }
}

/// Returns the alternatives if an index finds each of them; `None` otherwise.
pub(super) fn looked_up(parts: &[AgentCondition]) -> Option<Vec<&AgentCondition>> {
    let mut leaves = Vec::new();
    for part in parts {
        match part {
            AgentCondition::Ids(_)
            | AgentCondition::Hosts(_)
            | AgentCondition::Hostnames(_)
            | AgentCondition::Hardware(..) => leaves.push(part),
            AgentCondition::Any(inner) => leaves.extend(looked_up(inner)?),
            _ => return None,
        }
    }
    (!leaves.is_empty()).then_some(leaves)
}
