//! Staged rollouts. A row holds the whole rollout as a document, and the columns that are searched.

use muster_core::id::{PolicyId, RolloutId, SpaceId};
use muster_core::rollout::{Place, Rollout, Subject};

use super::error::Failure;
use super::row::{Columns, Result, all, all_composed, any, count, first, run, to_json};
use super::session::{Connection, Row, Rule, params};
use crate::port::{Precondition, RolloutWrite};
use crate::query::{AgentFilter, Listed, Page};
use crate::sql::{filter, rollouts as sql};

/// Applies a change of rollouts.
pub(super) fn apply(connection: &Connection, write: &RolloutWrite) -> std::result::Result<(), Failure> {
    match write {
        RolloutWrite::Insert { rollout, agents } => {
            insert(connection, rollout)?;
            for agent in agents {
                run(connection, sql::INSERT_AGENT, [rollout.id.as_str(), agent.as_str()])?;
            }
            Ok(())
        }
        RolloutWrite::Update(rollout) => update(connection, rollout),
        RolloutWrite::NoneActive(policy) => {
            // A rollout could otherwise begin on another node between this look and the commit.
            connection.lock(Rule::References)?;
            if any(connection, sql::IS_ACTIVE, [policy.as_str()])? {
                return Err(Precondition::ActiveRollout(policy.to_string()).into());
            }
            Ok(())
        }
    }
}

fn insert(connection: &Connection, rollout: &Rollout) -> std::result::Result<(), Failure> {
    connection.lock(Rule::References)?;
    let policy = match &rollout.subject {
        Subject::Policy { policy, .. } => Some(policy),
        Subject::Upgrade { .. } => None,
    };
    let values = params![
        rollout.id.as_str(),
        rollout.space.as_str(),
        policy.map(PolicyId::as_str),
        !rollout.state.is_final(),
        rollout.version,
        rollout.created_at.as_micros(),
        to_json(rollout)?,
    ];
    match (run(connection, sql::INSERT, values)?, policy) {
        // A unique index admits one active rollout for each policy.
        (0, Some(policy)) => Err(Precondition::ActiveRollout(policy.to_string()).into()),
        (0, None) => Err(Precondition::Exists(format!("rollout {}", rollout.id)).into()),
        _ => Ok(()),
    }
}

fn update(connection: &Connection, rollout: &Rollout) -> std::result::Result<(), Failure> {
    let values = params![!rollout.state.is_final(), rollout.version, to_json(rollout)?, rollout.id.as_str()];
    match run(connection, sql::UPDATE, values)? {
        0 => Err(Precondition::Changed(format!("rollout {}", rollout.id)).into()),
        _ => Ok(()),
    }
}

fn read(row: &Row<'_>) -> Result<Rollout> {
    Columns::of(row).json()
}

/// Selects a rollout of a space.
pub(super) fn one(connection: &Connection, space: &SpaceId, id: &RolloutId) -> Result<Option<Rollout>> {
    first(connection, sql::ONE, [id.as_str(), space.as_str()], read)
}

/// Selects a page of the rollouts of a space.
pub(super) fn page(connection: &Connection, space: &SpaceId, page: Page) -> Result<Listed<Rollout>> {
    let values = params![space.as_str(), i64::from(page.limit), i64::from(page.offset)];
    let items = all(connection, sql::PAGE, values, read)?;
    Ok(Listed { items, total: count(connection, sql::TOTAL, [space.as_str()])?, unreadable: 0 })
}

/// Selects the active rollout of a policy.
pub(super) fn open_of(connection: &Connection, policy: &PolicyId) -> Result<Option<Rollout>> {
    first(connection, sql::ACTIVE_OF, [policy.as_str()], read)
}

/// Selects the active rollouts of all spaces.
pub(super) fn open(connection: &Connection) -> Result<Vec<Rollout>> {
    all(connection, sql::ACTIVE, (), read)
}

/// Returns the place of the matching agent after `before` others.
pub(super) fn agent_place(connection: &Connection, wanted: &AgentFilter, before: u32) -> Result<Option<Place>> {
    let statement = filter::agent_place(wanted, before);
    let found = all_composed(connection, &statement, |row| Ok(Place::from_stored(Columns::of(row).take()?)))?;
    Ok(found.into_iter().next())
}
