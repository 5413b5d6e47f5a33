//! Policies and their revisions.

use super::statements;

macro_rules! columns {
    () => {
        "id, space, name, namespace, description, revision, is_managed, is_default, inactivity_timeout, unenroll_timeout, \
         config, secrets, fields, recovery_code_hash, updated_by, created_at, updated_at"
    };
}
macro_rules! revision_columns {
    () => {
        "policy_id, revision, created_at, created_by, source, compiled"
    };
}

statements! {
    /// Inserts a policy unless its id or name is taken.
    INSERT = concat!(
        "INSERT INTO policies (", columns!(), ") \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) ON CONFLICT DO NOTHING"
    );
    /// Updates a policy if it has not changed meanwhile.
    UPDATE = concat!(
        "UPDATE policies SET (", columns!(), ") = \
         ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) \
         WHERE id = $1 AND revision = $18 AND updated_at = $19"
    );
    /// Selects whether it exists.
    EXISTS = "SELECT 1 FROM policies WHERE id = $1";
    /// Selects whether another policy of the space has the name.
    NAME_TAKEN = "SELECT 1 FROM policies WHERE space = $1 AND name = $2 AND id <> $3";
    /// Deletes a policy with its revisions.
    DELETE = "DELETE FROM policies WHERE id = $1";
    /// Selects a policy.
    BY_ID = concat!("SELECT ", columns!(), " FROM policies WHERE id = $1");
    /// Selects a policy of a space.
    BY_ID_IN = concat!("SELECT ", columns!(), " FROM policies WHERE id = $1 AND space = $2");
    /// Selects what an enrollment needs. These columns precede the long ones, so that reading them does not touch
    /// overflow pages.
    HEAD = "SELECT id, inactivity_timeout FROM policies WHERE id = $1";
    /// Selects the same of the default policy of a space.
    DEFAULT_HEAD = "SELECT id, inactivity_timeout FROM policies WHERE space = $1 AND is_default = 1 LIMIT 1";
    /// Selects the policy of a name in a space.
    BY_NAME = concat!("SELECT ", columns!(), " FROM policies WHERE space = $1 AND name = $2");
    /// Selects all, by name.
    LIST = concat!("SELECT ", columns!(), " FROM policies ORDER BY lower(name), name, id LIMIT $1 OFFSET $2");
    /// Counts all.
    COUNT = "SELECT count(*) FROM policies";
    /// Selects the policies of a space by name.
    LIST_IN = concat!(
        "SELECT ", columns!(), " FROM policies WHERE space = $1 ORDER BY lower(name), name LIMIT $2 OFFSET $3"
    );
    /// Selects the policies of a space after a name, by name.
    LIST_AFTER = concat!(
        "SELECT ", columns!(),
        " FROM policies WHERE space = $1 AND (lower(name), name) > (lower($2), $2) ORDER BY lower(name), name LIMIT $3"
    );
    /// Counts the policies of a space.
    COUNT_IN = "SELECT count(*) FROM policies WHERE space = $1";

    /// Inserts a revision unless its number is taken.
    INSERT_REVISION = concat!(
        "INSERT INTO policy_revisions (", revision_columns!(), ") VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT DO NOTHING"
    );
    /// Selects the newest revision.
    NEWEST_REVISION = concat!(
        "SELECT ", revision_columns!(), " FROM policy_revisions WHERE policy_id = $1 ORDER BY revision DESC LIMIT 1"
    );
    /// Selects a revision.
    REVISION = concat!(
        "SELECT ", revision_columns!(), " FROM policy_revisions WHERE policy_id = $1 AND revision = $2"
    );
    /// Selects the revisions of a policy without their contents.
    REVISIONS = "SELECT revision, created_at, created_by FROM policy_revisions WHERE policy_id = $1 \
        ORDER BY revision DESC";
}
