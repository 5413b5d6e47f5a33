//! The clock, the disk, and the limit on open files.

use std::time::Duration;

use fs_err as fs;
use muster_core::time::Timestamp;
use muster_store::Examined;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;

use super::Finding;
use crate::config::Config;
use crate::data_dir::DATABASE;

/// Maximum difference of clocks: the comparison is accurate to a few seconds.
const TOLERATED: i64 = 30_000_000;
/// Free bytes below which the store may become read-only at any time.
const LEAST_FREE: u64 = 32 << 20;
/// Open files of a server with few agents; each connection needs one more.
const FEW_FILES: u64 = 1024;

pub(super) fn clock(config: &Config, now: Timestamp, examined: Option<&Examined>) -> Finding {
    const CHECK: &str = "clock";
    const REMEDY: &str = "synchronize the clock, for example with chrony or systemd-timesyncd";
    if let Some(database) = examined.and_then(|examined| examined.now) {
        let difference = now.as_micros().saturating_sub(database.as_micros());
        if difference.abs() > TOLERATED {
            let seconds = difference / 1_000_000;
            return Finding::warning(CHECK, format!("differs from the database's by {seconds} s"), REMEDY);
        }
        return Finding::ok(CHECK, format!("{}, as the database's", now.to_rfc3339_seconds()));
    }
    // The last write to the database was in the past, unless the clock was set back.
    let written = fs::metadata(config.data_dir.join(DATABASE)).and_then(|file| file.modified()).ok();
    let since_1970 = written.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let ahead = since_1970.and_then(|at| at.checked_sub(Duration::from_micros(u64::try_from(now.as_micros()).ok()?)));
    match ahead {
        Some(ahead) if ahead > Duration::from_secs(60) => {
            let message = format!("the database was written {} s in the future", ahead.as_secs());
            Finding::error(CHECK, message, REMEDY)
        }
        _ => Finding::ok(CHECK, now.to_rfc3339_seconds()),
    }
}

pub(super) fn disk(config: &Config) -> Finding {
    const CHECK: &str = "disk space";
    // Of the directory that will contain the data directory if it does not exist yet.
    let exists = |path: &&camino::Utf8Path| path.as_std_path().try_exists().unwrap_or(false);
    let Some(path) = config.data_dir.ancestors().find(exists) else {
        return Finding::error(CHECK, format!("{} has no parent directory", config.data_dir), "check the path");
    };
    let Ok(disk) = statvfs(path.as_std_path()) else {
        return Finding::warning(CHECK, format!("cannot read the free space of {path}"), "check the file system");
    };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let message = format!("{} MiB free on the disk of {path}", free >> 20);
    if free < LEAST_FREE {
        return Finding::error(CHECK, message, "free space: the store becomes read-only when the disk is full");
    }
    if free < config.uploads.min_free_bytes {
        let remedy = "free space: uploads are rejected below uploads.min_free_bytes";
        return Finding::warning(CHECK, message, remedy);
    }
    Finding::ok(CHECK, message)
}

pub(super) fn open_files(config: &Config) -> Finding {
    const CHECK: &str = "open files";
    // A server raises its limit to the hard one.
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Finding::warning(CHECK, "the limit cannot be read", "check ulimit -Hn");
    };
    let wanted = config.max_connections.saturating_add(FEW_FILES);
    let message = format!("at most {hard}, one for each connection");
    if hard < wanted {
        let remedy = format!("raise the hard limit to {wanted} or more (LimitNOFILE= of the systemd unit)");
        return Finding::warning(CHECK, message, remedy);
    }
    Finding::ok(CHECK, message)
}
