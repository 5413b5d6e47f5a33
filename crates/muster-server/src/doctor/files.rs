//! The data directory and its files.

use muster_core::error_chain::chain;
use std::os::unix::fs::PermissionsExt as _;

use fs_err as fs;
use nix::unistd::{AccessFlags, access};

use super::Finding;
use super::network::is_running;
use crate::config::Config;
use crate::data_dir::{DATABASE, MASTER_KEY, suitable};

const DIRECTORY: &str = "data directory";
const SECRETS: &str = "secret files";
const MASTER: &str = "master key";

/// Files that only their owner may read.
const PRIVATE: [&str; 3] = [MASTER_KEY, "server.key", DATABASE];

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let path = &config.data_dir;
    // The link itself is looked at: a link to nowhere is a mistake, not a first start.
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return vec![Finding::ok(DIRECTORY, format!("{path} does not exist yet: the first start creates it"))];
    }
    let directory = match suitable::check(path) {
        Ok(()) => Finding::ok(DIRECTORY, path.as_str()),
        Err(error) => {
            let text = chain(&error).to_string();
            let (message, remedy) = text.split_once("\nhint: ").unwrap_or((&text, "check the directory and its owner"));
            Finding::error(DIRECTORY, message, remedy)
        }
    };
    vec![directory, secrets(config), master_key(config)]
}

/// Examines the destination of the logs of hosts.
pub(super) fn host_logs(config: &Config) -> Finding {
    const CHECK: &str = "logs of hosts";
    let Some(path) = &config.host_logs else {
        if is_running(config) {
            let message = "not set in this configuration (osquery.log_directory); the running server may have been started with flags";
            return Finding::ok(CHECK, message);
        }
        return Finding::ok(CHECK, "discarded: set osquery.log_directory to keep the log lines of osquery");
    };
    let remedy = "create it, owned by the server's user (osquery.log_directory)";
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Finding::error(CHECK, format!("{path} is not a directory"), remedy),
        // Writing and searching are needed to create files; reading the directory is not.
        Ok(_) if access(path.as_std_path(), AccessFlags::W_OK | AccessFlags::X_OK).is_err() => {
            Finding::error(CHECK, format!("{path} is not writable"), remedy)
        }
        Ok(_) => Finding::ok(CHECK, path.as_str()),
        Err(error) => Finding::error(CHECK, format!("cannot use {path}: {error}"), remedy),
    }
}

fn secrets(config: &Config) -> Finding {
    let mode = |name: &str| {
        let file = fs::metadata(config.data_dir.join(name)).ok()?;
        Some(file.permissions().mode() & 0o777).filter(|mode| mode & 0o077 != 0)
    };
    // A file that is missing is reported elsewhere, if it must exist.
    let exposed: Vec<_> = PRIVATE.iter().filter_map(|name| Some((*name, mode(name)?))).collect();
    match exposed.first() {
        None => Finding::ok(SECRETS, "readable by their owner only"),
        Some((name, mode)) => {
            let path = config.data_dir.join(name);
            let message = format!("{path} is readable by other users (mode {mode:o})");
            Finding::error(SECRETS, message, format!("check who may have read it, then: chmod 600 {path}"))
        }
    }
}

fn master_key(config: &Config) -> Finding {
    let (path, is_named) = match &config.master_key_file {
        Some(path) => (path.clone(), true),
        None => (config.data_dir.join(MASTER_KEY), false),
    };
    // If in doubt, there is a fleet: the remedy for a lost key must not be to create another one.
    let has_fleet = config.data_dir.join(DATABASE).as_std_path().try_exists().unwrap_or(true);
    match fs::metadata(&path) {
        // The length is all that can be checked without a database.
        Ok(file) if file.len() == 32 => Finding::ok(MASTER, path.as_str()),
        Ok(file) => {
            Finding::error(MASTER, format!("{path} has {} bytes instead of 32", file.len()), "restore it from a copy")
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !has_fleet && !is_named => {
            Finding::ok(MASTER, "none yet: the first start creates it; with a shared database, copy that of the fleet")
        }
        Err(error) => {
            let remedy = "restore it from a copy; without it, secrets in the database cannot be decrypted";
            Finding::error(MASTER, format!("cannot read {path}: {error}"), remedy)
        }
    }
}
