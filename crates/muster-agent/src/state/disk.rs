//! The store on disk.

use std::sync::{Arc, OnceLock};

use camino::Utf8Path;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::enrollment::ENROLLMENT_VERSION;
use super::seal::{Seal, SealError};
use super::{Enrollment, STATE_VERSION, State, Store, StoreError, atomic};
use crate::paths::Layout;
use muster_core::error_chain::SharedError;

/// Maximum size of a document.
const DOCUMENT_MAX: usize = 64 << 20;

/// Stores the documents as sealed files under a base path.
#[derive(Clone, Debug)]
pub struct DiskStore {
    layout: Layout,
    /// The key, loaded when a document is read or written for the first time.
    seal: Arc<OnceLock<Seal>>,
}

impl DiskStore {
    /// Creates a store for this layout.
    pub fn new(layout: Layout) -> Self {
        Self { layout, seal: Arc::default() }
    }

    /// Returns the paths of the agent.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Creates the directories.
    pub fn prepare(&self) -> Result<(), StoreError> {
        atomic::private_dir(self.layout.base()).map_err(|source| io_error(self.layout.base(), source))?;
        for directory in [self.layout.run(), self.layout.logs()] {
            atomic::private_subdir(&directory).map_err(|source| io_error(&directory, source))?;
        }
        Ok(())
    }

    /// Loads a document of a version up to `known`; `None` if there is none.
    pub(crate) fn load<T: DeserializeOwned>(&self, path: &Utf8Path, known: u32) -> Result<Option<T>, StoreError> {
        let Some(sealed) = atomic::read(path).map_err(|source| io_error(path, source))? else { return Ok(None) };
        let damaged = |source: SharedError| StoreError::Damaged { path: path.to_string(), source };
        if sealed.len() > DOCUMENT_MAX {
            return Err(damaged(format!("{} bytes exceed the maximum of {DOCUMENT_MAX}", sealed.len()).into()));
        }
        Seal::check(&sealed).map_err(|error| damaged(error.into()))?;
        // The key is not created here: a new one could not open the document.
        let bytes = self.seal(path, Seal::load)?.open(name(path), &sealed).map_err(|error| damaged(error.into()))?;
        #[derive(serde::Deserialize)]
        struct Versioned {
            version: u64,
        }
        // The version is checked first: a newer document may not have our format, and must not be reported as corrupt.
        let found: Versioned = serde_json::from_slice(&bytes).map_err(|error| damaged(position(&error)))?;
        if found.version > u64::from(known) {
            return Err(StoreError::Newer { path: path.to_string(), found: found.version, known });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(position(&error)))
    }

    /// Replaces a document.
    pub(crate) fn save<T: Serialize>(&self, path: &Utf8Path, document: &T) -> Result<(), StoreError> {
        let damaged = |source: SharedError| StoreError::Damaged { path: path.to_string(), source };
        let bytes = serde_json::to_vec(document).map_err(|error| damaged(error.into()))?;
        let sealed = self.seal(path, Seal::obtain)?.seal(name(path), &bytes).map_err(|error| damaged(error.into()))?;
        atomic::replace(path, &sealed).map_err(|source| io_error(path, source))
    }

    /// Removes a document, durably.
    pub(crate) fn remove(&self, path: &Utf8Path) -> Result<(), StoreError> {
        atomic::remove(path).map_err(|source| io_error(path, source))
    }

    /// Returns whether there is a key which cannot be used on this host, so that nothing can be stored.
    pub fn is_locked(&self) -> bool {
        let has_key = Seal::place(self.layout.base()).is_some();
        has_key && matches!(self.seal(&self.layout.fleet(), Seal::load), Err(StoreError::Locked { .. }))
    }

    /// Replaces a key that cannot be used on this host. What was sealed with it is set aside, with the key itself.
    pub fn renew_key(&self) -> Result<(), StoreError> {
        let sealed = [self.layout.fleet(), self.layout.state(), self.layout.delayed_enrollment()];
        Seal::renew(self.layout.base(), &sealed).map_err(|error| key_error(&self.layout.fleet(), error))
    }

    /// Replaces the key by a new one: that of an image is known to everybody who has the image. systemd encrypts the new
    /// one if that is asked for and possible. Returns the store with this key.
    pub fn with_own_key(&self, as_credential: bool) -> Result<Self, StoreError> {
        let base = self.layout.base();
        let failed = |error| key_error(&self.layout.fleet(), error);
        // Not if an earlier replacement was interrupted: the files may be sealed with the key before.
        if !Seal::is_rotating(base) {
            let encrypted = as_credential.then(|| Seal::rotate(base, true));
            if !matches!(encrypted, Some(Ok(()))) {
                Seal::rotate(base, false).map_err(failed)?;
            }
        }
        let store = Self::new(self.layout.clone());
        if let Some(enrollment) = store.enrollment()? {
            store.save_enrollment(&enrollment)?;
        }
        store.save_state(&store.state()?)?;
        Seal::forget_former(base).map_err(failed)?;
        // Without the former key.
        Ok(Self::new(self.layout.clone()))
    }

    /// Returns the key; `path` is the document for which it is needed.
    fn seal(
        &self,
        path: &Utf8Path,
        get: impl FnOnce(&Utf8Path) -> Result<Seal, SealError>,
    ) -> Result<&Seal, StoreError> {
        if let Some(seal) = self.seal.get() {
            return Ok(seal);
        }
        let seal = get(self.layout.base()).map_err(|error| key_error(path, error))?;
        Ok(self.seal.get_or_init(|| seal))
    }
}

impl Store for DiskStore {
    fn enrollment(&self) -> Result<Option<Enrollment>, StoreError> {
        self.load(&self.layout.fleet(), ENROLLMENT_VERSION)
    }

    fn save_enrollment(&self, enrollment: &Enrollment) -> Result<(), StoreError> {
        self.save(&self.layout.fleet(), enrollment)
    }

    fn forget_enrollment(&self) -> Result<(), StoreError> {
        self.remove(&self.layout.fleet())
    }

    fn state(&self) -> Result<State, StoreError> {
        Ok(self.load(&self.layout.state(), STATE_VERSION)?.unwrap_or_default())
    }

    fn save_state(&self, state: &State) -> Result<(), StoreError> {
        self.save(&self.layout.state(), state)
    }

    fn set_state_aside(&self) -> Result<String, StoreError> {
        let path = self.layout.state();
        // Kept for diagnosis. A later corrupt state replaces it, so that at most one is kept.
        let aside = path.with_extension("enc.damaged");
        fs_err::rename(&path, &aside).map_err(|source| io_error(&path, source))?;
        Ok(aside.into_string())
    }
}

/// Returns where a document cannot be parsed. The reason itself can quote the document, which contains secrets, and goes
/// into logs and diagnostics bundles (AG148).
fn position(error: &serde_json::Error) -> SharedError {
    format!("it cannot be parsed at line {}, column {}", error.line(), error.column()).into()
}

fn io_error(path: &Utf8Path, source: std::io::Error) -> StoreError {
    StoreError::Io { path: path.to_string(), source }
}

fn name(path: &Utf8Path) -> &str {
    path.file_name().unwrap_or_default()
}

fn key_error(document: &Utf8Path, error: SealError) -> StoreError {
    match error {
        SealError::Key { path, source } => StoreError::Io { path: path.into_string(), source },
        error => StoreError::Locked { path: document.to_string(), source: error.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Phase;

    fn store() -> (tempfile::TempDir, DiskStore, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap().join("agent"));
        let store = DiskStore::new(layout.clone());
        store.prepare().unwrap();
        (directory, store, layout)
    }

    #[test]
    fn a_saved_state_is_loaded_again() {
        let (_directory, store, _) = store();
        assert_eq!(store.state().unwrap().phase, Phase::Active);
        store.save_state(&State { ack_token: "t".into(), phase: Phase::Revoked, ..State::default() }).unwrap();
        let state = store.state().unwrap();
        assert_eq!((state.ack_token.as_str(), state.phase), ("t", Phase::Revoked));
    }

    #[test]
    fn a_corrupt_state_is_reported_and_can_be_set_aside() {
        let (_directory, store, layout) = store();
        store.save_state(&State::default()).unwrap();
        let whole = fs_err::read(layout.state()).unwrap();
        fs_err::write(layout.state(), &whole[..whole.len() - 1]).unwrap();
        let error = store.state().unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("state.enc is corrupt"), "{error}");
        let aside = store.set_state_aside().unwrap();
        assert!(Utf8Path::new(&aside).try_exists().unwrap());
        assert_eq!(store.state().unwrap().ack_token, "");
    }

    #[test]
    fn ag148_the_error_of_a_document_that_cannot_be_parsed_quotes_nothing_of_it() {
        let (_directory, store, layout) = store();
        for document in [
            serde_json::json!({"version": "canary"}),
            serde_json::json!({"version": STATE_VERSION, "phase": "canary"}),
            serde_json::json!({"version": STATE_VERSION, "ack_token": {"canary": 1}, "inbox": "canary"}),
        ] {
            store.save(&layout.state(), &document).unwrap();
            let error = muster_core::error_chain::chain(&store.state().unwrap_err()).to_string();
            assert!(error.contains("column") && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_state_of_a_newer_version_is_left_unchanged() {
        let (_directory, store, layout) = store();
        store.save(&layout.state(), &serde_json::json!({"version": 7})).unwrap();
        assert!(matches!(store.state().unwrap_err(), StoreError::Newer { found: 7, .. }));
    }

    #[test]
    fn ag41_documents_are_not_readable_without_the_key() {
        let (_directory, store, layout) = store();
        store.save_state(&State { ack_token: "canary".into(), ..State::default() }).unwrap();
        let bytes = fs_err::read(layout.state()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
        // Another process reads it with the stored key.
        assert_eq!(DiskStore::new(layout.clone()).state().unwrap().ack_token, "canary");
        fs_err::remove_file(layout.base().join("secret.key")).unwrap();
        let without_key = DiskStore::new(layout);
        let error = without_key.state().unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }) && error.to_string().contains("secret.key does not exist"));
        assert!(!without_key.is_locked(), "a new key can be created");
    }

    #[test]
    fn ag91_the_key_of_an_image_is_replaced_and_the_documents_are_kept() {
        let (_directory, store, layout) = store();
        store.save_state(&State { ack_token: "t".into(), ..State::default() }).unwrap();
        store.save_enrollment(&Enrollment::without_server("a".into())).unwrap();
        let before = fs_err::read(layout.base().join("secret.key")).unwrap();
        let own = store.with_own_key(false).unwrap();
        assert_ne!(fs_err::read(layout.base().join("secret.key")).unwrap(), before);
        assert!(!layout.base().join("secret.key.former").try_exists().unwrap());
        assert_eq!(
            (own.state().unwrap().ack_token.as_str(), own.enrollment().unwrap().unwrap().agent_id.as_str()),
            ("t", "a")
        );
        // Interrupted before the documents were sealed again.
        Seal::rotate(layout.base(), false).unwrap();
        let completed = own.with_own_key(false).unwrap();
        assert_eq!(completed.state().unwrap().ack_token, "t");
        assert!(!Seal::is_rotating(layout.base()));
    }

    #[test]
    fn ag91_a_key_that_cannot_be_used_is_no_corrupt_document_and_can_be_replaced() {
        let (_directory, store, layout) = store();
        store.save_state(&State { ack_token: "t".into(), ..State::default() }).unwrap();
        fs_err::write(layout.base().join("secret.key"), b"of another host").unwrap();
        let copy = DiskStore::new(layout);
        assert!(matches!(copy.state().unwrap_err(), StoreError::Locked { .. }) && copy.is_locked());
        copy.renew_key().unwrap();
        assert!(!copy.is_locked());
        assert_eq!(copy.state().unwrap().ack_token, "");
        copy.save_state(&State::default()).unwrap();
    }
}
