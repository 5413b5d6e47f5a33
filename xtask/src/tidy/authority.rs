//! Which files of the services may act with the server's own authority.
//!
//! `System` reads every space and commits without a grant. A service that answers people must not use it for what they
//! asked for, and the compiler cannot tell the two apart within one crate. So each use has its place and its reason here.

use std::path::{Path, PathBuf};

use super::places::TestPlaces;
use super::source::test_module;

const SERVICES: &str = "crates/muster-fleet/src/";
/// The definition, and test doubles.
const EXEMPT: [&str; 2] = ["authority.rs", "testing.rs"];

/// Files, and on whose behalf they act.
const ALLOWED: [(&str, &str); 26] = [
    ("acknowledge.rs", "agents: the actions that they ack"),
    ("actions/effect.rs", "the server: completes the changes of an action that was committed"),
    ("actions/unenroll.rs", "the server: ends what an unenrolled agent leaves open, in every space"),
    ("artifacts.rs", "agents: artifacts of their policy"),
    ("authenticate.rs", "agents before they are known"),
    ("change_feed.rs", "the server: the change log"),
    ("check_in.rs", "agents: what is due"),
    ("enroll.rs", "agents before they are known"),
    ("files.rs", "chunks of a file that was found with the caller's authority"),
    ("housekeeping.rs", "the server"),
    ("housekeeping/agents.rs", "the server: unenroll timeouts"),
    ("housekeeping/change_log.rs", "the server: the change log"),
    ("housekeeping/enrollment_keys.rs", "the server: expired keys"),
    ("inactivity.rs", "the server: inactivity timeouts"),
    ("observation.rs", "the server: sightings"),
    ("policies/first_start.rs", "the server: the default policy"),
    ("policies/mod.rs", "the server: all policies, for background work"),
    ("policies/revise.rs", "the server: policies that its address or key changed"),
    ("records.rs", "agents' records behind a cache that is not of a space"),
    ("reenroll.rs", "the server: second hosts of one agent"),
    ("secrets.rs", "secrets that an authorized object refers to"),
    ("selection.rs", "records of ids that were selected within the caller's space"),
    ("server_status.rs", "the server: settings of the installation"),
    ("status_timer.rs", "the server: statuses and presence"),
    ("uploads.rs", "agents: their own uploads"),
    ("watched_store.rs", "the server: probes"),
];

/// Returns the violations: uses elsewhere, and entries that nothing uses.
pub fn stops(files: &[(PathBuf, String)], places: &TestPlaces) -> Vec<String> {
    let mut used: Vec<&str> = Vec::new();
    let mut stops = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| !places.contain(path)) {
        let Some(file) = service(path).filter(|file| !EXEMPT.contains(file)) else { continue };
        if !uses_system(text) {
            continue;
        }
        if ALLOWED.iter().any(|(allowed, _)| *allowed == file) {
            used.push(file);
        } else {
            stops.push(format!(
                "{SERVICES}{file}: uses the authority `System`; use the caller's, or list it with its reason"
            ));
        }
    }
    let stale = ALLOWED.iter().filter(|(file, _)| !used.contains(file));
    stops
        .extend(stale.map(|(file, _)| format!("{SERVICES}{file}: is listed, but does not use the authority `System`")));
    stops
}

fn service(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(SERVICES)
}

fn uses_system(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let product = &lines[..test_module(&lines)];
    product.iter().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        let code = line.replace("Actor::System", "");
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "System")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops_of(file: &str, text: &str) -> Vec<String> {
        let mut files: Vec<(PathBuf, String)> =
            ALLOWED.iter().map(|(file, _)| (Path::new(SERVICES).join(file), "f(&System)".to_owned())).collect();
        files.push((Path::new(SERVICES).join(file), text.to_owned()));
        stops(&files, &TestPlaces::of(&files))
    }

    #[test]
    fn authority_of_the_server_is_used_in_listed_files_only() {
        assert!(stops_of("outputs.rs", "store.everywhere(&grant)\n// unlike System\nActor::System").is_empty());
        assert_eq!(stops_of("outputs.rs", "store.everywhere(&System)").len(), 1);
        assert!(stops_of("outputs.rs", "#[cfg(test)]\nmod tests {\n    f(&System)\n}").is_empty());
    }

    #[test]
    fn listed_files_that_do_not_use_it_are_reported() {
        assert_eq!(stops(&[], &TestPlaces::of(&[])).len(), ALLOWED.len());
    }
}
