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

/// Files, or directories of one subject, and on whose behalf they act.
const ALLOWED: &[(&str, &str)] = &[
    ("acknowledge.rs", "agents: the actions that they ack"),
    ("actions/effect.rs", "the server: completes the changes of an action that was committed"),
    ("actions/facts.rs", "rules of policies that selected agents are on, which may lie outside of the caller's scope"),
    ("actions/unenroll.rs", "the server: ends what an unenrolled agent leaves open, in every space"),
    (
        "alerts.rs",
        "the server: the newest event, after which a new receiver starts; recent events, of which the caller's space is shown",
    ),
    ("alerts/", "the server: evaluates the rules of all spaces, and its own alerts"),
    ("artifacts.rs", "agents: artifacts of their policy"),
    ("audit_log.rs", "who last changed an object that the caller has found to change it"),
    ("authenticate.rs", "agents before they are known"),
    ("auto_upgrades.rs", "the server: the versions that policies require"),
    ("carves.rs", "agents that the session of a carve identifies: their blocks"),
    ("change_feed.rs", "the server: the change log"),
    ("change_log.rs", "rows of the change log, which are returned only if the caller may read the object"),
    ("check_in/due.rs", "agents: what is due"),
    ("check_in/report.rs", "agents: the actions that their reports name"),
    ("currency.rs", "agents before their cached records are trusted"),
    ("disk_keys.rs", "the server: the agents of all spaces that are to be told"),
    ("enroll.rs", "agents before they are known"),
    ("files.rs", "chunks of a file that was found with the caller's authority"),
    ("housekeeping.rs", "the server"),
    ("host_runs.rs", "the server: the agents of all spaces that have scripts or software to execute"),
    ("housekeeping/agents.rs", "the server: unenroll timeouts"),
    ("housekeeping/change_log.rs", "the server: the change log"),
    ("housekeeping/enrollment_keys.rs", "the server: expired keys"),
    ("housekeeping/retention.rs", "the server: unenrolled agents whose retention in their space has passed"),
    ("idempotency.rs", "the server: keys and responses of requests, by caller"),
    ("identity/devices.rs", "logins of commands, before the user is known"),
    ("identity/federation.rs", "users whom a provider names, before they are known"),
    ("identity/providers.rs", "the providers that a login page offers before the user is known"),
    ("identity/setup.rs", "the server: the first administrator; users before they are known"),
    ("identity/sign_in.rs", "users before they are known"),
    ("identity/spaces.rs", "whether a space exists, before the caller is known; what keeps it from being deleted"),
    ("inactivity.rs", "the server: inactivity timeouts"),
    ("keys.rs", "whether a given secret was that of a revoked key; of other spaces, the caller learns nothing"),
    ("live_queries/running.rs", "the server: the live queries that run in all spaces"),
    ("members.rs", "the server: the servers of the fleet"),
    ("nodes.rs", "the server: its own row, and the list of servers, which belong to no space"),
    ("observation.rs", "the server: sightings"),
    ("output_keys/", "the server: keys of agents at their outputs"),
    ("packages.rs", "packages of muster-agent, which belong to no space"),
    ("policies/first_start.rs", "the server: the default policy"),
    ("policies/mod.rs", "the server: all policies, for background work"),
    ("policies/revise.rs", "the server: policies that its address or key changed"),
    ("policies/turn.rs", "the server: the order of changes in all spaces"),
    ("record_versions.rs", "agents before their cached records are trusted"),
    ("records.rs", "agents' records behind a cache that is not of a space"),
    ("reenroll.rs", "the server: second hosts of one agent"),
    ("removed_files.rs", "the server: the chunks of deleted files of all spaces"),
    ("restoration.rs", "the server: the restore of the whole store"),
    ("rollouts/", "the server: advances rollouts of all spaces"),
    ("secrets.rs", "secrets that an authorized object refers to"),
    ("selection.rs", "records of ids that were selected within the caller's space"),
    ("server_status.rs", "the server: settings of the installation"),
    ("signing_keys.rs", "the server: the keys that sign policies, and revisions that agents run"),
    ("silence.rs", "the server: when its database last answered"),
    ("software.rs", "the server: the index of software of all spaces"),
    ("status_timer.rs", "the server: statuses and presence"),
    ("uploads.rs", "agents: their own uploads"),
    ("urls.rs", "the server: the URLs of the fleet"),
    ("watched_store.rs", "the server: probes"),
];

/// Returns the violations: uses elsewhere, and listed files without one.
pub fn stops(files: &[(PathBuf, String)], places: &TestPlaces) -> Vec<String> {
    let product = files.iter().filter(|(path, _)| !places.contain(path));
    let services = product.filter_map(|(path, text)| Some((service(path)?, text)));
    let mut stops = Vec::new();
    for (file, text) in services.filter(|(file, _)| !EXEMPT.contains(file)) {
        match (entry_of(file), uses_system(text)) {
            (None, true) => stops.push(format!(
                "{SERVICES}{file}: uses the authority `System`; use the caller's, or list the file with its reason"
            )),
            // Of a directory, not every file needs it.
            (Some(entry), false) if entry == file => {
                stops.push(format!("{SERVICES}{file}: is listed, but does not use the authority `System`"));
            }
            _ => {}
        }
    }
    stops
}

/// Returns the entry that lists a file or its directory.
fn entry_of(file: &str) -> Option<&'static str> {
    let lists = |entry: &str| entry == file || (entry.ends_with('/') && file.starts_with(entry));
    ALLOWED.iter().map(|(entry, _)| *entry).find(|entry| lists(entry))
}

fn service(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(SERVICES)
}

/// Other things with the name of the authority.
const OTHERS: [&str; 3] = ["Actor::System", "BindingScope::System", "Kind::System"];

fn uses_system(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let product = &lines[..test_module(&lines)];
    product.iter().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        let code = OTHERS.iter().fold((*line).to_owned(), |code, other| code.replace(other, ""));
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "System")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops_of(file: &str, text: &str) -> usize {
        let files = [(Path::new(SERVICES).join(file), text.to_owned())];
        stops(&files, &TestPlaces::of(&files)).len()
    }

    #[test]
    fn authority_of_the_server_is_used_in_listed_files_only() {
        assert_eq!(stops_of("outputs.rs", "store.everywhere(&grant)\n// unlike System\nActor::System"), 0);
        assert_eq!(stops_of("outputs.rs", "store.everywhere(&System)"), 1);
        assert_eq!(stops_of("outputs.rs", "#[cfg(test)]\nmod tests {\n    f(&System)\n}"), 0);
        for listed in ["uploads.rs", "output_keys/work.rs"] {
            assert_eq!(stops_of(listed, "store.everywhere(&System)"), 0, "{listed}");
        }
    }

    #[test]
    fn listed_files_that_do_not_use_it_are_reported() {
        assert_eq!(stops_of("uploads.rs", "store.everywhere(&grant)"), 1);
        assert_eq!(stops_of("output_keys/work.rs", "store.everywhere(&grant)"), 0);
    }
}
