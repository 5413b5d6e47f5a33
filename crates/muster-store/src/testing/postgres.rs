//! A PostgreSQL server for the tests of one process, started from the programs of the distribution's package.

use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use muster_core::id::NodeId;

use crate::engine::error::OpenError;
use crate::engine::store::{Options, SqlStore};
use crate::postgres::{Address, Node};

/// Where Debian's packages put the programs, one directory for each version.
const PACKAGES: &str = "/usr/lib/postgresql";
/// Names another directory with the programs `initdb`, `pg_ctl` and `postgres`, for tests with another version.
const PROGRAMS: &str = "MUSTER_TEST_POSTGRES_BIN";
/// Beginning of the names of the directories of servers, before the id of their process.
const PREFIX: &str = "muster-cluster-";
/// How long the server may take to start.
const START: Duration = Duration::from_secs(30);

/// A running server. It ends with the thread that started it, and so with the process.
pub struct Cluster {
    pub(super) directory: PathBuf,
    schemas: AtomicU32,
    nodes: AtomicU32,
}

impl Cluster {
    /// The server of this process, started on the first call.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&std::process::id().to_string()))
    }

    /// A server of its own, for a test that does to it what others could not bear. It ends when it is dropped.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn own() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::start(&format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Ends the server without a checkpoint, as a crash does, and starts it again.
    ///
    /// # Panics
    /// When it can't be stopped or started.
    pub fn restart(&self) {
        self.stop();
        self.serve();
    }

    /// Ends the server without a checkpoint, as a crash does.
    ///
    /// # Panics
    /// When it can't be stopped.
    pub fn stop(&self) {
        let stopped = program("pg_ctl").args(["stop", "--mode=immediate", "-D"]).arg(self.data()).output();
        let stopped = stopped.unwrap_or_else(|error| panic!("run pg_ctl: {error}"));
        assert!(stopped.status.success(), "pg_ctl: {}", String::from_utf8_lossy(&stopped.stderr));
    }

    /// Starts the server that was stopped.
    ///
    /// # Panics
    /// When it does not start.
    pub fn resume(&self) {
        self.serve();
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// An empty store in a schema of its own.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn fresh(&self) -> SqlStore {
        self.open(&self.schema())
    }

    /// Opens the store of a schema as a new server.
    ///
    /// # Panics
    /// When it can't be opened.
    pub fn open(&self, schema: &str) -> SqlStore {
        self.try_open(schema).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Opens the store of a schema as a new server.
    ///
    /// # Errors
    /// When another server uses it, above all.
    pub fn try_open(&self, schema: &str) -> Result<SqlStore, OpenError> {
        let address: Address = self.address(schema).parse()?;
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        SqlStore::connect(address, &Self::node(&format!("node-{number}")), &Options::default())
    }

    /// A node with this id.
    pub fn node(id: &str) -> Node {
        Node { id: NodeId::trusted(id), name: format!("host of {id}"), place: format!("host of {id}:/data") }
    }

    /// The name of a new, empty schema.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn schema(&self) -> String {
        let name = format!("test_{}", self.schemas.fetch_add(1, Ordering::Relaxed));
        self.psql(&format!("CREATE SCHEMA {name}")).unwrap_or_else(|error| panic!("create a schema: {error}"));
        name
    }

    /// The address of a schema, which is also the name of its connections.
    pub fn address(&self, schema: &str) -> String {
        let host = self.directory.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{host}/postgres?options=-csearch_path%3D{schema}&application_name={schema}")
    }

    /// Runs SQL by the server's own client.
    ///
    /// # Errors
    /// What the client says.
    pub fn psql(&self, sql: &str) -> Result<String, String> {
        let output = Command::new(client())
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-c",
                sql,
                "-h",
            ])
            .arg(&self.directory)
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn start(suffix: &str) -> Self {
        remove_left_behind();
        let directory = std::env::temp_dir().join(format!("{PREFIX}{suffix}"));
        let mut builder = std::fs::DirBuilder::new();
        builder
            .mode(0o700)
            .create(&directory)
            .unwrap_or_else(|error| panic!("create {}: {error}", directory.display()));
        if let Some((user, group)) = unprivileged() {
            chown(&directory, Some(user), Some(group)).unwrap_or_else(|error| panic!("give it away: {error}"));
        }
        let made = program("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--locale=C.UTF-8"])
            .args(collation())
            .arg("-D")
            .arg(directory.join("data"))
            .output()
            .unwrap_or_else(|error| panic!("run initdb of {}: {error}", programs().display()));
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let cluster = Self { directory, schemas: AtomicU32::new(0), nodes: AtomicU32::new(0) };
        cluster.serve();
        cluster
    }

    /// Starts the server from a thread that lives as long as the process, since the server ends with it.
    fn serve(&self) {
        let mut server = program("postgres");
        server.arg("-D").arg(self.data()).arg("-k").arg(&self.directory).args(["-c", "listen_addresses="]);
        for setting in ["fsync=off", "max_connections=1000", "shared_buffers=64MB", "log_min_messages=error"] {
            server.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.directory.join("log")).unwrap_or_else(|error| panic!("{error}"));
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        std::thread::spawn(move || match server.status() {
            Ok(status) => eprintln!("the PostgreSQL server of the tests ended: {status}"),
            Err(error) => eprintln!("the PostgreSQL server of the tests did not start: {error}"),
        });
        let started = Instant::now();
        while let Err(error) = self.psql("SELECT 1") {
            assert!(started.elapsed() < START, "PostgreSQL does not start: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The shared one is never dropped.
impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
        // What stays is removed by the next process.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Removes the directories of processes that are gone, whose servers ended with them.
fn remove_left_behind() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let process = file_name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let is_gone = process.is_some_and(|process| matches!(Path::new("/proc").join(process).try_exists(), Ok(false)));
        if is_gone {
            // Another process may be removing it too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The programs of the newest version that is installed.
fn programs() -> PathBuf {
    if let Some(given) = std::env::var_os(PROGRAMS) {
        return given.into();
    }
    let entries = std::fs::read_dir(PACKAGES).unwrap_or_else(|error| {
        panic!(
            "{PACKAGES}: {error}; install the package postgresql, or set {PROGRAMS} to the directory of its programs"
        )
    });
    let versions = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let newest = versions.max().unwrap_or_else(|| panic!("no version of PostgreSQL under {PACKAGES}"));
    Path::new(PACKAGES).join(newest.to_string()).join("bin")
}

/// Arguments of `initdb` for a collation that does not compare by bytes: it shows where the schema forgot to say how strings are
/// compared. PostgreSQL 14 has no such collation that is on every system.
fn collation() -> &'static [&'static str] {
    if version() < 15 { &[] } else { &["--locale-provider=icu", "--icu-locale=en-US"] }
}

/// The major version of the server.
fn version() -> u32 {
    static VERSION: OnceLock<u32> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let output = Command::new(programs().join("postgres")).arg("--version").output();
        let output = output.unwrap_or_else(|error| panic!("run postgres of {}: {error}", programs().display()));
        // `postgres (PostgreSQL) 15.14 (Debian …)`
        let text = String::from_utf8_lossy(&output.stdout);
        let major = text.split(' ').nth(2).and_then(|version| version.split('.').next()?.trim().parse().ok());
        major.unwrap_or_else(|| panic!("{text:?} names no version"))
    })
}

/// The client, which server packages without one take from the system.
fn client() -> PathBuf {
    let own = programs().join("psql");
    if own.is_file() { own } else { "psql".into() }
}

/// A program of the server, as a user that it accepts, which ends with the thread that starts it.
pub(super) fn program(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if let Some((user, group)) = unprivileged() {
        command.args(["--reuid", &user.to_string(), "--regid", &group.to_string(), "--clear-groups"]);
    }
    command.arg(programs().join(name)).current_dir("/");
    command
}

/// The server refuses to run as root: then the package's own user and group.
fn unprivileged() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}
