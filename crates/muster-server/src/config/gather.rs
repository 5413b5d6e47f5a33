//! Collects the configuration layers of this process: the file and the environment.

use std::collections::BTreeMap;
use std::io;

use camino::Utf8PathBuf;

use super::problem::{Problem, Problems, Source};
use super::source::Entry;
use super::{Layers, Loaded, load};

/// Configuration file that is read if no other file is specified.
pub const DEFAULT_FILE: &str = "/etc/muster/muster.toml";

/// Reads the configuration of this process. `file` is the value of `--config`. Without it, the file is `MUSTER_CONFIG`,
/// or [`DEFAULT_FILE`] if that exists.
pub fn from_process(file: Option<&str>, flags: Vec<Entry>, assignments: Vec<String>) -> Result<Loaded, Problems> {
    let environment = environment();
    let named = file.map(str::to_owned).or_else(|| environment.get("MUSTER_CONFIG").cloned());
    let root = nix::unistd::geteuid().is_root();
    load(&Layers { file: read(named)?, environment, flags, assignments, root })
}

/// Returns the data directory that `muster serve` would use on this host, for other commands.
pub fn data_dir() -> Result<Utf8PathBuf, Problems> {
    Ok(from_process(None, Vec::new(), Vec::new())?.config.data_dir)
}

/// Returns the environment. Omits variables that are not valid Unicode, which cannot be Muster's.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn read(named: Option<String>) -> Result<Option<(String, String)>, Problems> {
    let optional = named.is_none();
    let path = named.unwrap_or_else(|| DEFAULT_FILE.to_owned());
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        // Only the default file is optional: a file that the user specifies must exist.
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let reason = format!("cannot read the file: {error}");
            Err(Problems(vec![Problem { source: Source::Flag(path), key: String::new(), reason }]))
        }
    }
}
