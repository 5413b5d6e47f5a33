//! Software of hosts, and its index.

use super::statements;

statements! {
    /// Inserts software, or keeps what no host had any more.
    PUT = "INSERT INTO software (id, name, version, source, name_key, unused_since) VALUES ($1, $2, $3, $4, $5, $6) \
        ON CONFLICT (id) DO UPDATE SET unused_since = excluded.unused_since WHERE software.unused_since IS NOT NULL";
    /// Stores the list of a host, and keeps the one that the index has.
    PUT_LIST = "INSERT INTO host_software (agent_id, list, changed_at, left_out, pending) VALUES ($1, $2, $3, $4, 1) \
        ON CONFLICT (agent_id) DO UPDATE SET \
        indexed = CASE WHEN host_software.indexed_space IS NULL THEN NULL \
        ELSE coalesce(host_software.indexed, host_software.list) END, \
        list = excluded.list, changed_at = excluded.changed_at, left_out = excluded.left_out, \
        pending = host_software.pending + 1";
    /// Marks the list of an agent that was deleted, or is in another space now.
    MARK = "UPDATE host_software SET pending = pending + 1 WHERE agent_id = $1";
    /// Selects the list of a host.
    LIST = "SELECT list, changed_at, left_out FROM host_software WHERE agent_id = $1";
    /// Selects which ids are known and in use.
    KNOWN = "SELECT id FROM software WHERE id IN (SELECT value FROM json_each($1)) AND unused_since IS NULL";
    /// Selects software by id.
    BY_ID = "SELECT id, name, version, source FROM software WHERE id IN (SELECT value FROM json_each($1)) \
        ORDER BY name_key, version, source";

    /// Selects hosts whose list is not indexed. Without a space, the agent was deleted.
    PENDING = "SELECT h.agent_id, h.number, h.list, h.indexed, h.indexed_space, h.pending, a.space FROM host_software h \
        LEFT JOIN agents a ON a.id = h.agent_id WHERE h.pending > 0 ORDER BY h.agent_id LIMIT $1";
    /// Selects whether there is such a host.
    HAS_PENDING = "SELECT 1 FROM host_software WHERE pending > 0 LIMIT 1";
    /// Selects the next number of a host.
    NEXT_NUMBER = "SELECT coalesce(max(number), -1) + 1 FROM host_software WHERE number IS NOT NULL";
    /// Records that a list is indexed, unless it has changed since it was read.
    INDEXED = "UPDATE host_software SET (number, indexed, indexed_space, pending) = ($1, NULL, $2, 0) \
        WHERE agent_id = $3 AND pending = $4";
    /// Deletes the list of a deleted agent, unless it has changed since it was read.
    DELETE_LIST = "DELETE FROM host_software WHERE agent_id = $1 AND pending = $2";
    /// Selects hosts of software in a chunk.
    POSTINGS = "SELECT software_id, hosts FROM software_postings WHERE space = $1 AND chunk = $2 \
        AND software_id IN (SELECT value FROM json_each($3))";
    /// Inserts or replaces hosts of software in a chunk.
    PUT_POSTING = "INSERT INTO software_postings (space, software_id, chunk, hosts) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (space, software_id, chunk) DO UPDATE SET hosts = excluded.hosts";
    /// Deletes software from a chunk.
    DELETE_POSTING = "DELETE FROM software_postings WHERE space = $1 AND software_id = $2 AND chunk = $3";
    /// Adds to the number of hosts.
    ADD_HOSTS = "INSERT INTO space_software (space, software_id, name_key, hosts) \
        SELECT CAST($1 AS TEXT), id, name_key, CAST($2 AS BIGINT) FROM software WHERE id = $3 \
        ON CONFLICT (space, software_id) DO UPDATE SET hosts = space_software.hosts + excluded.hosts";
    /// Records that a host has software.
    USE = "UPDATE software SET unused_since = NULL WHERE id = $1 AND unused_since IS NOT NULL";
    /// Deletes software that no host of a space has.
    DELETE_UNUSED = "DELETE FROM space_software WHERE space = $1 AND software_id = $2 AND hosts <= 0";
    /// Records that no host of any space has software.
    END_USE = "UPDATE software SET unused_since = $1 WHERE id = $2 \
        AND NOT EXISTS (SELECT 1 FROM space_software WHERE software_id = $2)";
    /// Deletes software that no host has had for some time.
    PRUNE = "DELETE FROM software WHERE id IN (SELECT id FROM software WHERE unused_since < $1 LIMIT $2)";

    /// Selects the software of a space by name. Names are between `$2` and `$3`, and match `$4`; the order continues after `$6` and `$7`.
    OF_SPACE = "SELECT s.id, s.name, s.version, s.source, p.hosts FROM space_software p JOIN software s ON s.id = p.software_id \
        WHERE p.space = $1 AND p.name_key >= $2 AND p.name_key <= $3 AND p.name_key LIKE $4 ESCAPE '\\' \
        AND (CAST($5 AS TEXT) = '' OR s.source = $5) AND (p.name_key, p.software_id) > ($6, $7) \
        ORDER BY p.name_key, p.software_id LIMIT $8 OFFSET $9";
    /// Counts the software of a space.
    COUNT = "SELECT count(*) FROM space_software p JOIN software s ON s.id = p.software_id \
        WHERE p.space = $1 AND p.name_key >= $2 AND p.name_key <= $3 AND p.name_key LIKE $4 ESCAPE '\\' \
        AND (CAST($5 AS TEXT) = '' OR s.source = $5)";
    /// Counts the software of a space, whatever its name and source.
    COUNT_ALL = "SELECT count(*) FROM space_software WHERE space = $1";
    /// Selects software of a space.
    ONE = "SELECT s.id, s.name, s.version, s.source, p.hosts FROM space_software p JOIN software s ON s.id = p.software_id \
        WHERE p.space = $1 AND p.software_id = $2";
    /// Selects the chunks with the hosts of software.
    CHUNKS = "SELECT chunk, hosts FROM software_postings WHERE space = $1 AND software_id = $2 ORDER BY chunk";
    /// Selects hosts by number.
    // `CROSS JOIN` makes SQLite begin with the numbers. Otherwise, it reads all agents of the space.
    HOSTS = "SELECT h.agent_id, a.host_id, a.hostname FROM host_software h CROSS JOIN agents a \
        WHERE h.number IN (SELECT value FROM json_each($1)) AND a.id = h.agent_id AND a.space = $2 ORDER BY h.number";
}
