//! Runs on hosts: the same statements over the tables of each kind.

use super::locked;

/// Declares the statements of a kind as a struct with a text for each, and lists them for tests.
macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident,)+) => {
        /// The statements of a kind of runs.
        pub(crate) struct Statements {
            $($(#[$doc])* pub(crate) $field: &'static str,)+
        }

        impl Statements {
            /// All statements, by name.
            #[cfg(test)]
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($field), self.$field)),+]
            }
        }
    };
}

fields! {
    /// Counts the runs of a space that have not ended.
    running_in,
    /// Deletes the oldest ended runs of a space, except for the newest `$3` as far as they have at most `$4` hosts and `$5` bytes together.
    keep_ended,
    /// Inserts a run.
    insert,
    /// Inserts each target that is in the space.
    insert_hosts,
    /// Sets the number of targets of a run.
    set_targets,
    /// Records that a host has fetched the work of a run that has not ended on it.
    begin,
    /// Selects the number of bytes of a result, unless the run has ended on the host.
    open,
    /// Stores a result, unless the run has ended on the host.
    take_result,
    /// Counts a result: whether the target has ended, whether it has failed, and by how many bytes the results have grown.
    count_result,
    /// Ends what an agent could still execute: runs that expire after `$1`, and if it has begun, those whose results were due after `$3`.
    gone,
    /// Stops a run. The first time is kept.
    stop,
    /// Deletes runs whose time ended long ago.
    prune,
    /// Deletes the runs of a space.
    delete_in,
    /// Selects a run of a space.
    one,
    /// Selects the runs of a space without long texts, newest first.
    of_space,
    /// Selects the targets of a run after an agent.
    hosts,
    /// Selects a target of a run.
    host,
    /// Selects the runs of a space on a host without long texts and outputs, newest first.
    of_host,
    /// Selects the runs of a space that an agent has yet to execute, without long texts, the oldest first.
    due,
    /// Selects the agents that have something to execute.
    waiting,
    /// Selects the agents that have something of a run to execute.
    waiting_of,
}

macro_rules! run_columns {
    () => {
        "r.id, r.space, r.name, r.created_by, r.created_at, r.expires_at, r.stopped_at, r.targets, r.finished, r.failed, "
    };
}

macro_rules! host_columns {
    () => {
        "h.run_id, h.agent_id, h.host_id, h.hostname, h.state, h.begun_at, h.ended_at, h.attempts, "
    };
}

/// The statements of a kind, over its tables of runs and of hosts.
///
/// * `work`: its columns of runs, the same as `work_values` (from `$8`), as they are read, and as they are listed.
/// * `result`: its columns of hosts, their values (from `$4`), as they are read, as they are listed, and the condition that follows.
/// * `results_from`: the time from which results of a run are late, without the constant part.
macro_rules! of_kind {
    (
        $runs:literal, $hosts:literal,
        work: $work:literal = $work_values:literal, $work_read:literal, $work_listed:literal;
        result: $result:literal = $result_values:literal, $result_read:literal, $result_listed:literal, $of_target:literal;
        results_from: $results_from:literal;
    ) => {
        Statements {
            running_in: concat!("SELECT count(*) FROM ", $runs, " WHERE space = $1 AND finished < targets AND expires_at > $2"),
            keep_ended: concat!(
                "DELETE FROM ", $runs, " WHERE id IN (SELECT id FROM (SELECT id, \
                 row_number() OVER (ORDER BY created_at DESC, id DESC) AS runs, \
                 CAST(sum(targets) OVER (ORDER BY created_at DESC, id DESC) AS BIGINT) AS hosts, \
                 CAST(sum(result_bytes) OVER (ORDER BY created_at DESC, id DESC) AS BIGINT) AS bytes \
                 FROM ", $runs, " WHERE space = $1 AND (finished >= targets OR expires_at <= $2)) AS ended \
                 WHERE runs > $3 OR hosts > $4 OR bytes > $5)"
            ),
            insert: concat!(
                "INSERT INTO ", $runs, " (id, space, name, created_by, created_at, expires_at, targets, ", $work, ", finished, failed, \
                 result_bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, ", $work_values, ", 0, 0, 0) ON CONFLICT DO NOTHING"
            ),
            insert_hosts: concat!(
                "INSERT INTO ", $hosts, " (run_id, agent_id, host_id, hostname, state, attempts, result_bytes) \
                 SELECT CAST($1 AS TEXT), id, host_id, hostname, 'pending', 0, 0 FROM agents \
                 WHERE id IN (SELECT value FROM json_each($2)) AND space = $3"
            ),
            set_targets: concat!("UPDATE ", $runs, " SET targets = $1 WHERE id = $2"),
            begin: concat!(
                "UPDATE ", $hosts, " SET state = 'begun', begun_at = coalesce(begun_at, $1) \
                 WHERE run_id = $2 AND agent_id = $3 AND state IN ('pending', 'begun')"
            ),
            open: concat!(
                "SELECT result_bytes FROM ", $hosts, " WHERE run_id = $1 AND agent_id = $2 AND state IN ('pending', 'begun') ", locked!()
            ),
            take_result: concat!(
                "UPDATE ", $hosts, " SET (state, ended_at, attempts, result_bytes, ", $result, ") \
                 = ($1, $2, attempts + 1, $3, ", $result_values, ") WHERE ", $of_target
            ),
            count_result: concat!(
                "UPDATE ", $runs, " SET finished = finished + $1, failed = failed + $2, result_bytes = result_bytes + $3 WHERE id = $4"
            ),
            gone: concat!(
                "UPDATE ", $hosts, " SET (state, ended_at) = ('gone', $1) WHERE agent_id = $2 AND state IN ('pending', 'begun') \
                 AND EXISTS (SELECT 1 FROM ", $runs, " AS r WHERE r.id = run_id \
                 AND (r.expires_at > $1 OR (state = 'begun' AND ", $results_from, " > $3))) RETURNING run_id"
            ),
            stop: concat!(
                "UPDATE ", $runs, " SET stopped_at = coalesce(stopped_at, $1), \
                 expires_at = CASE WHEN expires_at > $1 THEN $1 ELSE expires_at END WHERE id = $2"
            ),
            prune: concat!(
                "DELETE FROM ", $runs, " WHERE id IN (SELECT id FROM ", $runs, " WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
            ),
            // Housekeeping deletes them one by one: their results can be hundreds of megabytes.
            delete_in: concat!("UPDATE ", $runs, " SET (space, expires_at) = ('', 0) WHERE space = $1"),
            one: concat!("SELECT ", run_columns!(), $work_read, " FROM ", $runs, " AS r WHERE r.id = $1 AND r.space = $2"),
            of_space: concat!(
                "SELECT ", run_columns!(), $work_listed, " FROM ", $runs, " AS r WHERE r.space = $1 ORDER BY r.created_at DESC, r.id DESC"
            ),
            hosts: concat!(
                "SELECT ", host_columns!(), $result_read, " FROM ", $hosts, " AS h WHERE h.run_id = $1 AND h.agent_id > $2 \
                 ORDER BY h.agent_id LIMIT $3"
            ),
            host: concat!("SELECT ", host_columns!(), $result_read, " FROM ", $hosts, " AS h WHERE h.run_id = $1 AND h.agent_id = $2"),
            of_host: concat!(
                "SELECT ", run_columns!(), $work_listed, ", ", host_columns!(), $result_listed, " FROM ", $hosts, " AS h \
                 JOIN ", $runs, " AS r ON r.id = h.run_id WHERE h.host_id = $1 AND r.space = $2 \
                 ORDER BY r.created_at DESC, r.id DESC LIMIT $3"
            ),
            due: concat!(
                "SELECT ", run_columns!(), $work_listed, " FROM ", $hosts, " AS h JOIN ", $runs, " AS r ON r.id = h.run_id \
                 WHERE h.agent_id = $1 AND h.state IN ('pending', 'begun') AND r.space = $2 AND r.expires_at > $3 \
                 ORDER BY r.created_at, r.id LIMIT $4"
            ),
            waiting: concat!(
                "SELECT DISTINCT h.agent_id FROM ", $hosts, " AS h JOIN ", $runs, " AS r ON r.id = h.run_id \
                 WHERE h.state IN ('pending', 'begun') AND r.expires_at > $1 AND h.agent_id > $2 ORDER BY h.agent_id LIMIT $3"
            ),
            waiting_of: concat!(
                "SELECT h.agent_id FROM ", $hosts, " AS h JOIN ", $runs, " AS r ON r.id = h.run_id WHERE h.run_id = $1 \
                 AND h.agent_id > $2 AND h.state IN ('pending', 'begun') AND r.expires_at > $3 ORDER BY h.agent_id LIMIT $4"
            ),
        }
    };
}

/// Runs of scripts.
pub(crate) const SCRIPTS: Statements = of_kind! {
    "script_runs", "script_run_hosts",
    work: "script, sha256, timeout" = "$8, $9, $10", "r.script, r.sha256, r.timeout", "'', r.sha256, r.timeout";
    result: "exit_code, output, runtime" = "$4, $5, $6", "h.exit_code, h.output, h.runtime", "h.exit_code, '', h.runtime",
        "run_id = $7 AND agent_id = $8 AND state IN ('pending', 'begun')";
    results_from: "r.expires_at + r.timeout * 1000000";
};

/// Runs that install and uninstall software. Of a condition, lists of a host contain only whether it was not met.
pub(crate) const INSTALLS: Statements = of_kind! {
    "install_runs", "install_run_hosts",
    work: "kind, installer_id, version, max_retries" = "$8, $9, $10, $11", "r.kind, r.installer_id, r.version, r.max_retries",
        "r.kind, r.installer_id, r.version, r.max_retries";
    result: "retries_remaining, condition, exit_code, output, post_install_exit_code, post_install_output" = "$4, $5, $6, $7, $8, $9",
        "h.retries_remaining, h.condition, h.exit_code, h.output, h.post_install_exit_code, h.post_install_output",
        "h.retries_remaining, CASE WHEN h.condition = '' THEN '' END, h.exit_code, '', h.post_install_exit_code, ''",
        "run_id = $10 AND agent_id = $11 AND state IN ('pending', 'begun')";
    results_from: "r.expires_at";
};

/// Returns the statements of all kinds.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    [SCRIPTS, INSTALLS].into_iter().flat_map(|kind| kind.all())
}
