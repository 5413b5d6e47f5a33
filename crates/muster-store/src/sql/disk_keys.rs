//! Recovery keys of encrypted disks.

use super::statements;

statements! {
    /// Stores a key, and forgets the error of the host. It answers the last request for the passphrase that the host was told of.
    PUT = "INSERT INTO disk_keys (agent_id, space, stored_at, sealed, is_escrow_due, is_escrow_pending) \
        VALUES ($1, (SELECT space FROM agents WHERE id = $1), $2, $3, 0, 0) \
        ON CONFLICT (agent_id) DO UPDATE SET stored_at = excluded.stored_at, sealed = excluded.sealed, \
        error = NULL, error_at = NULL, is_escrow_pending = disk_keys.is_escrow_due";
    /// Stores an error of the host, which is an answer too; the key stays.
    PUT_ERROR = "INSERT INTO disk_keys (agent_id, space, error, error_at, is_escrow_due, is_escrow_pending) \
        VALUES ($1, (SELECT space FROM agents WHERE id = $1), $2, $3, 0, 0) \
        ON CONFLICT (agent_id) DO UPDATE SET error = excluded.error, error_at = excluded.error_at, \
        is_escrow_pending = disk_keys.is_escrow_due";
    /// Makes the host ask its user for the passphrase.
    ESCROW = "INSERT INTO disk_keys (agent_id, space, is_escrow_due, is_escrow_pending) \
        VALUES ($1, (SELECT space FROM agents WHERE id = $1), 1, 1) \
        ON CONFLICT (agent_id) DO UPDATE SET is_escrow_due = 1, is_escrow_pending = 1";
    /// Deletes the key of an agent that has come to another space, unless it was handed over to that space.
    DELETE_OUTSIDE = "DELETE FROM disk_keys WHERE agent_id = $1 AND space <> $2";
    /// Hands the key of an agent over to another space. What the former space wanted of the host ends.
    HAND_OVER = "UPDATE disk_keys SET space = $1, is_escrow_due = 0, is_escrow_pending = 0 WHERE agent_id = $2";
    /// Records that the host was told to do so.
    ESCROW_TOLD = "UPDATE disk_keys SET is_escrow_due = 0 WHERE agent_id = $1 AND is_escrow_due = 1";
    /// Selects the key of an agent.
    ONE = "SELECT sealed, stored_at, error, error_at, is_escrow_due, is_escrow_pending FROM disk_keys WHERE agent_id = $1";
    /// Selects the agents that have yet to be told.
    ESCROW_DUE = "SELECT agent_id FROM disk_keys WHERE is_escrow_due = 1 AND agent_id > $1 ORDER BY agent_id LIMIT $2";
}
