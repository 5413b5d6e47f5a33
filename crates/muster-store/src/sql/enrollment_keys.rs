//! Enrollment keys.

use super::statements;

macro_rules! columns {
    () => {
        "id, space, family, name, key_id, hash, sealed_token, policy_id, tags, created_at, expires_at, revoked_at, \
         max_uses, uses, last_used_at, hidden, created_by, one_time, bound_uuid, bound_serial, orbit_used_at, osquery_used_at"
    };
}

statements! {
    /// Inserts a key unless its id, key id or name is taken.
    INSERT = concat!(
        "INSERT INTO enrollment_keys (", columns!(), ") \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22) \
         ON CONFLICT DO NOTHING"
    );
    /// Selects whether an id or key id is taken.
    TAKEN = "SELECT 1 FROM enrollment_keys WHERE id = $1 OR key_id = $2";
    /// Counts the keys of a family in a space that are not revoked: the one-time secrets, or the others.
    COUNT_LIVE = "SELECT count(*) FROM enrollment_keys WHERE space = $1 AND family = $2 AND one_time = $3 \
        AND revoked_at IS NULL";
    /// Records the use of a one-time secret by an orbit: its first, and not long after that of the osqueryd of the same host.
    USE_BY_ORBIT = "UPDATE enrollment_keys SET uses = uses + 1, last_used_at = $1, orbit_used_at = $1, \
        bound_uuid = coalesce(bound_uuid, nullif($2, '')), bound_serial = coalesce(bound_serial, nullif($3, '')) \
        WHERE id = $4 AND one_time = 1 AND revoked_at IS NULL \
        AND (expires_at IS NULL OR expires_at > $1) AND orbit_used_at IS NULL \
        AND (osquery_used_at IS NULL OR osquery_used_at > $5) AND ($2 = '' OR coalesce(bound_uuid, $2) = $2) \
        AND ($3 = '' OR coalesce(bound_serial, $3) = $3)";
    /// The same for an osqueryd.
    USE_BY_OSQUERY = "UPDATE enrollment_keys SET uses = uses + 1, last_used_at = $1, osquery_used_at = $1, \
        bound_uuid = coalesce(bound_uuid, nullif($2, '')), bound_serial = coalesce(bound_serial, nullif($3, '')) \
        WHERE id = $4 AND one_time = 1 AND revoked_at IS NULL \
        AND (expires_at IS NULL OR expires_at > $1) AND osquery_used_at IS NULL \
        AND (orbit_used_at IS NULL OR orbit_used_at > $5) AND ($2 = '' OR coalesce(bound_uuid, $2) = $2) \
        AND ($3 = '' OR coalesce(bound_serial, $3) = $3)";
    /// Counts a use of a valid key.
    USE = "UPDATE enrollment_keys SET uses = uses + 1, last_used_at = $1 WHERE id = $2 AND revoked_at IS NULL \
        AND (expires_at IS NULL OR expires_at > $1) AND (max_uses IS NULL OR uses < max_uses)";
    /// Records a use without counting it.
    USE_AGAIN = "UPDATE enrollment_keys SET last_used_at = $1 WHERE id = $2 AND revoked_at IS NULL \
        AND (expires_at IS NULL OR expires_at > $1)";
    /// Sets the time unless it is set.
    REVOKE = "UPDATE enrollment_keys SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2";
    /// Replaces the key id of a revoked key by one that no credential has.
    RELEASE = "UPDATE enrollment_keys SET key_id = 'released-' || id WHERE id = $1 AND revoked_at IS NOT NULL";
    /// Deletes a key.
    DELETE = "DELETE FROM enrollment_keys WHERE id = $1";
    /// Deletes the keys of a policy.
    DELETE_OF_POLICY = "DELETE FROM enrollment_keys WHERE policy_id = $1";
    /// Selects ids of keys that expired before a time, oldest first.
    EXPIRED_BEFORE = "SELECT id FROM enrollment_keys WHERE expires_at < $1 ORDER BY expires_at LIMIT $2";
    /// Selects a key.
    BY_ID = concat!("SELECT ", columns!(), " FROM enrollment_keys WHERE id = $1");
    /// Selects a key of a space.
    BY_ID_IN = concat!("SELECT ", columns!(), " FROM enrollment_keys WHERE id = $1 AND space = $2");
    /// Selects the key with a key id.
    BY_KEY_ID = concat!("SELECT ", columns!(), " FROM enrollment_keys WHERE key_id = $1");
    /// Selects the keys of a space, newest first.
    LIST = concat!(
        "SELECT ", columns!(),
        " FROM enrollment_keys WHERE space = $1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3"
    );
    /// Counts the keys of a space.
    COUNT = "SELECT count(*) FROM enrollment_keys WHERE space = $1";
    /// Selects the one-time secrets of a space, newest first.
    ONE_TIME = concat!(
        "SELECT ", columns!(),
        " FROM enrollment_keys WHERE space = $1 AND one_time = 1 ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3"
    );
    /// Counts the one-time secrets of a space.
    COUNT_ONE_TIME = "SELECT count(*) FROM enrollment_keys WHERE space = $1 AND one_time = 1";
    /// Selects the keys of a space after one, newest first.
    LIST_AFTER = concat!(
        "SELECT ", columns!(),
        " FROM enrollment_keys WHERE space = $1 AND (created_at, id) < ($2, $3) \
         ORDER BY created_at DESC, id DESC LIMIT $4"
    );
    /// Selects the keys of a policy in a space, newest first.
    LIST_OF_POLICY = concat!(
        "SELECT ", columns!(),
        " FROM enrollment_keys WHERE space = $1 AND policy_id = $2 ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4"
    );
    /// Selects the keys of a policy in a space after one, newest first.
    LIST_OF_POLICY_AFTER = concat!(
        "SELECT ", columns!(),
        " FROM enrollment_keys WHERE space = $1 AND policy_id = $2 AND (created_at, id) < ($3, $4) \
         ORDER BY created_at DESC, id DESC LIMIT $5"
    );
    /// Counts the keys of a policy in a space.
    COUNT_OF_POLICY = "SELECT count(*) FROM enrollment_keys WHERE space = $1 AND policy_id = $2";
}
