//! Encryption of files at rest (AG41).
//!
//! A sealed file is one AES-256-GCM message with the name of the file as associated data, so that a truncated file, or
//! one that was copied over another, cannot be opened (AG42). The key is a credential of systemd where there is one,
//! and otherwise a file. It protects copies of the directory, such as backups, and not against root.

use muster_core::error_chain::chain;
use std::io::Write as _;
use std::process::{Command, Stdio};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use camino::{Utf8Path, Utf8PathBuf};
use muster_core::Entropy;
use muster_core::entropy::random_bytes;

use super::atomic;
use crate::entropy::System;

/// Beginning of every sealed file; contains the version of the format.
const MAGIC: &[u8] = b"MUSTER-SEALED-1\n";
/// Length of the key.
const KEY_LEN: usize = 32;
/// Name of the credential in the unit and for `systemd-creds`.
pub const CREDENTIAL: &str = "muster-agent-key";
/// File with the key.
const KEY_FILE: &str = "secret.key";
/// File with the key, encrypted by systemd.
const CREDENTIAL_FILE: &str = "secret.cred";

/// Where a key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// A file that only the agent can read.
    File(Utf8PathBuf),
    /// A credential that systemd decrypts, with the TPM if the host has one.
    Credential(Utf8PathBuf),
}

impl std::fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {path}"),
            Self::Credential(path) => write!(f, "systemd credential {path}"),
        }
    }
}

/// Why a file cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key cannot be read or written.
    #[error("{path}: {source}")]
    Key {
        /// The file of the key.
        path: Utf8PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// There is no key.
    #[error("the key {0} does not exist")]
    NoKey(Utf8PathBuf),
    /// The key has another length.
    #[error("the key {path} has {length} bytes instead of 32")]
    KeyLength {
        /// The file of the key.
        path: Utf8PathBuf,
        /// Its length.
        length: usize,
    },
    /// systemd cannot encrypt or decrypt the key.
    #[error("systemd-creds {verb}: {message}")]
    Credential {
        /// `encrypt` or `decrypt`.
        verb: &'static str,
        /// Its error output.
        message: String,
    },
    /// The file does not begin as a sealed file does.
    #[error("it is not a sealed file")]
    NotSealed,
    /// The file was changed or truncated, or sealed with another key or under another name.
    #[error("it was changed, or sealed with another key")]
    Changed,
    /// The cipher failed.
    #[error("the cipher failed")]
    Cipher,
}

/// Seals and opens the files of one directory.
pub struct Seal {
    key: LessSafeKey,
    place: KeyPlace,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Seal {
    /// Returns where the key of `directory` is; `None` if it has no key.
    pub fn place(directory: &Utf8Path) -> Option<KeyPlace> {
        let (file, credential) = (directory.join(KEY_FILE), directory.join(CREDENTIAL_FILE));
        let exists = |path: &Utf8PathBuf| path.symlink_metadata().is_ok();
        if exists(&credential) {
            return Some(KeyPlace::Credential(credential));
        }
        exists(&file).then_some(KeyPlace::File(file))
    }

    /// Loads the key of `directory`.
    pub fn load(directory: &Utf8Path) -> Result<Self, SealError> {
        let place = Self::place(directory).ok_or_else(|| SealError::NoKey(directory.join(KEY_FILE)))?;
        let (path, bytes) = match &place {
            KeyPlace::File(path) => {
                let read = atomic::read(path).map_err(|source| SealError::Key { path: path.clone(), source })?;
                (path, read.ok_or_else(|| SealError::NoKey(path.clone()))?)
            }
            KeyPlace::Credential(path) => (path, credential(path)?),
        };
        Self::of(&bytes, path, place.clone())
    }

    /// Loads the key of `directory`, or creates one in a file.
    pub fn obtain(directory: &Utf8Path) -> Result<Self, SealError> {
        if Self::place(directory).is_none() {
            let path = directory.join(KEY_FILE);
            let key: [u8; KEY_LEN] = random_bytes(&System);
            atomic::replace(&path, &key).map_err(|source| SealError::Key { path, source })?;
        }
        // Loaded from disk in any case, which proves that the next start can do the same.
        Self::load(directory)
    }

    /// Creates a key for `directory` that systemd encrypts, unless there is a key.
    pub fn create_credential(directory: &Utf8Path) -> Result<(), SealError> {
        if Self::place(directory).is_some() {
            return Ok(());
        }
        let key: [u8; KEY_LEN] = random_bytes(&System);
        let encrypted = systemd_creds("encrypt", "-", &key)?;
        let path = directory.join(CREDENTIAL_FILE);
        atomic::replace(&path, &encrypted).map_err(|source| SealError::Key { path, source })
    }

    /// Seals the contents of the file `name`.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        // Random, because no counter survives a restart. An agent writes far fewer files than the 2^32 for which this
        // is safe.
        let nonce: [u8; NONCE_LEN] = random_bytes(&System as &dyn Entropy);
        let mut body = plain.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce_used, Aad::from(name.as_bytes()), &mut body)
            .map_err(|_| SealError::Cipher)?;
        Ok([MAGIC, &nonce, &body].concat())
    }

    /// Returns the contents of the sealed file `name`.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        // Without the beginning, the file is not one of ours, or was written by another version.
        let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::NotSealed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Changed)?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut body);
        let length = plain.map_err(|_| SealError::Changed)?.len();
        body.truncate(length);
        Ok(body)
    }

    /// Returns where the key is.
    pub fn key_place(&self) -> &KeyPlace {
        &self.place
    }

    fn of(bytes: &[u8], path: &Utf8Path, place: KeyPlace) -> Result<Self, SealError> {
        let wrong = |_| SealError::KeyLength { path: path.to_owned(), length: bytes.len() };
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(wrong)?;
        Ok(Self { key: LessSafeKey::new(key), place })
    }
}

/// Returns the decrypted credential: from the unit's directory, or from systemd for commands outside of the unit.
fn credential(path: &Utf8Path) -> Result<Vec<u8>, SealError> {
    if let Ok(directory) = std::env::var("CREDENTIALS_DIRECTORY") {
        let loaded = Utf8Path::new(&directory).join(CREDENTIAL);
        if let Ok(Some(bytes)) = atomic::read(&loaded) {
            return Ok(bytes);
        }
    }
    systemd_creds("decrypt", path.as_str(), &[])
}

/// Runs `systemd-creds` with the key on its standard input and output, never in its arguments.
fn systemd_creds(verb: &'static str, input: &str, stdin: &[u8]) -> Result<Vec<u8>, SealError> {
    let failed = |message: String| SealError::Credential { verb, message };
    let mut command = Command::new("systemd-creds");
    command.arg(format!("--name={CREDENTIAL}")).args([verb, input, "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(chain(&error).to_string()))?;
    if let Some(mut pipe) = child.stdin.take() {
        // The pipe is dropped afterwards, which ends the input.
        pipe.write_all(stdin).map_err(|error| failed(chain(&error).to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| failed(chain(&error).to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal() -> (tempfile::TempDir, Utf8PathBuf, Seal) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().to_owned();
        let seal = Seal::obtain(&path).unwrap();
        (directory, path, seal)
    }

    #[test]
    fn a_sealed_file_is_opened_with_the_stored_key_only() {
        let (_keep, path, seal) = seal();
        let sealed = seal.seal("fleet.enc", b"access key").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"access"));
        assert_eq!(Seal::load(&path).unwrap().open("fleet.enc", &sealed).unwrap(), b"access key");
        assert_eq!(seal.key_place(), &KeyPlace::File(path.join("secret.key")));
        let (_other, _, other) = self::seal();
        assert!(matches!(other.open("fleet.enc", &sealed), Err(SealError::Changed)));
    }

    #[test]
    fn ag42_a_truncated_exchanged_or_changed_file_is_rejected() {
        let (_keep, _, seal) = seal();
        let sealed = seal.seal("state.enc", b"policy").unwrap();
        for length in 0..sealed.len() {
            assert!(seal.open("state.enc", &sealed[..length]).is_err(), "{length}");
        }
        assert!(matches!(seal.open("fleet.enc", &sealed), Err(SealError::Changed)));
        let mut changed = sealed.clone();
        changed[MAGIC.len() + NONCE_LEN] ^= 1;
        assert!(matches!(seal.open("state.enc", &changed), Err(SealError::Changed)));
        assert!(matches!(seal.open("state.enc", b"{}"), Err(SealError::NotSealed)));
    }

    #[test]
    fn a_key_of_another_length_is_rejected() {
        let (_keep, path, _) = seal();
        fs_err::write(path.join("secret.key"), b"short").unwrap();
        assert!(matches!(Seal::load(&path), Err(SealError::KeyLength { length: 5, .. })));
        fs_err::remove_file(path.join("secret.key")).unwrap();
        assert!(matches!(Seal::load(&path), Err(SealError::NoKey(_))));
    }
}
