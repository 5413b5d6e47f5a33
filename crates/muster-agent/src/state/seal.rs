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
/// File with the key that the current one replaces, as long as files may be sealed with it.
const FORMER_FILE: &str = "secret.key.former";
/// Ending of what cannot be used on this host. It is kept, because an administrator may be able to.
const UNUSABLE: &str = "unusable";

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

impl KeyPlace {
    /// Returns the place, and for a credential also what it was encrypted with.
    pub fn described(&self) -> String {
        let Self::Credential(path) = self else { return self.to_string() };
        let with = std::fs::read_to_string(path).ok().and_then(|text| encrypted_with(&text));
        with.map_or_else(|| self.to_string(), |with| format!("{self}, encrypted with {with}"))
    }
}

/// Returns what a credential was encrypted with: it begins with an id of the kind of key, in Base64 like the rest (`systemd-creds(1)`).
fn encrypted_with(credential: &str) -> Option<&'static str> {
    match credential.get(..21)? {
        "k6iUCUh0RJCQyvL8k8q1U" => Some("the TPM and the key of the host"),
        "DHzAexF2RZGcSwvqCLwg/" => Some("the TPM"),
        "Whxqht+dQJax1aZeCGLxm" => Some("the key of the host"),
        _ => None,
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
    /// systemd cannot encrypt a key on this host.
    #[error("systemd-creds encrypt: {0}")]
    Encrypt(String),
    /// systemd cannot decrypt the key: it belongs to another host, or this one has lost its TPM or host key.
    #[error("the key {path} was encrypted on another host, or for another TPM (systemd-creds decrypt: {message})")]
    Decrypt {
        /// The credential.
        path: Utf8PathBuf,
        /// Error output of systemd.
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
    /// Opens what was sealed before a replacement of the key that is not complete.
    former: Option<LessSafeKey>,
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
        let (bytes, place) = current(directory)?;
        let path = directory.join(FORMER_FILE);
        let former = atomic::read(&path).map_err(|source| SealError::Key { path: path.clone(), source })?;
        let former = former.map(|bytes| key(&bytes, &path)).transpose()?;
        let key = match &place {
            KeyPlace::File(path) | KeyPlace::Credential(path) => key(&bytes, path)?,
        };
        Ok(Self { key, former, place })
    }

    /// Loads the key of `directory`, or creates one in a file.
    pub fn obtain(directory: &Utf8Path) -> Result<Self, SealError> {
        if Self::place(directory).is_none() {
            create_file(directory)?;
        }
        // Loaded from disk in any case, which proves that the next start can do the same.
        Self::load(directory)
    }

    /// Creates a key for `directory` that systemd encrypts, unless there is a key.
    pub fn create_credential(directory: &Utf8Path) -> Result<(), SealError> {
        if Self::place(directory).is_some() {
            return Ok(());
        }
        create_credential(directory)
    }

    /// Replaces the key by a new one, which systemd encrypts or which is in a file. Files stay readable with the former key,
    /// until [`Seal::forget_former`] is called; they must be sealed again before.
    pub fn rotate(directory: &Utf8Path, as_credential: bool) -> Result<(), SealError> {
        let (bytes, place) = current(directory)?;
        let path = directory.join(FORMER_FILE);
        // First: at every moment, each file can be opened with one of the two keys.
        atomic::replace(&path, &bytes).map_err(|source| SealError::Key { path, source })?;
        if as_credential {
            create_credential(directory)?;
        } else {
            create_file(directory)?;
        }
        // A credential precedes a file, so that the order of these steps is that in which a crash does no harm.
        match place {
            KeyPlace::File(path) if as_credential => remove(&path),
            KeyPlace::Credential(path) if !as_credential => remove(&path),
            _ => Ok(()),
        }
    }

    /// Returns whether a replacement of the key is not complete.
    pub fn is_rotating(directory: &Utf8Path) -> bool {
        directory.join(FORMER_FILE).symlink_metadata().is_ok()
    }

    /// Removes the former key. Nothing may be sealed with it any more.
    pub fn forget_former(directory: &Utf8Path) -> Result<(), SealError> {
        remove(&directory.join(FORMER_FILE))
    }

    /// Sets a key aside that cannot be used on this host, and what is sealed with it. Creates a key of the same kind, if
    /// that is possible.
    pub fn renew(directory: &Utf8Path, sealed: &[Utf8PathBuf]) -> Result<(), SealError> {
        let place = Self::place(directory);
        let key = match &place {
            Some(KeyPlace::File(path) | KeyPlace::Credential(path)) => Some(path.clone()),
            None => None,
        };
        // The key last: until then, the next attempt finds it unusable, and continues.
        for path in sealed.iter().chain(&key).filter(|path| path.symlink_metadata().is_ok()) {
            let aside = format!("{path}.{UNUSABLE}");
            fs_err::rename(path, aside).map_err(|source| SealError::Key { path: path.clone(), source })?;
        }
        if matches!(place, Some(KeyPlace::Credential(_))) && create_credential(directory).is_ok() {
            return Ok(());
        }
        create_file(directory)
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

    /// Checks that a file begins as a sealed one: otherwise, no key can open it.
    pub fn check(sealed: &[u8]) -> Result<(), SealError> {
        if sealed.starts_with(MAGIC) { Ok(()) } else { Err(SealError::NotSealed) }
    }

    /// Returns the contents of the sealed file `name`.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        // Without the beginning, the file is not one of ours, or was written by another version.
        let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::NotSealed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Changed)?;
        let open = |key: &LessSafeKey| {
            let mut body = body.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut body).ok()?.len();
            body.truncate(length);
            Some(body)
        };
        open(&self.key).or_else(|| self.former.as_ref().and_then(open)).ok_or(SealError::Changed)
    }

    /// Returns where the key is.
    pub fn key_place(&self) -> &KeyPlace {
        &self.place
    }
}

/// Reads the current key of `directory`.
fn current(directory: &Utf8Path) -> Result<(Vec<u8>, KeyPlace), SealError> {
    let place = Seal::place(directory).ok_or_else(|| SealError::NoKey(directory.join(KEY_FILE)))?;
    let bytes = match &place {
        KeyPlace::File(path) => {
            let read = atomic::read(path).map_err(|source| SealError::Key { path: path.clone(), source })?;
            read.ok_or_else(|| SealError::NoKey(path.clone()))?
        }
        KeyPlace::Credential(path) => credential(path)?,
    };
    Ok((bytes, place))
}

fn key(bytes: &[u8], path: &Utf8Path) -> Result<LessSafeKey, SealError> {
    let wrong = |_| SealError::KeyLength { path: path.to_owned(), length: bytes.len() };
    UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new).map_err(wrong)
}

fn create_file(directory: &Utf8Path) -> Result<(), SealError> {
    let path = directory.join(KEY_FILE);
    let key: [u8; KEY_LEN] = random_bytes(&System);
    atomic::replace(&path, &key).map_err(|source| SealError::Key { path, source })
}

fn create_credential(directory: &Utf8Path) -> Result<(), SealError> {
    let key: [u8; KEY_LEN] = random_bytes(&System);
    let encrypted = systemd_creds("encrypt", "-", &key).map_err(SealError::Encrypt)?;
    let path = directory.join(CREDENTIAL_FILE);
    atomic::replace(&path, &encrypted).map_err(|source| SealError::Key { path, source })
}

fn remove(path: &Utf8Path) -> Result<(), SealError> {
    atomic::remove(path).map_err(|source| SealError::Key { path: path.to_owned(), source })
}

/// Returns the decrypted credential: from the unit's directory, or from systemd for commands outside of the unit.
fn credential(path: &Utf8Path) -> Result<Vec<u8>, SealError> {
    if let Ok(directory) = std::env::var("CREDENTIALS_DIRECTORY") {
        let loaded = Utf8Path::new(&directory).join(CREDENTIAL);
        if let Ok(Some(bytes)) = atomic::read(&loaded) {
            return Ok(bytes);
        }
    }
    let undecryptable = |message| SealError::Decrypt { path: path.to_owned(), message };
    systemd_creds("decrypt", path.as_str(), &[]).map_err(undecryptable)
}

/// Runs `systemd-creds` with the key on its standard input and output, never in its arguments. The error is its error
/// output.
fn systemd_creds(verb: &str, input: &str, stdin: &[u8]) -> Result<Vec<u8>, String> {
    let mut command = Command::new("systemd-creds");
    command.arg(format!("--name={CREDENTIAL}")).args([verb, input, "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| chain(&error).to_string())?;
    if let Some(mut pipe) = child.stdin.take() {
        // The pipe is dropped afterwards, which ends the input.
        pipe.write_all(stdin).map_err(|error| chain(&error).to_string())?;
    }
    let output = child.wait_with_output().map_err(|error| chain(&error).to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
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
    fn a_credential_tells_what_it_is_encrypted_with() {
        let (_keep, path, _) = seal();
        let place = KeyPlace::Credential(path.join("secret.cred"));
        for (text, end) in [
            ("k6iUCUh0RJCQyvL8k8q1UyAAAAABAAAADAAAABAAAAD1E49VT", "encrypted with the TPM and the key of the host"),
            ("Whxqht+dQJax1aZeCGLxmiAAAAABAAAADAAAABAAAAB", "encrypted with the key of the host"),
            ("of another version of systemd", "secret.cred"),
            ("short", "secret.cred"),
        ] {
            std::fs::write(path.join("secret.cred"), text).unwrap();
            assert!(place.described().ends_with(end), "{}", place.described());
        }
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
    fn ag91_a_replaced_key_opens_former_files_until_they_are_sealed_again() {
        let (_keep, path, before) = seal();
        let sealed = before.seal("fleet.enc", b"access key").unwrap();
        Seal::rotate(&path, false).unwrap();
        assert!(Seal::is_rotating(&path));
        let after = Seal::load(&path).unwrap();
        assert_eq!(after.open("fleet.enc", &sealed).unwrap(), b"access key");
        let again = after.seal("fleet.enc", b"access key").unwrap();
        assert!(matches!(before.open("fleet.enc", &again), Err(SealError::Changed)), "the key is another one");
        Seal::forget_former(&path).unwrap();
        let later = Seal::load(&path).unwrap();
        assert!(!Seal::is_rotating(&path) && later.open("fleet.enc", &sealed).is_err());
        assert_eq!(later.open("fleet.enc", &again).unwrap(), b"access key");
    }

    #[test]
    fn ag91_an_unusable_key_is_kept_beside_the_new_one_with_its_files() {
        let (_keep, path, _) = seal();
        fs_err::write(path.join("secret.key"), b"short").unwrap();
        fs_err::write(path.join("fleet.enc"), b"sealed").unwrap();
        Seal::renew(&path, &[path.join("fleet.enc"), path.join("state.enc")]).unwrap();
        assert!(Seal::load(&path).is_ok());
        assert_eq!(fs_err::read(path.join("secret.key.unusable")).unwrap(), b"short");
        assert_eq!(fs_err::read(path.join("fleet.enc.unusable")).unwrap(), b"sealed");
        assert!(!path.join("fleet.enc").try_exists().unwrap());
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
