//! The change log.

use super::{now, statements};

statements! {
    /// Inserts changes.
    INSERT_CHANGES = super::dialect::INSERT_CHANGES;
    /// Selects the newest change.
    NEWEST_CHANGE = "SELECT coalesce(max(seq), 0) FROM changes";
    /// Selects changes after one.
    CHANGES = "SELECT seq, kind, subject FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2";
    /// Selects changes after one, with the spaces of deleted subjects.
    CHANGE_ROWS = "SELECT seq, kind, subject, deleted_from FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2";
    /// Deletes the oldest changes, but never the newest, nor those that another live node has yet to handle, unless it is far behind.
    PRUNE = concat!(
        "DELETE FROM changes WHERE seq IN (SELECT seq FROM changes \
         WHERE seq <= $1 AND seq < (SELECT max(seq) FROM changes) \
         AND seq <= coalesce((SELECT min(handled) FROM nodes WHERE id <> $2 AND expires_at > ", now!(), " \
         AND handled > (SELECT max(seq) FROM changes) - $3), $1) ORDER BY seq LIMIT $4)"
    );
}
