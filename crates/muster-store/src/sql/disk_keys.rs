//! Recovery keys of encrypted disks.

use super::{locked, statements};

statements! {
    /// Stores a key, and forgets the error of the host. Waits for a transfer of the agent, whose new space the key then has.
    PUT = concat!(
        "INSERT INTO disk_keys (agent_id, space, stored_at, sealed) \
         VALUES ($1, (SELECT space FROM agents WHERE id = $1 ", locked!(), "), $2, $3) \
         ON CONFLICT (agent_id, space) DO UPDATE SET stored_at = excluded.stored_at, sealed = excluded.sealed, \
         error = NULL, error_at = NULL"
    );
    /// Locks an agent until the end of the transaction.
    LOCK_AGENT = concat!("SELECT id FROM agents WHERE id = $1 ", locked!());
    /// Selects whether the space of an agent has its key.
    IS_STORED = "SELECT 1 FROM disk_keys WHERE agent_id = $1 AND space = (SELECT space FROM agents WHERE id = $1) \
        AND sealed IS NOT NULL";
    /// Stores an error of the host; the key stays.
    PUT_ERROR = "INSERT INTO disk_keys (agent_id, space, error, error_at) \
        VALUES ($1, (SELECT space FROM agents WHERE id = $1), $2, $3) \
        ON CONFLICT (agent_id, space) DO UPDATE SET error = excluded.error, error_at = excluded.error_at";
    /// Ends the request for the passphrase if the host was told of it: a key or an error answers it.
    ESCROW_ANSWERED = "UPDATE disk_keys SET escrow_asked = NULL, escrow_due_at = NULL WHERE agent_id = $1 AND escrow_asked > 0";
    /// Makes the host ask its user for the passphrase.
    ESCROW = "INSERT INTO disk_keys (agent_id, space, escrow_asked, escrow_due_at) \
        VALUES ($1, (SELECT space FROM agents WHERE id = $1), 0, $2) \
        ON CONFLICT (agent_id, space) DO UPDATE SET escrow_asked = 0, escrow_due_at = excluded.escrow_due_at";
    /// Ends what the spaces that an agent is not in wanted of its host.
    LEAVE = "UPDATE disk_keys SET escrow_asked = NULL, escrow_due_at = NULL, error = NULL, error_at = NULL \
        WHERE agent_id = $1 AND space <> $2";
    /// Deletes the rows without a key of the spaces that an agent is not in.
    DELETE_KEYLESS = "DELETE FROM disk_keys WHERE agent_id = $1 AND space <> $2 AND sealed IS NULL";
    /// Deletes the older key that a space has of an agent, if the agent brings one.
    DELETE_OLDER = "DELETE FROM disk_keys WHERE space = $1 AND agent_id = $2 AND EXISTS (SELECT 1 FROM disk_keys AS own \
        JOIN agents AS a ON a.id = own.agent_id AND a.space = own.space WHERE own.agent_id = $2 AND own.space <> $1 \
        AND own.sealed IS NOT NULL)";
    /// Hands the key of an agent over to another space. What the former space wanted of the host ends.
    HAND_OVER = "UPDATE disk_keys SET space = $1, escrow_asked = NULL, escrow_due_at = NULL WHERE agent_id = $2 \
        AND sealed IS NOT NULL AND space = (SELECT space FROM agents WHERE id = $2)";
    /// Deletes the key that a space has of an agent.
    DELETE = "DELETE FROM disk_keys WHERE agent_id = $1 AND space = $2";
    /// Hands the keys of a space over to another one, unless that has a newer one of the agent.
    HAND_ALL_OVER = "INSERT INTO disk_keys (agent_id, space, stored_at, sealed) \
        SELECT agent_id, CAST($1 AS TEXT), stored_at, sealed FROM disk_keys WHERE space = $2 AND sealed IS NOT NULL \
        ON CONFLICT (agent_id, space) DO UPDATE SET stored_at = excluded.stored_at, sealed = excluded.sealed \
        WHERE disk_keys.sealed IS NULL OR disk_keys.stored_at < excluded.stored_at";
    /// Counts the keys of a space.
    COUNT_IN = "SELECT count(*) FROM disk_keys WHERE space = $1 AND sealed IS NOT NULL";
    /// Deletes the keys of a space.
    DELETE_IN = "DELETE FROM disk_keys WHERE space = $1";
    /// Selects whether a space has a key of an agent, and locks it.
    HOLDS = concat!("SELECT 1 FROM disk_keys WHERE agent_id = $1 AND space = $2 AND sealed IS NOT NULL ", locked!());
    /// Records that the host is told to do so, and is told again from `$1`. Changes nothing unless it is due at `$3`.
    ESCROW_TOLD = "UPDATE disk_keys SET escrow_asked = escrow_asked + 1, escrow_due_at = $1 \
        WHERE agent_id = $2 AND escrow_due_at <= $3";
    /// Ends the repetitions after the last time.
    ESCROW_LAST = "UPDATE disk_keys SET escrow_due_at = NULL WHERE agent_id = $1 AND escrow_asked >= $2";
    /// Selects the key that a space has of an agent.
    ONE = "SELECT sealed, stored_at, error, error_at, escrow_asked, escrow_due_at FROM disk_keys \
        WHERE agent_id = $1 AND space = $2";
    /// Selects the agents that have yet to be told, or told again.
    ESCROW_DUE = "SELECT agent_id FROM disk_keys WHERE escrow_due_at IS NOT NULL AND agent_id > $1 ORDER BY agent_id LIMIT $2";
}
