//! Saved scripts, and what is stored of runs of scripts.

use muster_core::fleetd::labels::name_key;
use muster_core::id::SpaceId;
use muster_core::script::{MAX_SAVED, SavedScript, ScriptResult, ScriptWork};

use super::host_runs::{Applied, Kind, number};
use super::row::{Columns, Result, affects, all, count, first, run};
use super::session::{Connection, Row, Rule, Value, params};
use crate::port::{Precondition, ScriptWrite};
use crate::sql::host_runs::{SCRIPTS, Statements};
use crate::sql::scripts as sql;

impl Kind for ScriptWork {
    const SQL: Statements = SCRIPTS;
    const RUNS: &'static str = "scripts";

    fn values(&self) -> Vec<Value<'_>> {
        vec![(&self.script).into(), (&self.sha256).into(), number(self.timeout).into()]
    }

    fn read(c: &mut Columns<'_, '_>) -> Result<Self> {
        Ok(Self { script: c.take()?, sha256: c.take()?, timeout: c.count()? })
    }

    fn result_values(result: &ScriptResult) -> Vec<Value<'_>> {
        vec![result.exit_code.into(), (&result.output).into(), number(result.runtime).into()]
    }

    fn read_result(c: &mut Columns<'_, '_>) -> Result<ScriptResult> {
        let (code, output, runtime): (Option<i64>, Option<String>, Option<u64>) = (c.take()?, c.take()?, c.take()?);
        Ok(ScriptResult {
            exit_code: code.unwrap_or_default(),
            output: output.unwrap_or_default(),
            runtime: runtime.unwrap_or_default(),
        })
    }
}

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &ScriptWrite) -> Applied {
    match write {
        ScriptWrite::Save(script) => save(connection, script),
        ScriptWrite::DeleteSaved { id } => {
            if affects(connection, sql::DELETE_SAVED, [id.as_str()])? {
                return Ok(());
            }
            Err(Precondition::Missing(format!("saved script {id}")).into())
        }
    }
}

fn save(connection: &Connection, script: &SavedScript) -> Applied {
    connection.lock(Rule::References)?;
    let (space, name_key) = (script.space.as_str(), name_key(&script.name));
    let is_new = script.version == 1;
    if is_new && count(connection, sql::SAVED_BESIDE, [space, name_key.as_str()])? >= MAX_SAVED {
        return Err(Precondition::TooMany(format!("saved scripts: a space has at most {MAX_SAVED}")).into());
    }
    let values = params![
        script.name,
        name_key,
        script.description,
        script.script,
        script.sha256,
        script.version,
        script.updated_by,
        script.updated_at.as_micros(),
        script.id.as_str(),
        space,
    ];
    if run(connection, if is_new { sql::SAVE } else { sql::CHANGE_SAVED }, values)? == 0 {
        return Err(Precondition::Changed(format!("saved script {:?}", script.name)).into());
    }
    Ok(())
}

fn read_saved(row: &Row<'_>) -> Result<SavedScript> {
    let mut c = Columns::of(row);
    Ok(SavedScript {
        id: c.id()?,
        space: c.id()?,
        name: c.take()?,
        description: c.take()?,
        script: c.take()?,
        sha256: c.take()?,
        version: c.take()?,
        updated_by: c.take()?,
        updated_at: c.time()?,
    })
}

/// Selects the saved scripts of a space.
pub(super) fn saved(connection: &Connection, space: &SpaceId) -> Result<Vec<SavedScript>> {
    all(connection, sql::SAVED, [space.as_str()], read_saved)
}

/// Selects a saved script by its id or name.
pub(super) fn saved_named(connection: &Connection, space: &SpaceId, named: &str) -> Result<Option<SavedScript>> {
    first(connection, sql::SAVED_NAMED, params![space.as_str(), named, name_key(named)], read_saved)
}
