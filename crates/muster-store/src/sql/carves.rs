//! Carves. Their blocks are in `chunks`.

use super::statements;

macro_rules! columns {
    () => {
        "id, space, agent_id, host_id, hostname, block_count, block_size, size, carve_id, request_id, session_hash, blocks, \
         is_compressed, state, error, began_at, ended_at, expires_at"
    };
}

statements! {
    /// Notes an agent's carve that is in progress, whose blocks are deleted later.
    REMOVE_OPEN_LATER = "INSERT INTO removed_files (file_id) SELECT id FROM carves WHERE agent_id = $1 AND state = 'receiving' \
        ON CONFLICT DO NOTHING";
    /// Ends an agent's carve that is in progress.
    FAIL_OPEN = "UPDATE carves SET (state, error, ended_at) = ('failed', $1, $2) WHERE agent_id = $3 AND state = 'receiving'";
    /// Sums the lengths of an agent's archives.
    STORED = "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM carves WHERE agent_id = $1 AND state IN ('receiving', 'complete')";
    /// Deletes the oldest records of an agent whose bytes are deleted, except for the newest `$2`.
    KEEP_RECORDS = "DELETE FROM carves WHERE id IN (SELECT id FROM carves WHERE agent_id = $1 AND state IN ('failed', 'expired') \
        ORDER BY began_at DESC, id DESC LIMIT 1000 OFFSET $2)";
    /// Counts the records of an agent whose bytes are stored.
    KEPT = "SELECT count(*) FROM carves WHERE agent_id = $1 AND state IN ('receiving', 'complete')";
    /// Inserts a carve.
    INSERT = concat!(
        "INSERT INTO carves (", columns!(), ") \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, 0, 'receiving', NULL, $12, NULL, $13) ON CONFLICT DO NOTHING"
    );
    /// Counts a block, if it is the next one.
    TAKE_BLOCK = "UPDATE carves SET blocks = blocks + 1, is_compressed = $1 WHERE id = $2 AND state = 'receiving' AND blocks = $3";
    /// Completes a carve.
    COMPLETE = "UPDATE carves SET (state, ended_at, expires_at) = ('complete', $1, $2) WHERE id = $3";
    /// Ends a carve that is in progress.
    FAIL = "UPDATE carves SET (state, error, ended_at) = ('failed', $1, $2) WHERE id = $3 AND state = 'receiving'";
    /// Notes a carve unless it is in progress or complete.
    REMOVE_ENDED_LATER = "INSERT INTO removed_files (file_id) SELECT id FROM carves \
        WHERE id = $1 AND state NOT IN ('receiving', 'complete') ON CONFLICT DO NOTHING";
    /// Deletes a carve.
    DELETE = "DELETE FROM carves WHERE id = $1";
    /// Notes an agent's carves.
    REMOVE_THOSE_OF_AGENT_LATER = "INSERT INTO removed_files (file_id) SELECT id FROM carves WHERE agent_id = $1 \
        ON CONFLICT DO NOTHING";
    /// Notes a space's carves.
    REMOVE_THOSE_IN_LATER = "INSERT INTO removed_files (file_id) SELECT id FROM carves WHERE space = $1 ON CONFLICT DO NOTHING";
    /// Deletes a space's carves.
    DELETE_IN = "DELETE FROM carves WHERE space = $1";
    /// Selects carves whose time is over.
    EXPIRED = "SELECT id FROM carves WHERE expires_at < $1 AND state IN ('receiving', 'complete') ORDER BY expires_at LIMIT $2";
    /// Ends a carve whose time is over, unless it was completed meanwhile, which gives it more.
    EXPIRE = "UPDATE carves SET error = CASE WHEN state = 'receiving' THEN $1 ELSE error END, \
        ended_at = coalesce(ended_at, $2), state = CASE WHEN state = 'receiving' THEN 'failed' ELSE 'expired' END \
        WHERE id = $3 AND state IN ('receiving', 'complete') AND expires_at < $2";
    /// Deletes old records whose bytes are deleted.
    PRUNE = "DELETE FROM carves WHERE id IN \
        (SELECT id FROM carves WHERE began_at < $1 AND state NOT IN ('receiving', 'complete') ORDER BY began_at, id LIMIT $2)";

    /// Selects a carve of a space.
    ONE = concat!("SELECT ", columns!(), " FROM carves WHERE id = $1 AND space = $2");
    /// Selects the carve of a session.
    OF_SESSION = concat!("SELECT ", columns!(), " FROM carves WHERE session_hash = $1");
    /// Selects the carves of a space, newest first.
    OF_SPACE = concat!("SELECT ", columns!(), " FROM carves WHERE space = $1 ORDER BY began_at DESC, id DESC LIMIT $2");
}
