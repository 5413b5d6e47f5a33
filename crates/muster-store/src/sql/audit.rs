//! The audit log.

use super::{now, statements};

statements! {
    /// Appends a link to a chain.
    INSERT = "INSERT INTO audit_events (chain, position, event, hash, subject) VALUES ($1, $2, $3, $4, $5)";
    /// Selects the end of a chain.
    END = "SELECT position, hash FROM audit_events WHERE chain = $1 ORDER BY position DESC LIMIT 1";
    /// Selects the ends of all chains, with one look-up for each.
    HEADS = "WITH RECURSIVE chains (chain) AS (SELECT min(chain) FROM audit_events UNION ALL \
        SELECT (SELECT min(chain) FROM audit_events WHERE chain > chains.chain) FROM chains WHERE chains.chain IS NOT NULL) \
        SELECT ends.chain, ends.position, ends.hash FROM chains JOIN audit_events ends ON ends.chain = chains.chain \
        AND ends.position = (SELECT max(position) FROM audit_events links WHERE links.chain = chains.chain) \
        ORDER BY ends.chain";
    /// Selects links of a chain after a position.
    LINKS = "SELECT position, event, hash, subject FROM audit_events WHERE chain = $1 AND position > $2 ORDER BY position LIMIT $3";
    /// Selects the hash at a position of a chain.
    HASH = "SELECT hash FROM audit_events WHERE chain = $1 AND position = $2";
    /// Selects the time.
    NOW = concat!("SELECT ", now!());
    /// Selects lines after one.
    AFTER = "SELECT seq, event, hash FROM audit_events WHERE seq > $1 ORDER BY seq LIMIT $2";
    /// Selects lines before one, newest first.
    BEFORE = "SELECT seq, event, hash FROM audit_events WHERE seq < $1 ORDER BY seq DESC LIMIT $2";
    /// Selects lines about an object before one, newest first.
    OF_SUBJECT = "SELECT seq, event, hash FROM audit_events WHERE subject = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
}
