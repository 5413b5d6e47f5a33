//! Installers, and runs that install and uninstall software on hosts.

use super::statements;

macro_rules! installer_columns {
    () => {
        "id, space, name, version, format, platform, file_name, size, sha256, created_by, created_at, uploaded_at"
    };
}

macro_rules! run_columns {
    () => {
        "r.id, r.space, r.kind, r.installer_id, r.name, r.version, r.created_by, r.created_at, r.expires_at, r.max_retries, \
         r.cancelled_at, r.targets, r.finished, r.failed"
    };
}

macro_rules! host_columns {
    () => {
        "h.run_id, h.agent_id, h.host_id, h.hostname, h.state, h.sent_at, h.ended_at, h.attempts, h.retries_remaining, h.condition, \
         h.exit_code, h.output, h.post_install_exit_code, h.post_install_output"
    };
}

statements! {
    /// Counts the installers of a space.
    INSTALLERS_IN = "SELECT count(*) FROM installers WHERE space = $1";
    /// Sums the lengths of the packages of a space.
    BYTES_IN = "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM installers WHERE space = $1";
    /// Inserts an installer without its package.
    INSERT_INSTALLER = "INSERT INTO installers (id, space, name, name_key, version, format, platform, file_name, size, sha256, created_by, \
        created_at, condition, install_script, post_install_script, uninstall_script) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING";
    /// Counts an installer, if it lacks its package.
    UPLOADING = "SELECT count(*) FROM installers WHERE id = $1 AND uploaded_at IS NULL";
    /// Completes the package of an installer.
    COMPLETE = "UPDATE installers SET sha256 = $1, uploaded_at = $2 WHERE id = $3 AND uploaded_at IS NULL";
    /// Counts the runs of an installer that hosts may still execute: those that expire after `$2`, and those that expire after `$3` if a
    /// host has begun.
    NEEDED = "SELECT count(*) FROM install_runs AS r WHERE r.installer_id = $1 AND r.finished < r.targets AND r.cancelled_at IS NULL \
        AND (r.expires_at > $2 OR (r.expires_at > $3 \
        AND EXISTS (SELECT 1 FROM host_installs AS h WHERE h.run_id = r.id AND h.state = 'sent')))";
    /// Deletes an installer.
    DELETE_INSTALLER = "DELETE FROM installers WHERE id = $1";
    /// Deletes the packages of a space.
    DELETE_CHUNKS_IN = "DELETE FROM chunks WHERE file_id IN (SELECT id FROM installers WHERE space = $1)";
    /// Deletes the installers of a space.
    DELETE_INSTALLERS_IN = "DELETE FROM installers WHERE space = $1";
    /// Deletes the runs of a space.
    DELETE_RUNS_IN = "DELETE FROM install_runs WHERE space = $1";
    /// Selects installers whose upload was not completed.
    UNFINISHED = "SELECT id FROM installers WHERE uploaded_at IS NULL AND created_at < $1 ORDER BY created_at LIMIT $2";
    /// Selects an installer of a space with its scripts.
    INSTALLER = concat!(
        "SELECT ", installer_columns!(), ", condition, install_script, post_install_script, uninstall_script FROM installers \
         WHERE id = $1 AND space = $2"
    );
    /// Selects the installers of a space without their conditions and scripts.
    INSTALLERS = concat!(
        "SELECT ", installer_columns!(), ", '', '', '', '' FROM installers WHERE space = $1 ORDER BY name_key, version, platform"
    );

    /// Counts the runs of a space that have not ended.
    RUNNING_IN = "SELECT count(*) FROM install_runs WHERE space = $1 AND finished < targets AND expires_at > $2";
    /// Deletes the oldest ended runs of a space, except for the newest `$3` as far as they have at most `$4` hosts together.
    KEEP_ENDED = "DELETE FROM install_runs WHERE id IN (SELECT id FROM (SELECT id, \
        row_number() OVER (ORDER BY created_at DESC, id DESC) AS runs, \
        CAST(sum(targets) OVER (ORDER BY created_at DESC, id DESC) AS BIGINT) AS hosts \
        FROM install_runs WHERE space = $1 AND (finished >= targets OR expires_at <= $2)) AS ended WHERE runs > $3 OR hosts > $4)";
    /// Inserts a run, if its installer has its package.
    INSERT_RUN = "INSERT INTO install_runs (id, space, kind, installer_id, name, version, created_by, created_at, expires_at, max_retries, \
        targets, finished, failed) SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), id, CAST($4 AS TEXT), CAST($5 AS TEXT), \
        CAST($6 AS TEXT), CAST($7 AS BIGINT), CAST($8 AS BIGINT), CAST($9 AS BIGINT), CAST($10 AS BIGINT), 0, 0 \
        FROM installers WHERE id = $11 AND uploaded_at IS NOT NULL ON CONFLICT DO NOTHING";
    /// Inserts each target that is in the space.
    INSERT_HOSTS = "INSERT INTO host_installs (run_id, agent_id, host_id, hostname, state, attempts, retries_remaining) \
        SELECT CAST($1 AS TEXT), id, host_id, hostname, 'pending', 0, 0 FROM agents WHERE id IN (SELECT value FROM json_each($2)) AND space = $3";
    /// Sets the number of targets of a run.
    SET_TARGETS = "UPDATE install_runs SET targets = $1 WHERE id = $2";
    /// Records that a host has fetched the details of a run that has not ended on it.
    SENT = "UPDATE host_installs SET state = 'sent', sent_at = coalesce(sent_at, $1) \
        WHERE run_id = $2 AND agent_id = $3 AND state IN ('pending', 'sent')";
    /// Stores a result, unless the run has ended on the host.
    TAKE_RESULT = "UPDATE host_installs SET (state, ended_at, attempts, retries_remaining, condition, exit_code, output, \
        post_install_exit_code, post_install_output) = ($1, $2, attempts + 1, $3, $4, $5, $6, $7, $8) \
        WHERE run_id = $9 AND agent_id = $10 AND state IN ('pending', 'sent')";
    /// Counts a target that has ended.
    COUNT_RESULT = "UPDATE install_runs SET finished = finished + 1, failed = failed + $1 WHERE id = $2";
    /// Ends what an agent could still execute: runs that expire after `$1`, and those that expire after `$3` if it has begun.
    GONE = "UPDATE host_installs SET (state, ended_at) = ('gone', $1) WHERE agent_id = $2 AND state IN ('pending', 'sent') \
        AND EXISTS (SELECT 1 FROM install_runs AS r WHERE r.id = run_id AND (r.expires_at > $1 OR (state = 'sent' AND r.expires_at > $3))) \
        RETURNING run_id";
    /// Cancels a run. The first time is kept.
    CANCEL = "UPDATE install_runs SET cancelled_at = coalesce(cancelled_at, $1), \
        expires_at = CASE WHEN expires_at > $1 THEN $1 ELSE expires_at END WHERE id = $2";
    /// Deletes runs whose time ended long ago.
    PRUNE = "DELETE FROM install_runs WHERE id IN (SELECT id FROM install_runs WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)";

    /// Selects a run of a space.
    RUN = concat!("SELECT ", run_columns!(), " FROM install_runs AS r WHERE r.id = $1 AND r.space = $2");
    /// Selects the runs of a space, newest first.
    RUNS = concat!("SELECT ", run_columns!(), " FROM install_runs AS r WHERE r.space = $1 ORDER BY r.created_at DESC, r.id DESC");
    /// Selects the targets of a run after an agent.
    HOSTS = concat!(
        "SELECT ", host_columns!(), " FROM host_installs AS h WHERE h.run_id = $1 AND h.agent_id > $2 ORDER BY h.agent_id LIMIT $3"
    );
    /// Selects a target of a run.
    HOST = concat!("SELECT ", host_columns!(), " FROM host_installs AS h WHERE h.run_id = $1 AND h.agent_id = $2");
    /// Selects the runs of a space on a host without their outputs, newest first. Of a condition, only whether it was not met.
    OF_HOST = concat!(
        "SELECT ", run_columns!(), ", h.run_id, h.agent_id, h.host_id, h.hostname, h.state, h.sent_at, h.ended_at, h.attempts, \
         h.retries_remaining, CASE WHEN h.condition = '' THEN '' END, h.exit_code, '', h.post_install_exit_code, '' \
         FROM host_installs AS h JOIN install_runs AS r ON r.id = h.run_id \
         WHERE h.host_id = $1 AND r.space = $2 ORDER BY r.created_at DESC, r.id DESC LIMIT $3"
    );
    /// Selects the runs of a space that an agent has yet to execute, the oldest first.
    DUE = concat!(
        "SELECT ", run_columns!(), " FROM host_installs AS h JOIN install_runs AS r ON r.id = h.run_id \
         WHERE h.agent_id = $1 AND h.state IN ('pending', 'sent') AND r.space = $2 AND r.expires_at > $3 \
         ORDER BY r.created_at, r.id LIMIT $4"
    );
    /// Selects the agents that have something to execute.
    WAITING = "SELECT DISTINCT h.agent_id FROM host_installs AS h JOIN install_runs AS r ON r.id = h.run_id \
        WHERE h.state IN ('pending', 'sent') AND r.expires_at > $1 AND h.agent_id > $2 ORDER BY h.agent_id LIMIT $3";
    /// Selects the agents that have something of a run to execute.
    WAITING_OF = "SELECT h.agent_id FROM host_installs AS h JOIN install_runs AS r ON r.id = h.run_id \
        WHERE h.run_id = $1 AND h.agent_id > $2 AND h.state IN ('pending', 'sent') AND r.expires_at > $3 ORDER BY h.agent_id LIMIT $4";
}
