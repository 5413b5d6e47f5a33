//! Labels and their hosts.

use super::statements;

macro_rules! columns {
    () => {
        "id, space, version, name, name_key, description, query, platforms, created_at"
    };
}

statements! {
    /// Inserts a label unless its id or its name is taken.
    INSERT = concat!(
        "INSERT INTO labels (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING"
    );
    /// Counts the labels of a space.
    COUNT = "SELECT count(*) FROM labels WHERE space = $1";
    /// Selects whether another label of the space has a name.
    TAKEN = "SELECT 1 FROM labels WHERE space = $1 AND name_key = $2 AND id <> $3";
    /// Selects whether a space has a label with a name.
    NAMED = "SELECT 1 FROM labels WHERE space = $1 AND name_key = $2";
    /// Updates a label that has the version before.
    UPDATE = "UPDATE labels SET version = $1, name = $2, name_key = $3, description = $4, query = $5, platforms = $6 \
        WHERE id = $7 AND version = $1 - 1";
    /// Takes a label from all hosts.
    CLEAR = "DELETE FROM label_hosts WHERE label_id = $1";
    /// Deletes a label.
    DELETE = "DELETE FROM labels WHERE id = $1";
    /// Gives labels to hosts of their space.
    ADD = "INSERT INTO label_hosts (label_id, host_id) SELECT l.id, h.id FROM labels l JOIN hosts h ON h.space = l.space \
        WHERE l.id IN (SELECT value FROM json_each($1)) AND h.id IN (SELECT value FROM json_each($2)) ON CONFLICT DO NOTHING";
    /// Takes labels from hosts.
    REMOVE = "DELETE FROM label_hosts WHERE label_id IN (SELECT value FROM json_each($1)) \
        AND host_id IN (SELECT value FROM json_each($2))";
    /// Stores the error of a label's query on a host of its space.
    PUT_ERROR = "INSERT INTO label_errors (label_id, host_id, error, at) \
        SELECT l.id, h.id, CAST($1 AS TEXT), CAST($2 AS BIGINT) FROM labels l JOIN hosts h ON h.space = l.space \
        WHERE l.id = $3 AND h.id = $4 ON CONFLICT (label_id, host_id) DO UPDATE SET error = excluded.error, at = excluded.at";
    /// Deletes the errors of labels on a host.
    DELETE_ERRORS = "DELETE FROM label_errors WHERE host_id = $1 AND label_id IN (SELECT value FROM json_each($2))";
    /// Deletes the errors of a label.
    CLEAR_ERRORS = "DELETE FROM label_errors WHERE label_id = $1";
    /// Selects the errors of labels on a host.
    ERRORS_OF_HOST = "SELECT label_id, error FROM label_errors WHERE host_id = $1 ORDER BY label_id";
    /// Counts the errors of the labels of a space, with the last one of each.
    ERROR_COUNTS = "SELECT e.label_id, count(*), (SELECT n.error FROM label_errors n WHERE n.label_id = e.label_id \
        ORDER BY n.at DESC, n.host_id LIMIT 1) FROM labels l JOIN label_errors e ON e.label_id = l.id WHERE l.space = $1 \
        GROUP BY e.label_id";
    /// Selects the labels of a space by name.
    OF_SPACE = concat!("SELECT ", columns!(), " FROM labels WHERE space = $1 ORDER BY name_key");
    /// Counts the hosts of the labels of a space.
    COUNTS = "SELECT m.label_id, count(*) FROM labels l JOIN label_hosts m ON m.label_id = l.id WHERE l.space = $1 \
        GROUP BY m.label_id";
    /// Selects those of these hosts that have a label.
    WITH_LABEL = "SELECT host_id FROM label_hosts WHERE label_id = $1 AND host_id IN (SELECT value FROM json_each($2))";
    /// Selects the labels of a host.
    OF_HOST = "SELECT label_id FROM label_hosts WHERE host_id = $1 ORDER BY label_id";
}
