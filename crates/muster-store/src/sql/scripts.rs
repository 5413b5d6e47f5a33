//! Runs of scripts, their executions on hosts, and saved scripts.

use super::statements;

macro_rules! run_columns {
    () => {
        "sha256, created_by, created_at, expires_at, timeout, stopped_at, targets, finished, failed FROM script_runs"
    };
}

macro_rules! execution_columns {
    () => {
        "run_id, agent_id, host_id, hostname, state, fetched_at, ended_at, exit_code, output, runtime FROM script_executions"
    };
}

statements! {
    /// Counts the runs of a space that have not ended.
    RUNNING_IN = "SELECT count(*) FROM script_runs WHERE space = $1 AND finished < targets AND expires_at > $2";
    /// Deletes the oldest ended runs of a space, except for the newest `$3` as far as they have at most `$4` hosts together.
    KEEP_ENDED = "DELETE FROM script_runs WHERE id IN (SELECT id FROM (SELECT id, \
        row_number() OVER (ORDER BY created_at DESC, id DESC) AS runs, \
        CAST(sum(targets) OVER (ORDER BY created_at DESC, id DESC) AS BIGINT) AS hosts \
        FROM script_runs WHERE space = $1 AND (finished >= targets OR expires_at <= $2)) AS ended WHERE runs > $3 OR hosts > $4)";
    /// Inserts a run.
    INSERT = "INSERT INTO script_runs (id, space, name, script, sha256, created_by, created_at, expires_at, timeout, targets, \
        finished, failed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0) ON CONFLICT DO NOTHING";
    /// Inserts an execution for each target that is in the space.
    INSERT_EXECUTIONS = "INSERT INTO script_executions (run_id, agent_id, host_id, hostname, state) \
        SELECT CAST($1 AS TEXT), id, host_id, hostname, 'pending' FROM agents WHERE id IN (SELECT value FROM json_each($2)) \
        AND space = $3";
    /// Sets the number of targets of a run.
    SET_TARGETS = "UPDATE script_runs SET targets = $1 WHERE id = $2";
    /// Records that a host has fetched a script whose result it has not reported.
    FETCH = "UPDATE script_executions SET state = 'fetched', fetched_at = coalesce(fetched_at, $1) \
        WHERE run_id = $2 AND agent_id = $3 AND state IN ('pending', 'fetched')";
    /// Stores a result, unless there is one.
    TAKE_RESULT = "UPDATE script_executions SET (state, ended_at, exit_code, output, runtime) = ('done', $1, $2, $3, $4) \
        WHERE run_id = $5 AND agent_id = $6 AND state IN ('pending', 'fetched')";
    /// Counts the end of an execution.
    COUNT_RESULT = "UPDATE script_runs SET finished = finished + 1, failed = failed + $1 WHERE id = $2";
    /// Ends the executions that an agent could still report: of runs that expire after `$1`, and if it has fetched the script, of those
    /// whose results were due after `$3`.
    GONE = "UPDATE script_executions SET (state, ended_at) = ('gone', $1) WHERE agent_id = $2 AND state IN ('pending', 'fetched') \
        AND EXISTS (SELECT 1 FROM script_runs AS r WHERE r.id = run_id \
        AND (r.expires_at > $1 OR (state = 'fetched' AND r.expires_at + r.timeout * 1000000 > $3))) RETURNING run_id";
    /// Stops a run. The first time is kept.
    STOP = "UPDATE script_runs SET stopped_at = coalesce(stopped_at, $1), \
        expires_at = CASE WHEN expires_at > $1 THEN $1 ELSE expires_at END WHERE id = $2";
    /// Deletes runs whose time ended long ago.
    PRUNE = "DELETE FROM script_runs WHERE id IN \
        (SELECT id FROM script_runs WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)";
    /// Deletes the runs of a space.
    DELETE_RUNS_IN = "DELETE FROM script_runs WHERE space = $1";
    /// Deletes the saved scripts of a space.
    DELETE_SAVED_IN = "DELETE FROM saved_scripts WHERE space = $1";

    /// Selects a run of a space with its script.
    ONE = concat!("SELECT id, space, name, script, ", run_columns!(), " WHERE id = $1 AND space = $2");
    /// Selects the runs of a space without their scripts, newest first.
    OF_SPACE = concat!("SELECT id, space, name, '', ", run_columns!(), " WHERE space = $1 ORDER BY created_at DESC, id DESC");
    /// Selects the executions of a run after an agent.
    EXECUTIONS = concat!(
        "SELECT ", execution_columns!(), " WHERE run_id = $1 AND agent_id > $2 ORDER BY agent_id LIMIT $3"
    );
    /// Selects the newest executions of an agent with their runs, without the scripts.
    EXECUTIONS_OF = "SELECT r.id, r.space, r.name, '', r.sha256, r.created_by, r.created_at, r.expires_at, r.timeout, r.stopped_at, \
        r.targets, r.finished, r.failed, e.run_id, e.agent_id, e.host_id, e.hostname, e.state, e.fetched_at, e.ended_at, \
        e.exit_code, '', e.runtime FROM script_executions AS e JOIN script_runs AS r ON r.id = e.run_id \
        WHERE e.agent_id = $1 AND r.space = $2 ORDER BY r.created_at DESC, r.id DESC LIMIT $3";
    /// Selects an execution.
    EXECUTION = concat!("SELECT ", execution_columns!(), " WHERE run_id = $1 AND agent_id = $2");
    /// Selects the runs of a space that an agent has yet to execute, the oldest first.
    DUE = "SELECT r.id, r.timeout FROM script_executions AS e JOIN script_runs AS r ON r.id = e.run_id \
        WHERE e.agent_id = $1 AND e.state IN ('pending', 'fetched') AND r.space = $2 \
        AND r.expires_at > $3 ORDER BY r.created_at, r.id LIMIT $4";
    /// Selects the agents that have something to execute.
    WAITING = "SELECT DISTINCT e.agent_id FROM script_executions AS e JOIN script_runs AS r ON r.id = e.run_id \
        WHERE e.state IN ('pending', 'fetched') AND r.expires_at > $1 AND e.agent_id > $2 ORDER BY e.agent_id LIMIT $3";
    /// Selects the agents that have something of a run to execute.
    WAITING_OF = "SELECT e.agent_id FROM script_executions AS e JOIN script_runs AS r ON r.id = e.run_id WHERE e.run_id = $1 \
        AND e.agent_id > $2 AND e.state IN ('pending', 'fetched') AND r.expires_at > $3 ORDER BY e.agent_id LIMIT $4";

    /// Counts the saved scripts of a space with other names.
    SAVED_BESIDE = "SELECT count(*) FROM saved_scripts WHERE space = $1 AND name_key <> $2";
    /// Inserts a saved script.
    SAVE = "INSERT INTO saved_scripts (name, name_key, description, script, sha256, version, updated_by, updated_at, id, space) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
    /// Changes a saved script of a version.
    CHANGE_SAVED = "UPDATE saved_scripts SET (name, name_key, description, script, sha256, version, updated_by, updated_at) \
        = ($1, $2, $3, $4, $5, $6, $7, $8) WHERE id = $9 AND space = $10 AND version = $6 - 1";
    /// Deletes a saved script.
    DELETE_SAVED = "DELETE FROM saved_scripts WHERE id = $1";
    /// Selects the saved scripts of a space without their scripts, by name.
    SAVED = "SELECT id, space, name, description, '', sha256, version, updated_by, updated_at FROM saved_scripts WHERE space = $1 \
        ORDER BY name_key";
    /// Selects a saved script by its id or name.
    SAVED_NAMED = "SELECT id, space, name, description, script, sha256, version, updated_by, updated_at FROM saved_scripts \
        WHERE space = $1 AND (id = $2 OR name_key = $3) ORDER BY id LIMIT 1";
}
