//! Saved scripts.

use super::statements;

statements! {

    /// Counts the saved scripts of a space with other names.
    SAVED_BESIDE = "SELECT count(*) FROM saved_scripts WHERE space = $1 AND name_key <> $2";
    /// Inserts a saved script.
    SAVE = "INSERT INTO saved_scripts (name, name_key, description, script, sha256, version, updated_by, updated_at, id, space) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
    /// Changes a saved script of a version.
    CHANGE_SAVED = "UPDATE saved_scripts SET (name, name_key, description, script, sha256, version, updated_by, updated_at) \
        = ($1, $2, $3, $4, $5, $6, $7, $8) WHERE id = $9 AND space = $10 AND version = $6 - 1";
    /// Deletes a saved script.
    DELETE_SAVED = "DELETE FROM saved_scripts WHERE id = $1";
    /// Selects the saved scripts of a space without their scripts, by name.
    SAVED = "SELECT id, space, name, description, '', sha256, version, updated_by, updated_at FROM saved_scripts WHERE space = $1 \
        ORDER BY name_key";
    /// Selects a saved script by its id or name.
    SAVED_NAMED = "SELECT id, space, name, description, script, sha256, version, updated_by, updated_at FROM saved_scripts \
        WHERE space = $1 AND (id = $2 OR name_key = $3) ORDER BY id LIMIT 1";
}
