//! Events, and the receivers of alerts.

use super::statements;

statements! {
    /// Inserts events.
    INSERT_EVENTS = super::dialect::INSERT_EVENTS;
    /// Selects the number of the newest event.
    NEWEST_EVENT = "SELECT coalesce(max(seq), 0) FROM events";
    /// Selects events after one.
    EVENTS = "SELECT seq, document FROM events WHERE seq > $1 ORDER BY seq LIMIT $2";
    /// Selects the events of a subject before one, newest first.
    EVENTS_OF = "SELECT seq, document FROM events WHERE subject = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
    /// Selects the newest events that concern a space.
    EVENTS_IN = "SELECT seq, document FROM \
        (SELECT seq, document FROM events WHERE space = $1 ORDER BY seq DESC LIMIT $2) AS of_space \
        UNION ALL SELECT seq, document FROM \
        (SELECT seq, document FROM events WHERE space = '' ORDER BY seq DESC LIMIT $2) AS of_all \
        ORDER BY 1 DESC LIMIT $2";
    /// Deletes the oldest events, but never the newest, which holds the current number.
    PRUNE = "DELETE FROM events WHERE seq IN (SELECT seq FROM events \
        WHERE (at < $1 OR seq <= (SELECT max(seq) FROM events) - $2) AND seq < (SELECT max(seq) FROM events) \
        ORDER BY seq LIMIT $3)";

    /// Selects whether another receiver of the space has the name.
    NAME_TAKEN = "SELECT 1 FROM alert_receivers WHERE space = $1 AND name = $2 AND id <> $3";
    /// Counts the receivers of a space.
    COUNT = "SELECT count(*) FROM alert_receivers WHERE space = $1";
    /// Inserts a receiver.
    INSERT = "INSERT INTO alert_receivers (id, space, name, version, document) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT DO NOTHING";
    /// Replaces a receiver of the version before.
    UPDATE = "UPDATE alert_receivers SET name = $1, version = $2, document = $3 WHERE id = $4 AND version = $2 - 1";
    /// Deletes a receiver.
    DELETE = "DELETE FROM alert_receivers WHERE id = $1";
    /// Selects a receiver.
    ONE = "SELECT document FROM alert_receivers WHERE id = $1 AND space = $2";
    /// Selects the receivers of a space by name.
    OF_SPACE = "SELECT document FROM alert_receivers WHERE space = $1 ORDER BY lower(name), name, id";
    /// Selects all receivers, with their progress.
    ALL_WITH_PROGRESS = "SELECT r.document, p.document FROM alert_receivers AS r \
        JOIN alert_progress AS p ON p.receiver_id = r.id ORDER BY r.id";
    /// Inserts or replaces the progress of a receiver that exists.
    PUT_PROGRESS = "INSERT INTO alert_progress (receiver_id, document) \
        SELECT id, $1 FROM alert_receivers WHERE id = $2 \
        ON CONFLICT (receiver_id) DO UPDATE SET document = excluded.document";
    /// Selects the progress of a receiver.
    PROGRESS = "SELECT document FROM alert_progress WHERE receiver_id = $1";
}
