//! PgBouncer in transaction mode, in front of the server of the tests.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Cluster;
use super::postgres::program;
use crate::engine::error::OpenError;
use crate::engine::store::{Options, SqlStore};

const PROGRAM: &str = "/usr/sbin/pgbouncer";
/// Fewer connections to the server than a store has sessions, so that they change hands.
const SETTINGS: &str = "pool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 2000\nauth_type = any\n\
    listen_port = 6432\n";
const START: Duration = Duration::from_secs(30);

/// A running pooler. It ends with the process.
pub struct Pooler {
    directory: PathBuf,
    databases: AtomicU32,
    nodes: AtomicU32,
}

impl Pooler {
    /// The pooler of this process, started on the first call.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Pooler> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// An empty store in a database of its own, since a pooler does not pass the schema on.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn fresh(&self) -> SqlStore {
        self.open(&self.database()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The name of a new, empty database.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn database(&self) -> String {
        let name = format!("pooled_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = Cluster::shared().psql(&format!("CREATE DATABASE {name}"));
        made.unwrap_or_else(|error| panic!("create a database: {error}"));
        name
    }

    /// Opens the store of a database as a new server.
    ///
    /// # Errors
    /// When it can't be used through the pooler.
    pub fn open(&self, database: &str) -> Result<SqlStore, OpenError> {
        let host = self.directory.display().to_string().replace('/', "%2F");
        let address = format!("postgres://postgres@{host}:6432/{database}?prepared=none").parse()?;
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        SqlStore::connect(address, &Cluster::node(&format!("pooled-{number}")), &Options::default())
    }

    fn start() -> Self {
        let server = &Cluster::shared().directory;
        let directory = server.join("pooler");
        let failed = |error: std::io::Error| -> ! { panic!("{}: {error}", directory.display()) };
        std::fs::create_dir(&directory).unwrap_or_else(|error| failed(error));
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777))
            .unwrap_or_else(|error| failed(error));
        let settings = format!(
            "[databases]\n* = host={} user=postgres\n[pgbouncer]\nunix_socket_dir = {}\n{SETTINGS}",
            server.display(),
            directory.display()
        );
        let file = directory.join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap_or_else(|error| failed(error));
        let mut pooler = program(PROGRAM);
        pooler.arg("-q").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        std::thread::spawn(move || match pooler.status() {
            Ok(status) => eprintln!("{PROGRAM} ended: {status}"),
            Err(error) => eprintln!("{PROGRAM} did not start: {error}; install the package pgbouncer"),
        });
        let (started, socket) = (Instant::now(), directory.join(".s.PGSQL.6432"));
        while !socket.try_exists().unwrap_or(false) {
            assert!(started.elapsed() < START, "{PROGRAM} does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { directory, databases: AtomicU32::new(0), nodes: AtomicU32::new(0) }
    }
}
