//! The record of an upgrade in progress, `upgrade.json`, and what follows from it when the daemon starts.

use std::collections::BTreeSet;
use std::str::FromStr;

use muster_core::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::disk::Disk;
use crate::homes::HomeName;
use crate::paths::Layout;
use crate::state::StoreError;

/// Version of the document.
const RECORD_VERSION: u32 = 1;
/// Number of starts of the new version before the watcher's verdict. More mean that it crashes, or that the host does.
pub const STARTS_MAX: u32 = 5;

/// How far an upgrade is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The new home is complete, and the link is about to be changed.
    Switching,
    /// The new version has started, and the watcher has not decided.
    Watching,
    /// The watcher has accepted the new version.
    Kept,
    /// The link leads, or is about to lead, to the previous version.
    RolledBack,
}

/// What the new version must achieve: what the previous one did before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Whether the server was reachable.
    pub connected: bool,
    /// Components that had failed already.
    pub failed: BTreeSet<String>,
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 1.
    pub version: u32,
    /// Id of this switch, random. A watcher of another one ends.
    pub id: String,
    /// Action that requested it; empty for a command on the host.
    pub action_id: String,
    /// The previous version.
    #[serde(with = "name")]
    pub from: HomeName,
    /// The new version.
    #[serde(with = "name")]
    pub to: HomeName,
    /// How far it is.
    pub step: Step,
    /// Why the previous version runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often the new version has started.
    #[serde(default)]
    pub starts: u32,
    /// How often a service manager has begun to start the new version, which may end before it can count.
    #[serde(default)]
    pub guarded: u32,
    /// What the new version must achieve.
    #[serde(default)]
    pub terms: Terms,
}

/// A version that can be activated again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its version.
    pub version: String,
    /// When its home is removed (RFC 3339).
    pub valid_until: String,
}

/// Homes as their names.
mod name {
    use super::{Deserialize, Deserializer, FromStr, HomeName, Serializer};

    /// Writes the name.
    pub fn serialize<S: Serializer>(name: &HomeName, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name.as_str())
    }

    /// Reads a name. A malformed one is an error, because a path is made from it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HomeName, D::Error> {
        HomeName::from_str(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Record {
    /// Creates the record of a switch that is about to begin.
    pub fn new(id: String, action_id: String, from: HomeName, to: HomeName, terms: Terms) -> Self {
        let step = Step::Switching;
        Self { version: RECORD_VERSION, id, action_id, from, to, step, reason: None, starts: 0, guarded: 0, terms }
    }

    /// Returns the record after the decision to go back.
    #[must_use]
    pub fn rolled_back(&self, reason: &str) -> Self {
        Self { step: Step::RolledBack, reason: Some(reason.to_owned()), ..self.clone() }
    }

    /// Loads the record; `None` if no upgrade is in progress.
    pub fn load(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, StoreError> {
        let path = layout.upgrade();
        let io = |source| StoreError::Io { path: path.to_string(), source };
        let Some(bytes) = disk.read(&path).map_err(io)? else { return Ok(None) };
        let record: Self = serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Damaged { path: path.to_string(), source: error.into() })?;
        if record.version > RECORD_VERSION {
            let (found, known) = (u64::from(record.version), RECORD_VERSION);
            return Err(StoreError::Newer { path: path.to_string(), found, known });
        }
        Ok(Some(record))
    }

    /// Returns the document.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What a daemon must do about a record when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The new version runs: store this record, and let it be watched.
    Watch(Record),
    /// Accepted: clean up.
    Finish,
    /// The previous version runs again: report it, and clean up.
    Report,
    /// The wrong version runs: store this record, activate the previous version, and become it.
    GoBack(Record),
    /// The upgrade was interrupted before the link was changed: remove what it has prepared.
    Discard,
}

/// Decides what a daemon of version `running` does, when the link leads to `active`.
pub fn recover(record: &Record, running: &HomeName, active: Option<&HomeName>) -> Recovery {
    if *running == record.to {
        return recover_new(record);
    }
    match record.step {
        Step::RolledBack => Recovery::Report,
        Step::Kept => Recovery::Finish,
        // The previous version was started although the new one is active, so that the link must agree with it again.
        Step::Switching | Step::Watching if active == Some(&record.to) => {
            Recovery::GoBack(record.rolled_back("the previous version was started"))
        }
        Step::Watching => Recovery::GoBack(record.rolled_back("the previous version was activated")),
        Step::Switching => Recovery::Discard,
    }
}

fn recover_new(record: &Record) -> Recovery {
    match record.step {
        Step::Kept => Recovery::Finish,
        // A crash between the record and the link.
        Step::RolledBack => Recovery::GoBack(record.clone()),
        Step::Switching | Step::Watching => {
            let starts = record.starts.saturating_add(1);
            let next = Record { step: Step::Watching, starts, ..record.clone() };
            // Without this, a version that crashes at every start of the host would never be watched long enough.
            if starts > STARTS_MAX {
                return Recovery::GoBack(next.rolled_back(&format!("it was started {STARTS_MAX} times")));
            }
            Recovery::Watch(next)
        }
    }
}

/// Counts a start by a service manager. Returns the record to store, and whether the previous version must be activated.
pub fn guard(record: &Record, active: Option<&HomeName>) -> Option<(Record, bool)> {
    // Nothing to count: it is accepted, or the previous version is what starts.
    if record.step == Step::Kept || active != Some(&record.to) {
        return None;
    }
    // A crash between the record and the link.
    if record.step == Step::RolledBack {
        return Some((record.clone(), true));
    }
    let next = Record { guarded: record.guarded.saturating_add(1), ..record.clone() };
    if next.guarded <= STARTS_MAX {
        return Some((next, false));
    }
    Some((next.rolled_back(&format!("it was started {STARTS_MAX} times")), true))
}

/// Returns the homes that may be removed after an upgrade: all but the active and the running version (AG128), and those
/// that can still be activated.
pub fn removable<'a>(
    installed: &'a [HomeName],
    protected: &[Option<&HomeName>],
    kept: &[HomeName],
) -> Vec<&'a HomeName> {
    installed.iter().filter(|name| !protected.contains(&Some(*name)) && !kept.contains(name)).collect()
}

/// Returns until when the previous version is kept after an upgrade.
pub fn kept_until(now: Timestamp) -> Timestamp {
    now.plus(std::time::Duration::from_secs(7 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::disk::HostDisk;

    fn home(number: u8) -> HomeName {
        HomeName::new(&format!("0.{number}.0"), &[number; 32]).unwrap()
    }

    fn record(step: Step) -> Record {
        let new = Record::new("id".into(), "action".into(), home(1), home(2), Terms::default());
        Record { step, ..new }
    }

    #[test]
    fn the_new_version_is_watched_and_goes_back_if_it_starts_too_often() {
        let (old, new) = (home(1), home(2));
        let mut record = record(Step::Switching);
        for starts in 1..=STARTS_MAX {
            let Recovery::Watch(next) = recover(&record, &new, Some(&new)) else { panic!("start {starts}") };
            assert_eq!((next.step, next.starts), (Step::Watching, starts));
            record = next;
        }
        let Recovery::GoBack(back) = recover(&record, &new, Some(&new)) else { panic!("too many starts") };
        assert_eq!(recover(&back, &new, Some(&new)), Recovery::GoBack(back.clone()), "a crash before the link");
        assert_eq!(recover(&back, &old, Some(&old)), Recovery::Report);
    }

    #[test]
    fn a_version_that_ends_before_it_counts_its_starts_goes_back_too() {
        let mut record = record(Step::Switching);
        assert_eq!(guard(&record, Some(&home(1))), None, "the previous version is started");
        for _ in 0..STARTS_MAX {
            let Some((next, false)) = guard(&record, Some(&home(2))) else { panic!("{}", record.guarded) };
            record = next;
        }
        let Some((back, true)) = guard(&record, Some(&home(2))) else { panic!("too many starts") };
        assert_eq!(back.step, Step::RolledBack);
        assert_eq!(guard(&back, Some(&home(2))), Some((back.clone(), true)), "a crash before the link");
        assert_eq!(guard(&back, Some(&home(1))), None);
    }

    #[test]
    fn the_running_version_and_the_link_agree_after_every_start() {
        let (old, new) = (home(1), home(2));
        assert_eq!(recover(&record(Step::Switching), &old, Some(&old)), Recovery::Discard);
        for step in [Step::Switching, Step::Watching] {
            assert!(matches!(recover(&record(step), &old, Some(&new)), Recovery::GoBack(_)), "{step:?}");
        }
        assert!(matches!(recover(&record(Step::Watching), &old, Some(&old)), Recovery::GoBack(_)));
        assert_eq!(recover(&record(Step::Kept), &new, Some(&new)), Recovery::Finish);
        assert_eq!(recover(&record(Step::Kept), &old, Some(&old)), Recovery::Finish);
    }

    #[test]
    fn ag128_the_active_and_the_running_version_are_never_removable() {
        let all = [home(1), home(2), home(3), home(4)];
        let removable = removable(&all, &[Some(&all[0]), Some(&all[1])], &all[2..3]);
        assert_eq!(removable, [&all[3]]);
    }

    #[test]
    fn a_stored_record_is_loaded_and_a_corrupt_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(camino::Utf8Path::from_path(directory.path()).unwrap());
        let load = || Record::load(&HostDisk, &layout);
        assert_eq!(load().unwrap(), None);
        let stored = record(Step::Watching).rolled_back("why");
        HostDisk.replace(&layout.upgrade(), &stored.to_bytes()).unwrap();
        assert_eq!(load().unwrap(), Some(stored));
        let mut evil: serde_json::Value = serde_json::from_slice(&record(Step::Kept).to_bytes()).unwrap();
        evil["to"] = "../../etc-000000000000".into();
        HostDisk.replace(&layout.upgrade(), evil.to_string().as_bytes()).unwrap();
        assert!(matches!(load(), Err(StoreError::Damaged { .. })));
    }
}
