//! An agent without a fleet: its policy is a file on the host, and its id its own.
//!
//! The file is a source of policies like a server ([`crate::coordinator::source`]): a change arrives as an action, is stored, and is
//! applied in the same way.

pub mod file;

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::Entropy;
use muster_core::Timestamp;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::chain;

use crate::paths::Layout;
use crate::state::{Enrollment, Phase, State, Store, StoreError, atomic};

/// The policy of a new standalone agent: no inputs, and examples in comments.
const EXAMPLE: &str = include_str!("policy.yml");

/// Returns whether an agent that is not enrolled runs a local policy. An unenrolled agent does not: it left its fleet, and nothing
/// that it was before starts again.
pub fn is_standalone(layout: &Layout, store: &dyn Store) -> bool {
    let (unenrolled, was_standalone) = match store.state() {
        Ok(state) => (state.phase == Phase::Unenrolled, state.standalone_id.is_some()),
        Err(_) => (false, false),
    };
    // Without its file, a standalone agent reports that, and keeps its last policy.
    !unenrolled && (was_standalone || layout.policy_file().symlink_metadata().is_ok())
}

/// Makes a base path that of a standalone agent: writes the example of a policy, unless there is a policy. Does nothing if the agent is
/// enrolled or unenrolled; returns whether it is standalone.
pub fn prepare(layout: &Layout, store: &dyn Store) -> Result<bool, StoreError> {
    if store.enrollment()?.is_some() || store.state().is_ok_and(|state| state.phase == Phase::Unenrolled) {
        return Ok(false);
    }
    let path = layout.policy_file();
    if path.symlink_metadata().is_err() {
        let failed = |source| StoreError::Io { path: path.to_string(), source };
        atomic::replace(&path, EXAMPLE.as_bytes()).map_err(failed)?;
    }
    Ok(true)
}

/// Returns the identity of a standalone agent, in the form of an enrollment without servers. Its id is created once.
pub fn identity(store: &dyn Store, entropy: &dyn Entropy) -> Result<Enrollment, StoreError> {
    let state = match store.state() {
        Ok(state) => state,
        // The policy is read from the file again.
        Err(error @ StoreError::Damaged { .. }) => {
            let aside = store.set_state_aside()?;
            tracing::error!(error = %chain(&error), aside, "starting without state, under a new agent id");
            State::default()
        }
        Err(error) => return Err(error),
    };
    if let Some(id) = &state.standalone_id {
        return Ok(Enrollment::without_server(id.clone()));
    }
    let id = random_uuid(entropy);
    store.save_state(&State { standalone_id: Some(id.clone()), ..state })?;
    Ok(Enrollment::without_server(id))
}

/// Renames the policy file of an agent that has enrolled, so that nobody takes it for the policy in effect. Returns the new path;
/// `None` if there was no file.
pub fn retire(layout: &Layout, now: Timestamp) -> std::io::Result<Option<Utf8PathBuf>> {
    let path = layout.policy_file();
    let kept = Utf8PathBuf::from(format!("{path}.{}.bak", now.to_rfc3339_seconds().replace(':', "-")));
    match fs_err::rename(&path, &kept) {
        Ok(()) => path.parent().map_or(Ok(()), atomic::sync).map(|()| Some(kept)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what the status of a standalone agent says about the fleet.
pub fn describe(policy_file: &Utf8Path) -> String {
    format!("Standalone: not enrolled; the policy is {policy_file}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::entropy::System;
    use crate::state::disk::DiskStore;
    use file::PolicyFile;

    fn base() -> (tempfile::TempDir, Layout, DiskStore) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap().join("agent"));
        let store = DiskStore::new(layout.clone());
        store.prepare().unwrap();
        (directory, layout, store)
    }

    #[test]
    fn ag7_the_example_is_a_private_policy_without_inputs() {
        let (_directory, layout, store) = base();
        assert!(!is_standalone(&layout, &store));
        assert!(prepare(&layout, &store).unwrap() && is_standalone(&layout, &store));
        let mode = fs_err::metadata(layout.policy_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let policy = PolicyFile::new(&layout).read().unwrap();
        assert_eq!(policy["inputs"], serde_json::json!([]));
        // What is commented out must work, too.
        let uncommented: Vec<&str> = EXAMPLE.lines().map(|line| line.strip_prefix("#:").unwrap_or(line)).collect();
        let uncommented = uncommented.join("\n").replace("inputs: []", "");
        fs_err::write(layout.policy_file(), &uncommented).unwrap();
        let policy = PolicyFile::new(&layout).read().unwrap();
        assert!(policy["inputs"].as_array().unwrap().len() >= 2, "{policy:?}");
        assert!(prepare(&layout, &store).unwrap());
        assert_eq!(fs_err::read_to_string(layout.policy_file()).unwrap(), uncommented, "a policy is kept");
    }

    #[test]
    fn ag7_a_standalone_agent_keeps_its_id_until_it_enrolls() {
        let (_directory, layout, store) = base();
        prepare(&layout, &store).unwrap();
        let first = identity(&store, &System).unwrap();
        assert_eq!(identity(&store, &System).unwrap(), first);
        fs_err::remove_file(layout.policy_file()).unwrap();
        assert!(is_standalone(&layout, &store), "it reports the missing file");
        store.save_state(&State::without_policy(Phase::Unenrolled)).unwrap();
        fs_err::write(layout.policy_file(), "").unwrap();
        assert!(!is_standalone(&layout, &store) && !prepare(&layout, &store).unwrap(), "an unenrolled agent stays one");
    }

    #[test]
    fn ag7_the_policy_of_an_agent_that_enrolls_is_kept_aside() {
        let (_directory, layout, _) = base();
        let now = Timestamp::parse_rfc3339("2026-06-01T10:20:30Z").unwrap();
        assert_eq!(retire(&layout, now).unwrap(), None);
        fs_err::write(layout.policy_file(), "inputs: []").unwrap();
        let kept = retire(&layout, now).unwrap().unwrap();
        assert_eq!(kept.file_name(), Some("policy.yml.2026-06-01T10-20-30Z.bak"));
        assert!(kept.is_file() && !layout.policy_file().exists());
    }
}
