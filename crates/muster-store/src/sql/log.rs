//! The change log and the audit log.

use super::statements;

statements! {
    /// A change's row.
    INSERT_CHANGE = "INSERT INTO changes (kind, subject) VALUES ($1, $2) RETURNING seq";
    /// The newest change.
    NEWEST_CHANGE = "SELECT coalesce(max(seq), 0) FROM changes";
    /// Changes after one.
    CHANGES = "SELECT seq, kind, subject FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2";
    /// The oldest changes but the newest one.
    PRUNE = "DELETE FROM changes WHERE seq IN (SELECT seq FROM changes \
        WHERE seq <= $1 AND seq < (SELECT max(seq) FROM changes) ORDER BY seq LIMIT $2)";
    /// A line.
    INSERT_AUDIT = "INSERT INTO audit_events (event, hash) VALUES ($1, $2)";
    /// The hash of the newest line.
    NEWEST_AUDIT = "SELECT hash FROM audit_events ORDER BY seq DESC LIMIT 1";
    /// Lines after one.
    AUDIT = "SELECT seq, event, hash FROM audit_events WHERE seq > $1 ORDER BY seq LIMIT $2";
}
