//! Installers.

use super::{locked, statements};

macro_rules! installer_columns {
    () => {
        "id, space, name, version, format, platform, file_name, size, sha256, created_by, created_at, uploaded_at"
    };
}

statements! {
    /// Counts the installers of a space.
    INSTALLERS_IN = "SELECT count(*) FROM installers WHERE space = $1";
    /// Sums the lengths of the packages of a space.
    BYTES_IN = "SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM installers WHERE space = $1";
    /// Inserts an installer without its package.
    INSERT_INSTALLER = "INSERT INTO installers (id, space, name, name_key, version, format, platform, file_name, size, sha256, created_by, \
        created_at, condition, install_script, post_install_script, uninstall_script) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING";
    /// Selects an installer, if it lacks its package. Locked: its blocks must not outlive it.
    UPLOADING = concat!("SELECT 1 FROM installers WHERE id = $1 AND uploaded_at IS NULL ", locked!());
    /// Selects an installer, if it has its package.
    UPLOADED = "SELECT 1 FROM installers WHERE id = $1 AND uploaded_at IS NOT NULL";
    /// Completes the package of an installer.
    COMPLETE = "UPDATE installers SET sha256 = $1, uploaded_at = $2 WHERE id = $3 AND uploaded_at IS NULL";
    /// Counts the runs of an installer that hosts may still execute: those that expire after `$2`, and those that expire after `$3` if a
    /// host has begun.
    NEEDED = "SELECT count(*) FROM install_runs AS r WHERE r.installer_id = $1 AND r.finished < r.targets AND r.stopped_at IS NULL \
        AND (r.expires_at > $2 OR (r.expires_at > $3 \
        AND EXISTS (SELECT 1 FROM install_run_hosts AS h WHERE h.run_id = r.id AND h.state = 'begun')))";
    /// Deletes an installer.
    DELETE_INSTALLER = "DELETE FROM installers WHERE id = $1";
    /// Selects installers whose upload was not completed.
    UNFINISHED = "SELECT id FROM installers WHERE uploaded_at IS NULL AND created_at < $1 ORDER BY created_at LIMIT $2";
    /// Selects an installer of a space with its scripts.
    INSTALLER = concat!(
        "SELECT ", installer_columns!(), ", condition, install_script, post_install_script, uninstall_script FROM installers \
         WHERE id = $1 AND space = $2"
    );
    /// Selects the installers of a space without their conditions and scripts.
    INSTALLERS = concat!(
        "SELECT ", installer_columns!(), ", '', '', '', '' FROM installers WHERE space = $1 ORDER BY name_key, version, platform"
    );
}
