//! Outputs, secrets and settings.

use super::statements;

macro_rules! output_columns {
    () => {
        "id, space, name, kind, is_default, is_default_monitoring, fields, created_at, updated_at"
    };
}

statements! {
    /// Inserts or updates an output.
    PUT_OUTPUT = concat!(
        "INSERT INTO outputs (", output_columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, kind = excluded.kind, \
         is_default = excluded.is_default, is_default_monitoring = excluded.is_default_monitoring, \
         fields = excluded.fields, created_at = excluded.created_at, updated_at = excluded.updated_at"
    );
    /// Selects whether another output of the space has the name.
    OUTPUT_NAME_TAKEN = "SELECT 1 FROM outputs WHERE space = $1 AND name = $2 AND id <> $3";
    /// Clears the default of other outputs of the space.
    CLEAR_DEFAULT = "UPDATE outputs SET is_default = 0 WHERE space = $1 AND is_default = 1 AND id <> $2";
    /// Clears the monitoring default of other outputs.
    CLEAR_DEFAULT_MONITORING = "UPDATE outputs SET is_default_monitoring = 0 \
        WHERE space = $1 AND is_default_monitoring = 1 AND id <> $2";
    /// Deletes an output.
    DELETE_OUTPUT = "DELETE FROM outputs WHERE id = $1";
    /// Selects an output.
    OUTPUT = concat!("SELECT ", output_columns!(), " FROM outputs WHERE id = $1");
    /// Selects an output of a space.
    OUTPUT_IN = concat!("SELECT ", output_columns!(), " FROM outputs WHERE id = $1 AND space = $2");
    /// Selects the outputs of a space by name.
    OUTPUTS = concat!("SELECT ", output_columns!(), " FROM outputs WHERE space = $1 ORDER BY lower(name), name");

    /// Inserts or replaces a secret.
    PUT_SECRET = "INSERT INTO secrets (id, sealed) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed";
    /// Deletes a secret.
    DELETE_SECRET = "DELETE FROM secrets WHERE id = $1";
    /// Selects a secret.
    SECRET = "SELECT sealed FROM secrets WHERE id = $1";

    /// Inserts or replaces a setting.
    PUT_SETTING = "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    /// Inserts a setting that does not exist.
    INSERT_SETTING = "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    /// Replaces the value of a setting if it still is the given one.
    SWAP_SETTING = "UPDATE settings SET value = $1 WHERE name = $2 AND value = $3";
    /// Deletes a setting.
    DELETE_SETTING = "DELETE FROM settings WHERE name = $1";
    /// Selects a setting.
    SETTING = "SELECT value FROM settings WHERE name = $1";
}
