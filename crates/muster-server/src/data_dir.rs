//! The data directory: its files, their permissions, and the lock that limits it to one server.

mod reserve;
pub(crate) mod suitable;

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use muster_core::Entropy;
use muster_core::entropy::random_bytes;
use secrecy::SecretBox;
use serde::{Deserialize, Serialize};

pub use self::reserve::DataDisk;

/// Reason why the data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// An I/O error. The text names the file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The directory is unsafe for secrets, or does not belong to a server. Nothing in it was changed.
    #[error("the data directory {path} {reason}; it was not changed\nhint: {hint}")]
    Unsuitable {
        /// The directory.
        path: Utf8PathBuf,
        /// Reason.
        reason: String,
        /// Remedy.
        hint: &'static str,
    },
    /// Another server uses it.
    #[error("{0} is in use by another server: stop it first, or choose another --data-dir")]
    InUse(Utf8PathBuf),
    /// Other users can read a secret.
    #[error("{path} is readable by other users (mode {mode:o}): check who may have read it, then chmod 600 it")]
    Exposed {
        /// The file.
        path: Utf8PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The master key has the wrong length.
    #[error(
        "{0} does not have 32 bytes: restore it from a backup; without it, secrets in the database cannot be decrypted"
    )]
    BadMasterKey(Utf8PathBuf),
    /// The database exists, but the key with which its secrets are sealed does not.
    #[error(
        "{0} is missing, but its database exists: restore it from a backup; without it, secrets in the database cannot be decrypted"
    )]
    LostMasterKey(Utf8PathBuf),
    /// The configured master key file does not exist.
    #[error("{0} does not exist: master_key_file must name an existing key; the server does not create it")]
    NoKeyFile(Utf8PathBuf),
    /// A backup can only be restored to an empty directory.
    #[error("{path} contains {name}: a backup can only be restored to an empty directory")]
    NotEmpty {
        /// The directory.
        path: Utf8PathBuf,
        /// A file in it.
        name: String,
    },
    /// The shared database contains a fleet, but this directory does not contain the key with which its secrets are
    /// sealed.
    #[error(
        "the database contains a fleet, but {0} is missing\n\
         hint: copy master.key from the data directory of a server of this fleet, or name a copy with --master-key-file"
    )]
    NoSharedKey(Utf8PathBuf),
    /// The directory contains the keys of a fleet, but not its database.
    #[error(
        "{database} {found}, but {key} shows that this directory holds a fleet: a server with a new database \
         would know none of its agents, and agents that are rejected delete their policy or unenroll themselves\n\
         hint: restore {database} from a backup; to give up the fleet and start a new one, use --new-fleet"
    )]
    LostDatabase {
        /// File of the database.
        database: Utf8PathBuf,
        /// `is missing`, `is empty` …
        found: &'static str,
        /// File that shows that there was a fleet.
        key: &'static str,
    },
    /// The directory is that of a server of a fleet in a shared database, but none is configured.
    #[error(
        "{path} belongs to a server whose fleet is in a PostgreSQL database, but no database is configured\n\
         hint: pass --database postgres://…, or set `database` in the configuration file"
    )]
    SharedFleet {
        /// The directory.
        path: Utf8PathBuf,
    },
}

impl DataDirError {
    /// Returns whether the cause is a full disk.
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::StorageFull)
    }
}

/// File name of the embedded store.
pub const DATABASE: &str = "muster.db";

/// Name of the key with which secrets in the database are sealed.
pub const MASTER_KEY: &str = "master.key";

/// Name of the file that marks a completed first start. It contains the id of the installation, and is separate from
/// the database, so that a lost database can be distinguished from one that never existed.
const FLEET_ID: &str = "fleet-id";
/// Name of the file that exists from the creation of the master key until the end of the first start, so that the key of
/// an interrupted start can be distinguished from what is left of a fleet.
const FIRST_START: &str = "first-start";
/// File with the id of this server among those of a shared database.
const NODE_ID: &str = "node-id";
/// What is found of a database that does not exist.
pub const MISSING: &str = "is missing";

/// Files that exist only if there was a fleet in the database, in the order in which they are checked.
const FLEET_FILES: [&str; 2] = [FLEET_ID, "ca.crt"];

/// Name of the admin socket.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// File with the addresses of the listeners, relative to the data directory. It exists while the server is running.
pub const LISTEN_FILE: &str = "listen.json";

/// The data directory, locked until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: Utf8PathBuf,
    _lock: File,
}

/// Addresses in use, as written to `listen.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ListenAddresses {
    /// Agents.
    pub agent: Option<SocketAddr>,
    /// The agent on this host.
    pub local: Option<SocketAddr>,
    /// Administrators and scripts.
    pub admin: Option<SocketAddr>,
}

impl DataDir {
    /// Creates the directory if it does not exist, locks it, and makes it accessible to its owner only. An existing
    /// directory is not changed before it is locked, so that a wrong path (`/tmp`, `/etc`, a home directory) does no
    /// harm.
    pub fn open(path: &Utf8Path) -> Result<Self, DataDirError> {
        // Before the lock file is created, which would already be a change.
        suitable::check(path)?;
        let mut builder = std::fs::DirBuilder::new();
        // With this mode from the start: the directory is never readable by others, not even for a moment.
        builder.recursive(true).mode(0o700).create(path).map_err(|error| named(path, &error))?;
        let lock_path = path.join("lock");
        // Never removed: a server that locks a file and one that creates a new file of the same name would both run.
        let lock = options(0o600).write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(|error| named(&lock_path, &error))?;
        // Held as long as the process runs, and released by the kernel however it ends.
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(named(&lock_path, &error).into()),
        }
        fs::set_permissions(path, PermissionsExt::from_mode(0o700))?;
        // A server that was killed leaves this file, whose addresses are now wrong.
        remove(&path.join(LISTEN_FILE))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Returns the path of a file or directory in it.
    pub fn join(&self, name: &str) -> Utf8PathBuf {
        self.path.join(name)
    }

    /// Writes a file that only its owner can read, atomically.
    pub fn write_secret(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        Ok(write_whole(&self.join(name), bytes, 0o600)?)
    }

    /// Writes a file without secrets, atomically.
    pub fn write_public(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        Ok(write_whole(&self.join(name), bytes, 0o644)?)
    }

    /// Reads a secret; `None` if the file does not exist. Returns an error if other users can read it.
    pub fn read_secret(&self, name: &str) -> Result<Option<Vec<u8>>, DataDirError> {
        read_secret(&self.join(name))
    }

    /// Returns the key that seals secrets, which is generated once and never replaced.
    pub fn master_key(&self, entropy: &dyn Entropy) -> Result<SecretBox<[u8; 32]>, DataDirError> {
        let path = self.join(MASTER_KEY);
        if let Some(bytes) = read_secret(&path)? {
            return master_key_of(bytes, path);
        }
        // A new key could not decrypt what the old one sealed, and would hide that the old one is lost.
        if self.join(DATABASE).try_exists()? {
            return Err(DataDirError::LostMasterKey(path));
        }
        // First the mark: a start that is interrupted between the two can be told from a fleet that lost its
        // database.
        self.write_public(FIRST_START, b"")?;
        let key = random_bytes::<32>(entropy);
        self.write_secret(MASTER_KEY, &key)?;
        Ok(SecretBox::new(Box::new(key)))
    }

    /// Returns the id of this directory in a shared database. It is generated once, and must not be copied to another
    /// server.
    pub fn node_id(&self, entropy: &dyn Entropy) -> Result<String, DataDirError> {
        let path = self.join(NODE_ID);
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let id = muster_core::entropy::random_uuid(entropy);
        self.write_public(NODE_ID, format!("{id}\n").as_bytes())?;
        Ok(id)
    }

    /// Returns an error if there is no master key. Called for a shared database that contains a fleet, for which no new
    /// key must be generated.
    pub fn require_shared_key(&self) -> Result<(), DataDirError> {
        let key = self.join(MASTER_KEY);
        if key.try_exists()? { Ok(()) } else { Err(DataDirError::NoSharedKey(key)) }
    }

    /// Returns an error if this directory contains the files of a fleet, whose database must then exist. A first start
    /// creates the database before the CA, so that an interrupted one passes this check and is continued.
    pub fn refuse_lost_database(&self, found: &'static str) -> Result<(), DataDirError> {
        refuse_lost_database(&self.path, found)
    }

    /// Like [`Self::refuse_lost_database`], also if only the master key is left.
    pub fn refuse_lost_file(&self, found: &'static str) -> Result<(), DataDirError> {
        refuse_lost_file(&self.path, found)
    }

    /// Returns an error if the directory contains anything else than the lock, the master key, these files, and what may exist before
    /// the first start.
    pub fn refuse_used(&self, except: &[&str]) -> Result<(), DataDirError> {
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let expected = ["lock", MASTER_KEY].contains(&name.as_str()) || except.contains(&name.as_str());
            if !expected && !suitable::HARMLESS.contains(&name.as_str()) {
                return Err(DataDirError::NotEmpty { path: self.path.clone(), name });
            }
        }
        Ok(())
    }

    /// Marks the first start as completed, unless the mark is already correct.
    pub fn mark_fleet(&self, installation: &str) -> Result<(), DataDirError> {
        // Only if it differs: a start on a full disk must not fail because of a file that is correct.
        let text = format!("{installation}\n");
        match fs::read(self.join(FLEET_ID)) {
            Ok(found) if found == text.as_bytes() => {}
            _ => self.write_public(FLEET_ID, text.as_bytes())?,
        }
        // The first start is complete from here on.
        Ok(remove(&self.join(FIRST_START))?)
    }

    /// Returns the disk of the directory.
    pub fn disk(&self) -> DataDisk {
        DataDisk::new(&self.path)
    }

    /// Writes the listener addresses for scripts. Called after all listeners accept connections.
    pub fn write_listen(&self, addresses: &ListenAddresses) -> Result<(), DataDirError> {
        let mut text = serde_json::to_vec(addresses).map_err(io::Error::from)?;
        text.push(b'\n');
        self.write_public(LISTEN_FILE, &text)
    }

    /// Removes the file that [`Self::write_listen`] wrote.
    pub fn remove_listen(&self) -> Result<(), DataDirError> {
        Ok(remove(&self.join(LISTEN_FILE))?)
    }

    /// Removes the file of the admin socket.
    pub fn remove_socket(&self) -> Result<(), DataDirError> {
        Ok(remove(&self.join(ADMIN_SOCKET))?)
    }
}

fn refuse_lost_database(path: &Utf8Path, found: &'static str) -> Result<(), DataDirError> {
    for key in FLEET_FILES {
        if path.join(key).try_exists()? {
            return Err(lost(path, found, key)?);
        }
    }
    Ok(())
}

/// Returns an error if the file of the embedded store is missing or empty (`found`), but a fleet's files are in the
/// directory.
pub(crate) fn refuse_lost_file(path: &Utf8Path, found: &'static str) -> Result<(), DataDirError> {
    refuse_lost_database(path, found)?;
    // A key without the mark of a first start has sealed something.
    if path.join(MASTER_KEY).try_exists()? && !path.join(FIRST_START).try_exists()? {
        return Err(lost(path, found, MASTER_KEY)?);
    }
    Ok(())
}

fn lost(path: &Utf8Path, found: &'static str, key: &'static str) -> Result<DataDirError, DataDirError> {
    // Only servers of a shared database have one.
    // There is no file of the embedded store in such a directory, so nothing was lost.
    if found == MISSING && path.join(NODE_ID).try_exists()? {
        return Ok(DataDirError::SharedFleet { path: path.to_owned() });
    }
    Ok(DataDirError::LostDatabase { database: path.join(DATABASE), found, key })
}

/// Reads the master key from a configured file outside the data directory.
pub fn master_key_file(path: &Utf8Path) -> Result<SecretBox<[u8; 32]>, DataDirError> {
    let bytes = read_secret(path)?.ok_or_else(|| DataDirError::NoKeyFile(path.to_owned()))?;
    master_key_of(bytes, path.to_owned())
}

fn master_key_of(bytes: Vec<u8>, path: Utf8PathBuf) -> Result<SecretBox<[u8; 32]>, DataDirError> {
    let key = bytes.try_into().map_err(|_| DataDirError::BadMasterKey(path))?;
    Ok(SecretBox::new(Box::new(key)))
}

/// Reads a secret; `None` if there is none. A file that other users can access is an error.
fn read_secret(path: &Utf8Path) -> Result<Option<Vec<u8>>, DataDirError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(path, &error).into()),
    };
    // Of the open file, not of the path: it could be exchanged in between.
    let mode = file.metadata().map_err(|error| named(path, &error))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(DataDirError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| named(path, &error))?;
    Ok(Some(bytes))
}

fn options(mode: u32) -> std::fs::OpenOptions {
    let mut options = std::fs::OpenOptions::new();
    options.mode(mode);
    options
}

fn named(path: &Utf8Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

fn remove(path: &Utf8Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a new file, syncs it, renames it over the old one, and syncs the directory. After a power failure, the file
/// has either its old or its new content.
fn write_whole(path: &Utf8Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // In the same directory, because a rename is atomic only within a file system.
    let beside = Utf8PathBuf::from(format!("{path}.new"));
    // Left by an interrupted write. `create_new` below ensures the mode of the file, but fails if it exists.
    remove(&beside)?;
    let write = || -> io::Result<()> {
        let mut file = options(mode).write(true).create_new(true).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| named(&beside, &error))?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_fleet::system::SystemEntropy;
    use secrecy::ExposeSecret;

    fn directory() -> (tempfile::TempDir, Utf8PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().join("data")).unwrap();
        (directory, path)
    }

    fn mode(path: &Utf8Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn data_directory_and_secrets_are_private() {
        let (_keep, path) = directory();
        let data = DataDir::open(&path).unwrap();
        data.master_key(&SystemEntropy::default()).unwrap();
        assert_eq!((mode(&path), mode(&path.join("master.key"))), (0o700, 0o600));
    }

    #[test]
    fn master_key_is_stable_and_is_rejected_if_readable_by_others() {
        let (_keep, path) = directory();
        let data = DataDir::open(&path).unwrap();
        let first = data.master_key(&SystemEntropy::default()).unwrap();
        let second = data.master_key(&SystemEntropy::default()).unwrap();
        assert_eq!(first.expose_secret(), second.expose_secret());
        fs::set_permissions(path.join("master.key"), PermissionsExt::from_mode(0o640)).unwrap();
        let error = data.master_key(&SystemEntropy::default()).unwrap_err();
        assert!(error.to_string().contains("mode 640"), "{error}");
    }

    #[test]
    fn a_lost_master_key_is_not_replaced_if_a_database_exists() {
        let (_keep, path) = directory();
        let data = DataDir::open(&path).unwrap();
        data.write_public(DATABASE, b"").unwrap();
        let error = data.master_key(&SystemEntropy::default()).unwrap_err();
        assert!(matches!(error, DataDirError::LostMasterKey(_)), "{error}");
        assert!(!data.join("master.key").try_exists().unwrap());
    }

    #[test]
    fn a_short_master_key_is_rejected_and_kept() {
        let (_keep, path) = directory();
        let data = DataDir::open(&path).unwrap();
        data.write_secret("master.key", b"short").unwrap();
        assert!(matches!(data.master_key(&SystemEntropy::default()), Err(DataDirError::BadMasterKey(_))));
        assert_eq!(fs::read(path.join("master.key")).unwrap(), b"short");
    }

    #[test]
    fn two_servers_cannot_share_a_data_directory() {
        let (_keep, path) = directory();
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse(_))));
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn listen_json_has_the_documented_format_and_an_old_one_is_removed() {
        let (_keep, path) = directory();
        let data = DataDir::open(&path).unwrap();
        let addresses = ListenAddresses { agent: Some("127.0.0.1:8220".parse().unwrap()), ..Default::default() };
        data.write_listen(&addresses).unwrap();
        let text = fs::read_to_string(path.join("listen.json")).unwrap();
        assert_eq!(text, "{\"agent\":\"127.0.0.1:8220\",\"local\":null,\"admin\":null}\n");
        drop(data);
        DataDir::open(&path).unwrap();
        assert!(!path.join("listen.json").try_exists().unwrap());
    }
}
