//! Users, roles, bindings, tokens, sessions and spaces.

use super::statements;

macro_rules! user_columns {
    () => {
        "u.id, u.kind, u.name, u.full_name, u.password, u.issuer, u.subject, u.locked_at, u.version, u.created_at, \
         u.created_by, u.updated_at"
    };
}

macro_rules! token_columns {
    () => {
        "t.id, t.key_id, t.hash, t.owner, t.name, t.privileges, t.group_names, t.expires_at, t.session, t.created_at, \
         t.created_by, t.last_used_at, t.revoked_at"
    };
}

/// What follows the user in the rows of a principal: the number of spaces with the requested id, and a binding.
macro_rules! principal_columns {
    () => {
        "(SELECT count(*) FROM spaces WHERE id = $1), b.role_id, b.scope, r.privileges"
    };
}

macro_rules! binding_columns {
    () => {
        "id, user_id, group_name, role_id, scope, created_at, created_by"
    };
}

macro_rules! space_columns {
    () => {
        "id, name, description, version, created_at, updated_at"
    };
}

statements! {
    /// Inserts a user unless its id, name or subject is taken.
    INSERT_USER = "INSERT INTO users (id, kind, name, full_name, password, issuer, subject, locked_at, version, \
        created_at, created_by, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
        ON CONFLICT DO NOTHING";
    /// Updates a user from the version before.
    UPDATE_USER = "UPDATE users SET name = $1, full_name = $2, password = $3, issuer = $4, subject = $5, \
        locked_at = $6, version = $7, updated_at = $8 WHERE id = $9 AND version = $7 - 1";
    /// Selects whether another user has the name.
    USER_NAME_TAKEN = "SELECT 1 FROM users WHERE name = $1 AND id <> $2";
    /// Selects whether another user has the subject.
    SUBJECT_TAKEN = "SELECT 1 FROM users WHERE issuer = $1 AND subject = $2 AND id <> $3";
    /// Deletes a user.
    DELETE_USER = "DELETE FROM users WHERE id = $1";
    /// Selects a user who can administer the installation.
    ADMINISTRATOR = "SELECT 1 FROM users u JOIN bindings b ON b.user_id = u.id \
        WHERE b.role_id = $1 AND b.scope = $2 AND u.locked_at IS NULL AND u.kind = $3";
    /// Selects a user.
    USER = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = $1");
    /// Selects the user of a subject.
    USER_BY_SUBJECT = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.issuer = $1 AND u.subject = $2");
    /// Selects the users of a kind, by name.
    USERS = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.kind = $1 ORDER BY u.name LIMIT $2 OFFSET $3");
    /// Counts the users of a kind.
    COUNT_USERS = "SELECT count(*) FROM users WHERE kind = $1";

    /// Selects a user by name, with a row for each binding.
    USER_PRINCIPAL = concat!(
        "SELECT ", user_columns!(), ", ", principal_columns!(),
        " FROM users u LEFT JOIN bindings b ON b.user_id = u.id LEFT JOIN roles r ON r.id = b.role_id WHERE u.name = $2"
    );
    /// Selects a user by name, with a row for each binding of the user, and of the groups of its sessions and tokens.
    USER_RIGHTS = concat!(
        "SELECT ", user_columns!(), ", ", principal_columns!(),
        " FROM users u LEFT JOIN bindings b ON b.user_id = u.id \
         OR EXISTS (SELECT 1 FROM sessions s WHERE s.user_id = u.id AND \
         b.group_name IN (SELECT value FROM json_each(s.group_names))) \
         OR EXISTS (SELECT 1 FROM api_tokens t WHERE t.owner = u.id AND \
         b.group_name IN (SELECT value FROM json_each(t.group_names))) \
         LEFT JOIN roles r ON r.id = b.role_id WHERE u.name = $2"
    );
    /// Selects a token and its owner, with a row for each binding of the owner and of the groups.
    TOKEN_PRINCIPAL = concat!(
        "SELECT ", token_columns!(), ", ", user_columns!(), ", ", principal_columns!(),
        " FROM api_tokens t JOIN users u ON u.id = t.owner LEFT JOIN bindings b ON b.user_id = u.id \
         OR b.group_name IN (SELECT value FROM json_each(t.group_names)) \
         LEFT JOIN roles r ON r.id = b.role_id WHERE t.key_id = $2"
    );
    /// Selects a session and its user, with a row for each binding of the user and of the groups.
    SESSION_PRINCIPAL = concat!(
        "SELECT s.key_id, s.hash, s.user_id, s.group_names, s.created_at, s.expires_at, s.address, s.last_used_at, ",
        user_columns!(), ", ",
        principal_columns!(),
        " FROM sessions s JOIN users u ON u.id = s.user_id LEFT JOIN bindings b ON b.user_id = u.id \
         OR b.group_name IN (SELECT value FROM json_each(s.group_names)) \
         LEFT JOIN roles r ON r.id = b.role_id WHERE s.key_id = $2"
    );

    /// Inserts a role unless its id or name is taken.
    INSERT_ROLE = "INSERT INTO roles (id, name, description, privileges, version, updated_at) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    /// Updates a role from the version before.
    UPDATE_ROLE = "UPDATE roles SET name = $1, description = $2, privileges = $3, version = $4, updated_at = $5 \
        WHERE id = $6 AND version = $4 - 1";
    /// Selects whether another role has the name.
    ROLE_NAME_TAKEN = "SELECT 1 FROM roles WHERE name = $1 AND id <> $2";
    /// Selects whether a binding refers to a role.
    ROLE_IN_USE = "SELECT 1 FROM bindings WHERE role_id = $1";
    /// Deletes a role.
    DELETE_ROLE = "DELETE FROM roles WHERE id = $1";
    /// Selects roles by name.
    ROLES = "SELECT id, name, description, privileges, version, updated_at FROM roles ORDER BY name";
    /// Selects a role.
    ROLE = "SELECT id, name, description, privileges, version, updated_at FROM roles WHERE id = $1";

    /// Inserts a binding.
    INSERT_BINDING = concat!(
        "INSERT INTO bindings (", binding_columns!(), ", space) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT DO NOTHING"
    );
    /// Deletes a binding.
    DELETE_BINDING = "DELETE FROM bindings WHERE id = $1";
    /// Deletes the bindings within a space.
    DELETE_BINDINGS_IN = "DELETE FROM bindings WHERE space = $1";
    /// Selects bindings.
    BINDINGS = concat!("SELECT ", binding_columns!(), " FROM bindings ORDER BY id LIMIT $1 OFFSET $2");
    /// Counts bindings.
    COUNT_BINDINGS = "SELECT count(*) FROM bindings";
    /// Selects the bindings of a user.
    BINDINGS_OF = concat!(
        "SELECT ", binding_columns!(), " FROM bindings WHERE user_id = $1 ORDER BY id LIMIT $2 OFFSET $3"
    );
    /// Counts the bindings of a user.
    COUNT_BINDINGS_OF = "SELECT count(*) FROM bindings WHERE user_id = $1";
    /// Selects a binding.
    BINDING = concat!("SELECT ", binding_columns!(), " FROM bindings WHERE id = $1");

    /// Inserts a token.
    INSERT_TOKEN = "INSERT INTO api_tokens (id, key_id, hash, owner, name, privileges, group_names, expires_at, \
        session, created_at, created_by, last_used_at, revoked_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
        ON CONFLICT DO NOTHING";
    /// Sets the time of revocation unless it is set.
    REVOKE_TOKEN = "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, $1) WHERE id = $2";
    /// Sets the time of the last use.
    USE_TOKEN = "UPDATE api_tokens SET last_used_at = $1 WHERE id = $2 \
        AND (last_used_at IS NULL OR last_used_at < $1)";
    /// Selects tokens, newest first.
    TOKENS = concat!(
        "SELECT ", token_columns!(), " FROM api_tokens t ORDER BY t.created_at DESC, t.id DESC LIMIT $1 OFFSET $2"
    );
    /// Counts tokens.
    COUNT_TOKENS = "SELECT count(*) FROM api_tokens";
    /// Selects the tokens of an owner, newest first.
    TOKENS_OF = concat!(
        "SELECT ", token_columns!(),
        " FROM api_tokens t WHERE t.owner = $1 ORDER BY t.created_at DESC, t.id DESC LIMIT $2 OFFSET $3"
    );
    /// Counts the tokens of an owner.
    COUNT_TOKENS_OF = "SELECT count(*) FROM api_tokens WHERE owner = $1";
    /// Selects a token.
    TOKEN = concat!("SELECT ", token_columns!(), " FROM api_tokens t WHERE t.id = $1");
    /// Deletes tokens that ended before a time.
    EXPIRE_TOKENS = "DELETE FROM api_tokens WHERE expires_at < $1 OR revoked_at < $1";

    /// Inserts a session.
    INSERT_SESSION = "INSERT INTO sessions (key_id, hash, user_id, group_names, created_at, expires_at, address, \
        last_used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    /// Sets the time of the last use of a session.
    USE_SESSION = "UPDATE sessions SET last_used_at = $1 WHERE key_id = $2 \
        AND (last_used_at IS NULL OR last_used_at < $1)";
    /// Selects the newest sessions of a user that have not ended.
    SESSIONS_OF = "SELECT key_id, hash, user_id, group_names, created_at, expires_at, address, last_used_at \
        FROM sessions WHERE user_id = $1 AND expires_at > $2 ORDER BY created_at DESC, key_id LIMIT 100";
    /// Deletes a session.
    DELETE_SESSION = "DELETE FROM sessions WHERE key_id = $1";
    /// Deletes the tokens of devices that end with a session.
    DELETE_TOKENS_OF_SESSION = "DELETE FROM api_tokens WHERE session = $1";
    /// Deletes the tokens of a user's devices.
    DELETE_LOGIN_TOKENS_OF = "DELETE FROM api_tokens WHERE owner = $1 AND session IS NOT NULL";
    /// Deletes the sessions of a user.
    DELETE_SESSIONS_OF = "DELETE FROM sessions WHERE user_id = $1";
    /// Deletes sessions that ended.
    EXPIRE_SESSIONS = "DELETE FROM sessions WHERE expires_at <= $1";

    /// Inserts a set-up link.
    INSERT_LINK = "INSERT INTO setup_links (key_id, hash, user_id, expires_at) VALUES ($1, $2, $3, $4)";
    /// Deletes a set-up link.
    DELETE_LINK = "DELETE FROM setup_links WHERE key_id = $1";
    /// Deletes the set-up links of a user.
    DELETE_LINKS_OF = "DELETE FROM setup_links WHERE user_id = $1";
    /// Selects a set-up link.
    LINK = "SELECT key_id, hash, user_id, expires_at FROM setup_links WHERE key_id = $1";
    /// Deletes set-up links that ended.
    EXPIRE_LINKS = "DELETE FROM setup_links WHERE expires_at <= $1";

    /// Inserts a space unless it exists.
    INSERT_SPACE = concat!(
        "INSERT INTO spaces (", space_columns!(), ") VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
    );
    /// Updates a space from the version before.
    UPDATE_SPACE = "UPDATE spaces SET name = $1, description = $2, version = $3, updated_at = $4 \
        WHERE id = $5 AND version = $3 - 1";
    /// Deletes a space.
    DELETE_SPACE = "DELETE FROM spaces WHERE id = $1";
    /// Selects something that belongs to a space.
    SPACE_IN_USE = "SELECT 1 FROM agents WHERE space = $1 UNION ALL SELECT 1 FROM policies WHERE space = $1 \
        UNION ALL SELECT 1 FROM outputs WHERE space = $1 UNION ALL SELECT 1 FROM enrollment_keys WHERE space = $1 \
        UNION ALL SELECT 1 FROM network_objects WHERE space = $1 UNION ALL SELECT 1 FROM labels WHERE space = $1 \
        UNION ALL SELECT 1 FROM installers WHERE space = $1 UNION ALL SELECT 1 FROM saved_scripts WHERE space = $1 \
        UNION ALL SELECT 1 FROM alert_receivers WHERE space = $1 LIMIT 1";
    /// Deletes what is left of a space that is not in use: what was done in it, by table.
    DELETE_ROLLOUTS_IN = "DELETE FROM rollouts WHERE space = $1";
    /// Deletes live queries.
    DELETE_LIVE_QUERIES_IN = "DELETE FROM live_queries WHERE space = $1";
    /// Deletes actions.
    DELETE_ACTIONS_IN = "DELETE FROM actions WHERE space = $1";
    /// Deletes hosts, which have no agents.
    DELETE_HOSTS_IN = "DELETE FROM hosts WHERE space = $1";
    /// Deletes uninstall tokens of deleted policies.
    DELETE_UNINSTALL_TOKENS_IN = "DELETE FROM uninstall_tokens WHERE space = $1";
    /// Deletes the recorded numbers of agents.
    DELETE_HISTORY_IN = "DELETE FROM agent_history WHERE space = $1";
    /// Deletes labels.
    /// Inserts or replaces a view of a user that exists.
    PUT_VIEW = "INSERT INTO saved_views (user_id, space, name, query) SELECT id, $1, $2, $3 FROM users WHERE id = $4 \
        ON CONFLICT (user_id, space, name) DO UPDATE SET query = excluded.query";
    /// Deletes a view.
    DELETE_VIEW = "DELETE FROM saved_views WHERE user_id = $1 AND space = $2 AND name = $3";
    /// Deletes the views of a space.
    DELETE_VIEWS_IN = "DELETE FROM saved_views WHERE space = $1";
    /// Selects the views of a user in a space.
    VIEWS = "SELECT name, query FROM saved_views WHERE user_id = $1 AND space = $2 ORDER BY lower(name), name";
    /// Selects spaces by id.
    SPACES = concat!("SELECT ", space_columns!(), " FROM spaces ORDER BY id");
    /// Selects a space.
    SPACE = concat!("SELECT ", space_columns!(), " FROM spaces WHERE id = $1");
}
