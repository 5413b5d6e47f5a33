//! Logs of components that have left the model.

use std::collections::BTreeMap;
use std::time::SystemTime;

use camino::{Utf8Path, Utf8PathBuf};

/// Number of such components whose logs are kept, to find out afterwards why one of them has failed. Containers come and go
/// without end, and each has components of its own.
const KEPT: usize = 32;

/// Deletes the logs of all components that are gone, except for those that were written last. `working` is the parent of the
/// working directories, which every component of the model has.
pub(super) fn prune(logs: &Utf8Path, working: &Utf8Path) {
    let Ok(entries) = logs.read_dir_utf8() else { return };
    // By the name of the component, which contains no dot.
    let mut gone: BTreeMap<String, (SystemTime, Vec<Utf8PathBuf>)> = BTreeMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name().split('.').next().unwrap_or_default();
        if name.is_empty() || working.join(name).symlink_metadata().is_ok() {
            continue;
        }
        let written = entry.metadata().and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let (newest, files) = gone.entry(name.to_owned()).or_insert((written, Vec::new()));
        *newest = written.max(*newest);
        files.push(entry.path().to_owned());
    }
    let mut gone: Vec<_> = gone.into_values().collect();
    gone.sort_by_key(|(written, _)| std::cmp::Reverse(*written));
    for path in gone.into_iter().skip(KEPT).flat_map(|(_, files)| files) {
        // Errors are ignored, as when the component is forgotten: the next one tries again.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ag76_only_the_last_logs_of_components_that_are_gone_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(directory.path()).unwrap();
        let (logs, working) = (base.join("logs"), base.join("run"));
        fs_err::create_dir_all(&logs).unwrap();
        fs_err::create_dir_all(working.join("live")).unwrap();
        let old = SystemTime::UNIX_EPOCH;
        let write = |name: &str, written: SystemTime| {
            fs_err::File::create(logs.join(name)).unwrap().set_modified(written).unwrap();
        };
        write("live.log", old);
        ["first.log", "first.log.1", "first.jsonl"].iter().for_each(|name| write(name, old));
        (0..KEPT).for_each(|number| write(&format!("c{number}.log"), old + Duration::from_secs(60)));
        prune(&logs, &working);
        let mut left: Vec<_> =
            logs.read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect();
        left.retain(|name| !name.starts_with('c'));
        assert_eq!(left, ["live.log"]);
        assert_eq!(logs.read_dir_utf8().unwrap().count(), KEPT + 1);
    }
}
