//! Uploads from agents, files to agents, their chunks, and artifacts.

use super::statements;

macro_rules! upload_columns {
    () => {
        "id, action_id, agent_id, source, name, mime_type, size, status, started_at, transit_hash"
    };
}

statements! {
    /// Notes the files of what the next statement deletes, whose chunks are deleted later.
    REMOVE_CLOSED_LATER = "INSERT INTO removed_files (file_id) SELECT id FROM uploads \
        WHERE agent_id = $1 AND action_id = $2 AND status IN ('UPLOAD_ERROR', 'DELETED') ON CONFLICT DO NOTHING";
    /// Deletes an agent's failed or removed upload for an action.
    DELETE_CLOSED_UPLOAD = "DELETE FROM uploads \
        WHERE agent_id = $1 AND action_id = $2 AND status IN ('UPLOAD_ERROR', 'DELETED')";
    /// Inserts an upload unless there is one.
    INSERT_UPLOAD = concat!(
        "INSERT INTO uploads (", upload_columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT DO NOTHING"
    );
    /// Counts an agent's uploads except that for one action: records, uploads in progress since a time, and stored
    /// bytes.
    UPLOAD_USE = "SELECT count(*), count(*) FILTER (WHERE status = 'AWAITING_UPLOAD' AND started_at >= $1), \
        CAST(coalesce(sum(size) FILTER (WHERE status = 'READY' OR (status = 'AWAITING_UPLOAD' AND started_at >= $1)), 0) \
        AS BIGINT) \
        FROM uploads WHERE agent_id = $2 AND action_id <> $3";
    /// Deletes the closed uploads of an agent except the newest.
    DELETE_OLD_CLOSED = "DELETE FROM uploads WHERE agent_id = $1 AND status IN ('UPLOAD_ERROR', 'DELETED') AND id NOT IN \
        (SELECT id FROM uploads WHERE agent_id = $1 AND status IN ('UPLOAD_ERROR', 'DELETED') \
        ORDER BY started_at DESC, id DESC LIMIT $2)";
    /// Selects the state of an upload.
    UPLOAD_STATE = "SELECT status FROM uploads WHERE id = $1";
    /// Updates the state; an existing transit hash is kept.
    UPLOAD_STATUS = "UPDATE uploads SET status = $1, transit_hash = coalesce($2, transit_hash) WHERE id = $3";
    /// Selects an upload.
    UPLOAD = concat!("SELECT ", upload_columns!(), " FROM uploads WHERE id = $1");
    /// Selects an upload of an agent of a space.
    UPLOAD_IN = concat!(
        "SELECT ", upload_columns!(), " FROM uploads WHERE id = $1 AND EXISTS \
         (SELECT 1 FROM agents WHERE agents.id = uploads.agent_id AND agents.space = $2)"
    );
    /// Selects an agent's upload for an action.
    UPLOAD_FOR = concat!("SELECT ", upload_columns!(), " FROM uploads WHERE agent_id = $1 AND action_id = $2");
    /// Selects those of an agent, newest first.
    UPLOADS = concat!("SELECT ", upload_columns!(), " FROM uploads WHERE agent_id = $1 ORDER BY started_at DESC, id DESC");
    /// Selects those in a state that began before a time, oldest first.
    UPLOADS_BEGUN_BEFORE = concat!(
        "SELECT ", upload_columns!(), " FROM uploads WHERE status = $1 AND started_at < $2 ORDER BY started_at, id LIMIT $3"
    );
    /// Deletes those of an agent.
    DELETE_UPLOADS_OF_AGENT = "DELETE FROM uploads WHERE agent_id = $1";

    /// Inserts or replaces a chunk; the same bytes again change nothing.
    PUT_CHUNK = "INSERT INTO chunks (file_id, number, length, sha256, data) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (file_id, number) DO UPDATE SET length = excluded.length, sha256 = excluded.sha256, \
        data = excluded.data WHERE chunks.sha256 <> excluded.sha256";
    /// Selects the chunks of a file without their bytes.
    CHUNKS = "SELECT number, length, sha256 FROM chunks WHERE file_id = $1 \
        AND NOT EXISTS (SELECT 1 FROM removed_files WHERE removed_files.file_id = $1) ORDER BY number";
    /// Selects the bytes of a chunk.
    CHUNK = "SELECT data FROM chunks WHERE file_id = $1 AND number = $2 \
        AND NOT EXISTS (SELECT 1 FROM removed_files WHERE removed_files.file_id = $1)";
    /// Notes a file whose chunks are deleted later.
    REMOVE_LATER = "INSERT INTO removed_files (file_id) VALUES ($1) ON CONFLICT DO NOTHING";
    /// Deletes chunks of such files. A cross join makes SQLite begin with the files, of which there are few.
    PRUNE_REMOVED = "DELETE FROM chunks WHERE (file_id, number) IN (SELECT c.file_id, c.number FROM removed_files AS r \
        CROSS JOIN chunks AS c WHERE c.file_id = r.file_id LIMIT $1)";
    /// Forgets such files once their chunks are gone.
    FORGET_REMOVED = "DELETE FROM removed_files WHERE NOT EXISTS \
        (SELECT 1 FROM chunks WHERE chunks.file_id = removed_files.file_id)";
    /// Notes the files of an agent's uploads.
    REMOVE_THOSE_OF_AGENT_LATER = "INSERT INTO removed_files (file_id) SELECT id FROM uploads WHERE agent_id = $1 \
        ON CONFLICT DO NOTHING";

    /// Inserts a file for agents unless there is one.
    INSERT_FILE = "INSERT INTO files (id, name, mime_type, size, sha256, created_at) VALUES ($1, $2, $3, $4, $5, $6) \
        ON CONFLICT DO NOTHING";
    /// Inserts an agent that may fetch the file.
    INSERT_FILE_AGENT = "INSERT INTO file_agents (file_id, place, agent_id) VALUES ($1, $2, $3)";
    /// Selects a file.
    FILE = "SELECT id, name, mime_type, size, sha256, created_at FROM files WHERE id = $1";
    /// Selects the files of an agent, newest first.
    FILES_OF = "SELECT files.id FROM file_agents JOIN files ON files.id = file_agents.file_id \
        WHERE file_agents.agent_id = $1 ORDER BY files.created_at DESC, files.id";
    /// Selects the agents that may fetch it.
    FILE_AGENTS = "SELECT agent_id FROM file_agents WHERE file_id = $1 ORDER BY place";
    /// Deletes the targets of a file.
    DELETE_FILE_AGENTS = "DELETE FROM file_agents WHERE file_id = $1";
    /// Deletes a file.
    DELETE_FILE = "DELETE FROM files WHERE id = $1";
    /// Deletes an agent from the targets of files.
    DELETE_FILE_AGENT = "DELETE FROM file_agents WHERE agent_id = $1";

    /// Inserts or replaces one.
    PUT_ARTIFACT = "INSERT INTO artifacts \
        (identifier, decoded_sha256, decoded_size, encoded_sha256, compression, created_at, body) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (identifier, decoded_sha256) DO UPDATE SET \
        decoded_size = excluded.decoded_size, encoded_sha256 = excluded.encoded_sha256, \
        compression = excluded.compression, created_at = excluded.created_at, body = excluded.body";
    /// Selects an artifact with its bytes.
    ARTIFACT = "SELECT identifier, decoded_sha256, decoded_size, encoded_sha256, compression, created_at, body \
        FROM artifacts WHERE identifier = $1 AND decoded_sha256 = $2";
}
