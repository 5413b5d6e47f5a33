//! Outputs, secrets and settings.

use super::session::{Connection, Row, Rule, params};
use muster_core::id::{OutputId, SecretId, SpaceId};
use muster_core::output::Output;

use super::error::Failure;
use super::row::{Columns, Result, all, any, first, run, send, to_json};
use crate::port::Precondition;
use crate::sql::settings as sql;

/// Inserts or updates an output. At most one output has each default flag.
pub(super) fn put_output(connection: &Connection, output: &Output) -> std::result::Result<(), Failure> {
    // The default flags span several rows: two nodes that each set one could otherwise leave two defaults.
    connection.lock(Rule::References)?;
    let (id, space) = (output.id.as_str(), output.space.as_str());
    if any(connection, sql::OUTPUT_NAME_TAKEN, [space, &output.name, id])? {
        return Err(Precondition::NameTaken(output.name.clone()).into());
    }
    if output.is_default {
        // The others lose the flag in the same commit, so there is never a moment with two defaults, or none.
        run(connection, sql::CLEAR_DEFAULT, [space, id])?;
    }
    if output.is_default_monitoring {
        run(connection, sql::CLEAR_DEFAULT_MONITORING, [space, id])?;
    }
    let values = params![
        id,
        space,
        output.name,
        output.kind,
        output.is_default,
        output.is_default_monitoring,
        to_json(&output.fields)?,
        output.created_at.as_micros(),
        output.updated_at.as_micros(),
    ];
    run(connection, sql::PUT_OUTPUT, values)?;
    Ok(())
}

/// Deletes an output.
pub(super) fn delete_output(connection: &Connection, id: &OutputId) -> std::result::Result<(), Failure> {
    let rows = run(connection, sql::DELETE_OUTPUT, [id.as_str()])?;
    if rows == 0 { Err(Precondition::Missing(format!("output {id}")).into()) } else { Ok(()) }
}

fn read_output(row: &Row<'_>) -> Result<Output> {
    let mut c = Columns::of(row);
    Ok(Output {
        id: c.id()?,
        space: c.id()?,
        name: c.take()?,
        kind: c.take()?,
        is_default: c.flag()?,
        is_default_monitoring: c.flag()?,
        fields: c.json()?,
        created_at: c.time()?,
        updated_at: c.time()?,
    })
}

/// Selects an output.
pub(super) fn output(connection: &Connection, id: &OutputId) -> Result<Option<Output>> {
    first(connection, sql::OUTPUT, [id.as_str()], read_output)
}

/// Selects an output of a space.
pub(super) fn output_in(connection: &Connection, space: &SpaceId, id: &OutputId) -> Result<Option<Output>> {
    first(connection, sql::OUTPUT_IN, [id.as_str(), space.as_str()], read_output)
}

/// Selects all outputs of a space.
pub(super) fn outputs(connection: &Connection, space: &SpaceId) -> Result<Vec<Output>> {
    all(connection, sql::OUTPUTS, [space.as_str()], read_output)
}

/// Inserts or replaces a sealed secret.
pub(super) fn put_secret(connection: &Connection, id: &SecretId, sealed: &[u8]) -> Result<()> {
    run(connection, sql::PUT_SECRET, params![id.as_str(), sealed]).map(|_| ())
}

/// Deletes a secret.
pub(super) fn delete_secret(connection: &Connection, id: &SecretId) -> Result<()> {
    run(connection, sql::DELETE_SECRET, [id.as_str()]).map(|_| ())
}

/// Returns the sealed secrets that exist.
pub(super) fn secrets(connection: &Connection, ids: &[SecretId]) -> Result<Vec<(SecretId, Vec<u8>)>> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(sealed) = first(connection, sql::SECRET, [id.as_str()], |row| row.get(0))? {
            found.push((id.clone(), sealed));
        }
    }
    Ok(found)
}

/// Sets a setting.
pub(super) fn put_setting(connection: &Connection, name: &str, value: &str) -> Result<()> {
    run(connection, sql::PUT_SETTING, [name, value]).map(|_| ())
}

/// Sets a setting whose value is still `before`.
pub(super) fn swap_setting(
    connection: &Connection,
    name: &str,
    before: Option<&str>,
    value: &str,
) -> std::result::Result<(), Failure> {
    // `None` expects that there is no row yet; an insert that conflicts then affects none.
    let rows = match before {
        None => run(connection, sql::INSERT_SETTING, [name, value])?,
        Some(before) => run(connection, sql::SWAP_SETTING, [value, name, before])?,
    };
    if rows == 0 { Err(Precondition::Changed(format!("the setting {name}")).into()) } else { Ok(()) }
}

/// Fails unless a setting has a value.
pub(super) fn check_unchanged(
    connection: &Connection,
    name: &str,
    value: Option<&str>,
) -> std::result::Result<(), Failure> {
    // The rule spans the setting and the labels that it names, or the space that it belongs to: neither row locks the other.
    connection.lock(Rule::References)?;
    let is_unchanged = setting(connection, name)?.as_deref() == value;
    if is_unchanged { Ok(()) } else { Err(Precondition::Changed(format!("the setting {name}")).into()) }
}

/// Deletes a setting.
pub(super) fn delete_setting(connection: &Connection, name: &str) -> Result<()> {
    send(connection, sql::DELETE_SETTING, [name])
}

/// Returns the value of a setting.
pub(super) fn setting(connection: &Connection, name: &str) -> Result<Option<String>> {
    first(connection, sql::SETTING, [name], |row| row.get(0))
}
