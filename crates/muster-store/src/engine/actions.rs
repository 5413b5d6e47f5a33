//! Actions, their targets and results.

use std::sync::Arc;

use super::session::{Connection, Params as _, Row, Usual, params};
use muster_core::action::{
    Action, ActionCounts, ActionResult, DueAction, LEFT_SPACE, Outcome, REINSTALLED, Signed, Target, TargetState,
    UNENROLLED,
};
use muster_core::id::{ActionId, AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::policy_changes;
use super::row::{
    Columns, Result, affects, all, all_composed, count_composed, filled, first, run, send, to_json, unless_unreadable,
};
use super::words::{ENDED, INELIGIBLE, Word};
use crate::port::Precondition;
use crate::query::{ActionFilter, ActionScope, Listed, Page};
use crate::sql::{actions as sql, filter};

fn missing(id: &ActionId) -> Precondition {
    Precondition::Missing(format!("action {id}"))
}

fn seq(connection: &Connection, id: &ActionId) -> Result<Option<i64>> {
    first(connection, sql::SEQ, [id.as_str()], |row| row.get(0))
}

/// Inserts an action and its targets, and returns its sequence number.
pub(super) fn insert(
    connection: &Connection,
    action: &Action,
    targets: &[AgentId],
) -> std::result::Result<i64, Failure> {
    let values = params![
        action.id.as_str(),
        action.space.as_str(),
        action.kind.word(),
        action.created_at.as_micros(),
        action.expiration.map(Timestamp::as_micros),
        action.start_time.map(Timestamp::as_micros),
        action.rollout_seconds,
        action.timeout,
        action.input_type,
        action.data,
        action.signed.as_ref().map(|signed| &signed.data),
        action.signed.as_ref().map(|signed| &signed.signature),
        action.total,
        action.created_by,
        action.cancelled_at.map(Timestamp::as_micros),
    ];
    // Without a row, the id is taken: the statement does nothing on a conflict.
    let Some(seq) = first(connection, sql::INSERT, values, |row| row.get(0))? else {
        return Err(Precondition::Exists(format!("action {}", action.id)).into());
    };
    // The place decides when the agent starts within a rollout window (EA83), so it follows the order of the list.
    if !targets.is_empty() {
        let targets: Vec<&str> = targets.iter().map(AgentId::as_str).collect();
        send(connection, sql::INSERT_TARGETS, params![seq, to_json(&targets)?])?;
    }
    Ok(seq)
}

/// Stores the result of an agent. The first one is kept.
pub(super) fn put_result(
    connection: &Connection,
    result: &ActionResult,
    addressed: bool,
) -> std::result::Result<(), Failure> {
    // The statement changes only pending targets: the first result counts (EA119), and it is enough for most.
    let agent = result.agent_id.as_str();
    let at = result.at.as_micros();
    let action = result.action_id.as_str();
    let values = params![result.outcome.state().word(), at, result.outcome.message(), result.fields, agent, action];
    if affects(connection, sql::RESULT, values)? {
        return Ok(());
    }
    // Only now, for a result that changed nothing: which of several reasons it has decides the answer.
    let Some(seq) = seq(connection, &result.action_id)? else { return Err(missing(&result.action_id).into()) };
    let stands: Option<String> = first(connection, sql::STATE, params![agent, seq], |row| row.get(0))?;
    match stands.as_deref() {
        // The agent was not eligible, so a result from it would be for an action that it never received (D17).
        None | Some(INELIGIBLE) if addressed => {
            let what = format!("agent {agent} among the targets of action {}", result.action_id);
            Err(Precondition::Missing(what).into())
        }
        None => Ok(insert_ineligible(connection, seq, result)?),
        // The target already has a final state, which is kept.
        Some(_) => Ok(()),
    }
}

fn insert_ineligible(connection: &Connection, seq: i64, result: &ActionResult) -> Result<()> {
    // After the targets of the action, so that their places, and with them their start times, stay as they are.
    let place: Option<i64> = first(connection, sql::NEXT_PLACE, [seq], |row| row.get(0))?;
    let agent = result.agent_id.as_str();
    let values =
        params![agent, seq, place.unwrap_or(0), result.at.as_micros(), result.outcome.message(), result.fields];
    send(connection, sql::INSERT_INELIGIBLE, values)
}

/// Marks an action as cancelled, unless it is already.
pub(super) fn cancel(connection: &Connection, id: &ActionId, now: Timestamp) -> std::result::Result<(), Failure> {
    let rows = run(connection, sql::CANCEL, params![now.as_micros(), id.as_str()])?;
    if rows == 0 { Err(missing(id).into()) } else { Ok(()) }
}

/// Marks the effect of an action as pending.
pub(super) fn begin(connection: &Connection, id: &ActionId) -> Result<()> {
    send(connection, sql::BEGIN, [id.as_str()])
}

/// Marks the effect of an action as complete.
pub(super) fn finish(connection: &Connection, id: &ActionId) -> Result<()> {
    send(connection, sql::FINISH, [id.as_str()])
}

/// Returns the actions whose effect is incomplete.
pub(super) fn unfinished(connection: &Connection) -> Result<Vec<ActionId>> {
    all(connection, sql::UNFINISHED, (), |row| Columns::of(row).id())
}

/// Ends the pending targets of an agent that left.
pub(super) fn end_open(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    send(connection, sql::END_OPEN, params![ENDED, now.as_micros(), UNENROLLED, agent.as_str()])
}

/// Ends the pending targets of an agent that is in another space now, which must not get the actions of the former one.
pub(super) fn leave_space(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    send(connection, sql::END_OPEN, params![ENDED, now.as_micros(), LEFT_SPACE, agent.as_str()])
}

/// Ends one pending target.
pub(super) fn end_target(
    connection: &Connection,
    action: &ActionId,
    agent: &AgentId,
    error: Option<&str>,
    now: Timestamp,
) -> Result<()> {
    let state = if error.is_some() { ENDED } else { TargetState::Acked.word() };
    let values = params![state, now.as_micros(), error, agent.as_str(), action.as_str()];
    send(connection, sql::END_TARGET, values)
}

/// Ends the targets of earlier lives of an agent id.
pub(super) fn close_life(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    // Most ids are new, for which one index look-up finds no target.
    // Usually unaffected, so on PostgreSQL the enrollment does not wait for the answer.
    let earlier = [agent.as_str()].with(|id| connection.run_usually(sql::CLOSE_LIFE, id, Usual::Unaffected))?;
    if earlier > 0 {
        end_open(connection, agent, now)?;
    }
    Ok(())
}

/// Keeps an agent that was reinstalled from getting again what it has acknowledged, and from leaving again.
pub(super) fn begin_installation(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    // The agent has just been installed again: an UNENROLL that was meant for the old installation would remove the
    // new one.
    send(connection, sql::END_UNENROLL, params![ENDED, now.as_micros(), REINSTALLED, agent.as_str()])?;
    send(connection, sql::CLOSE_ACKNOWLEDGED, [agent.as_str()])
}

/// Removes a deleted agent from its actions: pending targets end, and its reports are deleted.
pub(super) fn forget_agent(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    close_life(connection, agent, now)?;
    send(connection, sql::CLEAR_FIELDS, [agent.as_str()])
}

/// Deletes expired actions, and returns their number.
pub(super) fn collect(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64> {
    let rows = run(connection, sql::COLLECT, params![before.as_micros(), limit])?;
    Ok(rows as u64)
}

pub(super) fn read(c: &mut Columns<'_, '_>) -> Result<Action> {
    Ok(Action {
        seq: c.take()?,
        id: c.id()?,
        space: c.id()?,
        kind: c.word()?,
        created_at: c.time()?,
        expiration: c.time_option()?,
        start_time: c.time_option()?,
        rollout_seconds: c.take()?,
        timeout: c.take()?,
        input_type: c.take()?,
        data: c.take()?,
        signed: signed(c)?,
        total: c.take()?,
        created_by: c.take()?,
        cancelled_at: c.time_option()?,
    })
}

fn signed(c: &mut Columns<'_, '_>) -> Result<Option<Signed>> {
    let (data, signature) = (c.take::<Option<String>>()?, c.take::<Option<String>>()?);
    Ok(data.zip(signature).map(|(data, signature)| Signed { data, signature }))
}

/// Selects an action.
pub(super) fn by_id(connection: &Connection, id: &ActionId) -> Result<Option<Action>> {
    first(connection, sql::BY_ID, [id.as_str()], |row| read(&mut Columns::of(row)))
}

/// Selects an action of a space.
pub(super) fn by_id_in(connection: &Connection, space: &SpaceId, id: &ActionId) -> Result<Option<Action>> {
    first(connection, sql::BY_ID_IN, [id.as_str(), space.as_str()], |row| read(&mut Columns::of(row)))
}

/// Returns what is due to an agent.
pub(super) fn due(
    connection: &Connection,
    agent: &AgentId,
    after: i64,
    now: Timestamp,
    // Positions, not places: the agent confirms with the number of the last action that it has stored.
    limit: u32,
) -> Result<Vec<DueAction>> {
    all(connection, sql::DUE, params![agent.as_str(), after, now.as_micros(), limit], |row| {
        let mut columns = Columns::of(row);
        Ok(DueAction { action: Arc::new(read(&mut columns)?), position: columns.take()? })
    })
}

/// Selects the targets of an action in order.
pub(super) fn targets(
    connection: &Connection,
    id: &ActionId,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, AgentId, Target)>> {
    let Some(seq) = seq(connection, id)? else { return Ok(Vec::new()) };
    all(connection, sql::TARGETS, params![seq, after, limit], |row| {
        let mut columns = Columns::of(row);
        let (place, agent) = (columns.take()?, columns.id()?);
        Ok((place, agent, Target { state: columns.word()?, is_former: columns.take()? }))
    })
}

/// Selects the target state of an agent.
pub(super) fn target(connection: &Connection, id: &ActionId, agent: &AgentId) -> Result<Option<Target>> {
    first(connection, sql::TARGET, [id.as_str(), agent.as_str()], |row| {
        let mut columns = Columns::of(row);
        Ok(Target { state: columns.word()?, is_former: columns.take()? })
    })
}

/// Returns a page of actions with their counts.
pub(super) fn page(
    connection: &Connection,
    wanted: &ActionFilter,
    page: Page,
) -> Result<Listed<(Action, ActionCounts)>> {
    if wanted.with_policy_changes && wanted.agent_id.is_none() {
        return policy_changes::page(connection, wanted, page);
    }
    let rows = |page| {
        all_composed(connection, &filter::action_page(wanted, page), |row| {
            let name = || row.get::<i64>(0).map(|seq| seq.to_string()).unwrap_or_default();
            unless_unreadable("actions", name, read(&mut Columns::of(row)))
        })
    };
    let items = filled(page, rows, |action| {
        action.map(|action| counted(connection, action, wanted.within.as_ref())).transpose()
    })?;
    let total = count_composed(connection, &filter::action_total(wanted))?;
    Ok(items.of(total))
}

/// Returns an action with the counts of its targets. Within a scope, the action has only those of it.
pub(super) fn counted(
    connection: &Connection,
    action: Action,
    within: Option<&ActionScope>,
) -> Result<(Action, ActionCounts)> {
    let read = |row: &Row<'_>| Ok((row.get::<String>(0)?, row.get::<i64>(1)?, row.get::<Option<i64>>(2)?));
    let Some(scope) = within else {
        let counts = counts(all(connection, sql::COUNTS, [action.seq], read)?);
        return Ok((action, counts));
    };
    let rows = all_composed(connection, &filter::counts_within(action.seq, scope), read)?;
    let total = rows.iter().map(|(_, number, _)| number).sum();
    Ok((Action { total, ..action }, counts(rows)))
}

fn counts(rows: Vec<(String, i64, Option<i64>)>) -> ActionCounts {
    let mut counts = ActionCounts::default();
    for (state, number, latest) in rows {
        // Ineligible targets are results without a delivery: the action was not created for them.
        counts.created += if state == INELIGIBLE { 0 } else { number };
        match TargetState::from_word(&state) {
            Some(TargetState::Acked) => counts.acked += number,
            Some(TargetState::Failed) => counts.failed += number,
            _ => {}
        }
        counts.latest_result_at = counts.latest_result_at.max(latest.map(Timestamp::from_micros));
    }
    counts
}

/// Returns results, newest first.
pub(super) fn results(
    connection: &Connection,
    id: &ActionId,
    failed_only: bool,
    limit: u32,
) -> Result<Vec<ActionResult>> {
    let Some(seq) = seq(connection, id)? else { return Ok(Vec::new()) };
    let statement = if failed_only { sql::FAILED_RESULTS } else { sql::RESULTS };
    all(connection, statement, params![seq, limit], |row| read_result(row, id))
}

fn outcome(c: &mut Columns<'_, '_>) -> Result<Outcome> {
    let (state, message) = (c.word()?, c.take::<Option<String>>()?.unwrap_or_default());
    Ok(match state {
        TargetState::Acked | TargetState::Queued => Outcome::Acked,
        TargetState::Failed => Outcome::Failed(message),
        TargetState::Cancelled => Outcome::Cancelled(message),
    })
}

fn read_result(row: &Row<'_>, action: &ActionId) -> Result<ActionResult> {
    let mut c = Columns::of(row);
    Ok(ActionResult {
        action_id: action.clone(),
        agent_id: c.id()?,
        at: c.time()?,
        outcome: outcome(&mut c)?,
        fields: c.take()?,
    })
}
