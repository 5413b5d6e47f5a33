//! OpenID providers, completed logins, and logins of devices.

use super::statements;

macro_rules! provider_columns {
    () => {
        "id, issuer, document, sealed_secret, version, created_at, updated_at"
    };
}

macro_rules! device_columns {
    () => {
        "key_id, hash, user_code, device, address, created_at, expires_at, is_denied, user_id, privileges, group_names, \
         token_expires_at, session"
    };
}

statements! {
    /// Inserts a provider unless its id is taken.
    INSERT_PROVIDER = concat!(
        "INSERT INTO oidc_providers (", provider_columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT DO NOTHING"
    );
    /// Updates a provider from the version before.
    UPDATE_PROVIDER = "UPDATE oidc_providers SET document = $1, sealed_secret = $2, version = $3, updated_at = $4 \
        WHERE id = $5 AND version = $3 - 1";
    /// Deletes a provider.
    DELETE_PROVIDER = "DELETE FROM oidc_providers WHERE id = $1";
    /// Selects a provider.
    PROVIDER = concat!("SELECT ", provider_columns!(), " FROM oidc_providers WHERE id = $1");
    /// Selects providers by id.
    PROVIDERS = concat!("SELECT ", provider_columns!(), " FROM oidc_providers ORDER BY id");
    /// Deletes the sessions of the users of an issuer.
    DELETE_SESSIONS_OF_ISSUER = "DELETE FROM sessions WHERE user_id IN (SELECT id FROM users WHERE issuer = $1)";
    /// Revokes the tokens that have rights from groups of an issuer.
    REVOKE_TOKENS_OF_ISSUER = "UPDATE api_tokens SET revoked_at = $1 WHERE revoked_at IS NULL \
        AND group_names <> '[]' AND owner IN (SELECT id FROM users WHERE issuer = $2)";

    /// Inserts a completed login unless it was completed before.
    COMPLETE = "INSERT INTO completed_log_ins (state, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    /// Deletes completed logins that ended.
    EXPIRE_COMPLETED = "DELETE FROM completed_log_ins WHERE expires_at <= $1";

    /// Inserts the login of a device unless its code is taken.
    INSERT_DEVICE = "INSERT INTO device_log_ins (key_id, hash, user_code, device, address, created_at, expires_at, \
        is_denied) VALUES ($1, $2, $3, $4, $5, $6, $7, 0) ON CONFLICT DO NOTHING";
    /// Counts logins of devices.
    COUNT_DEVICES = "SELECT count(*) FROM device_log_ins";
    /// Approves the login of a device that waits.
    APPROVE_DEVICE = "UPDATE device_log_ins SET user_id = $1, privileges = $2, group_names = $3, token_expires_at = $4, \
        session = $5 WHERE user_code = $6 AND is_denied = 0 AND user_id IS NULL";
    /// Denies the login of a device that waits.
    DENY_DEVICE = "UPDATE device_log_ins SET is_denied = 1 WHERE user_code = $1 AND is_denied = 0 AND user_id IS NULL";
    /// Deletes logins of devices that a session approved.
    DELETE_DEVICES_OF_SESSION = "DELETE FROM device_log_ins WHERE session = $1";
    /// Deletes logins of devices that a user approved.
    DELETE_DEVICES_OF = "DELETE FROM device_log_ins WHERE user_id = $1";
    /// Deletes the login of a device.
    DELETE_DEVICE = "DELETE FROM device_log_ins WHERE key_id = $1";
    /// Selects the login of a device by its key.
    DEVICE_BY_KEY = concat!("SELECT ", device_columns!(), " FROM device_log_ins WHERE key_id = $1");
    /// Selects the login of a device by its code.
    DEVICE_BY_CODE = concat!("SELECT ", device_columns!(), " FROM device_log_ins WHERE user_code = $1");
    /// Deletes logins of devices that ended.
    EXPIRE_DEVICES = "DELETE FROM device_log_ins WHERE expires_at <= $1";
}
