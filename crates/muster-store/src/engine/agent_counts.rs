//! Maintained numbers of agents: the changes of a transaction are summed, and written by one statement at its end.

use std::borrow::Cow;
use std::collections::BTreeMap;

use muster_core::agent::AgentRecord;
use muster_core::id::{AgentId, HostId, PolicyId, SpaceId};
use muster_core::status::Status;

use super::row::{Columns, Result, all, first, run, send, to_json};
use super::session::{Connection, params};
use super::words::Word;
use crate::sql::{agent_counts as sql, agents as agents_sql};

/// What an agent is counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    space: SpaceId,
    policy: Option<PolicyId>,
    /// The word, because that of a newer program is counted too.
    status: Cow<'static, str>,
    tags: Vec<String>,
}

/// The changes of a transaction to the numbers of agents.
#[derive(Debug, Default)]
pub(crate) struct Tally(Vec<(Group, i64)>);

impl Group {
    fn of(record: &AgentRecord) -> Self {
        Self {
            space: record.space.clone(),
            policy: record.policy_id.clone(),
            status: record.status.word().into(),
            tags: record.tags.clone(),
        }
    }

    /// Returns the space.
    pub(super) fn space(&self) -> &SpaceId {
        &self.space
    }

    /// Selects the group and the host of an agent. They do not change until the end of the transaction.
    pub(super) fn stored(connection: &Connection, id: &AgentId) -> Result<Option<(Self, Option<HostId>)>> {
        first(connection, agents_sql::GROUP, [id.as_str()], |row| {
            let mut c = Columns::of(row);
            let (space, policy, status): (_, _, String) = (c.id()?, c.id_option()?, c.take()?);
            // An agent whose tags cannot be read can still be deleted.
            let tags = serde_json::from_str(&c.take::<String>()?).unwrap_or_default();
            Ok((Self { space, policy, status: status.into(), tags }, c.id_option()?))
        })
    }
}

impl Tally {
    /// Adds an agent.
    pub(super) fn add(&mut self, record: &AgentRecord) {
        self.0.push((Group::of(record), 1));
    }

    /// Removes an agent.
    pub(super) fn remove(&mut self, group: Group) {
        self.0.push((group, -1));
    }

    /// Moves an agent to another group. Most changes of a record leave it in its group.
    pub(super) fn change(&mut self, before: &AgentRecord, after: &AgentRecord) {
        // The fields by which agents are counted. A field that is added to `Group` must be compared here too.
        let is_same = before.status == after.status
            && before.policy_id == after.policy_id
            && before.space == after.space
            && before.tags == after.tags;
        if !is_same {
            self.remove(Group::of(before));
            self.add(after);
        }
    }

    /// Returns a mark to roll back to if the next job fails.
    pub(crate) fn mark(&self) -> usize {
        self.0.len()
    }

    /// Rolls back to a mark.
    pub(crate) fn back_to(&mut self, mark: usize) {
        self.0.truncate(mark);
    }

    /// Writes the sums.
    pub(crate) fn write(&self, connection: &Connection) -> Result<()> {
        // Summed first: a transaction that changes a thousand agents of a policy writes one row per group.
        let mut sums: BTreeMap<(&str, String, &str, &str), i64> = BTreeMap::new();
        for (group, number) in &self.0 {
            let policy = group.policy.as_ref().map_or("", PolicyId::as_str);
            let mut tags: Vec<&String> = group.tags.iter().collect();
            tags.sort_unstable();
            // A record may list a tag twice, but is one agent with this tag.
            tags.dedup();
            // The empty key counts the agents regardless of tags; keys of tags begin with `=`, so none can collide
            // with it.
            for tag in std::iter::once(String::new()).chain(tags.into_iter().map(|tag| tag_key(tag))) {
                *sums.entry((group.space.as_str(), tag, policy, group.status.as_ref())).or_default() += number;
            }
        }
        let rows: Vec<_> = sums
            .iter()
            // An agent that moved back and forth within the transaction cancels out.
            .filter(|(_, number)| **number != 0)
            .map(|((space, tag, policy, status), number)| (space, tag, policy, status, number))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        send(connection, sql::ADD, params![connection.standing().node.as_str(), to_json(&rows)?])
    }
}

/// Returns the value of the column for a tag. PostgreSQL's strings contain no NUL.
pub(crate) fn tag_key(tag: &str) -> String {
    format!("={}", tag.replace('\0', "\u{fffd}"))
}

/// Counts the agents of each policy of a space, except those that are unenrolled.
pub(super) fn per_policy(connection: &Connection, space: &SpaceId) -> Result<Vec<(PolicyId, u64)>> {
    all(connection, sql::PER_POLICY, [space.as_str(), space.as_str()], |row| {
        let mut columns = Columns::of(row);
        Ok((columns.id()?, columns.count()?))
    })
}

/// Deletes what counts no agents, and merges the numbers of servers that are gone.
pub(super) fn fold(connection: &Connection) -> Result<u64> {
    run(connection, sql::FOLD, ()).map(|rows| rows as u64)
}

/// Records the numbers of an hour, and deletes old ones. Returns the number of new rows.
pub(super) fn record(connection: &Connection, hour: i64, keep_from: i64) -> Result<u64> {
    run(connection, sql::FORGET_HISTORY, [keep_from])?;
    run(connection, sql::RECORD_HISTORY, [hour]).map(|rows| rows as u64)
}

/// Selects the recorded numbers of a space from an hour on.
pub(super) fn history(connection: &Connection, space: &SpaceId, since: i64) -> Result<Vec<(i64, Status, u64)>> {
    let rows: Vec<(i64, String, u64)> = all(connection, sql::HISTORY, params![space.as_str(), since], |row| {
        let mut c = Columns::of(row);
        Ok((c.take()?, c.take()?, c.count()?))
    })?;
    Ok(rows.into_iter().filter_map(|(hour, status, number)| Some((hour, Status::parse(&status)?, number))).collect())
}
