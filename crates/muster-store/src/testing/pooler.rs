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
const SETTINGS: &str = "pool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 2000\nauth_type = trust\n\
    listen_port = 6432\n";
/// Names that the pooler lets in, one for each store.
const USERS: u32 = 1000;
const START: Duration = Duration::from_secs(30);

/// A running pooler. It ends with the process.
pub struct Pooler {
    directory: PathBuf,
    users: AtomicU32,
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

    /// An empty store of a user of its own.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn fresh(&self) -> SqlStore {
        self.open(&self.user()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A new user with an empty schema of the same name, which the server therefore uses: a pooler does not pass on which schema a client
    /// asks for.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn user(&self) -> String {
        let name = format!("pooled_{}", self.users.fetch_add(1, Ordering::Relaxed) % USERS);
        let made = Cluster::shared().psql(&format!("CREATE ROLE {name} LOGIN; CREATE SCHEMA AUTHORIZATION {name}"));
        made.unwrap_or_else(|error| panic!("create a user: {error}"));
        name
    }

    /// Opens the store of a user as a new server.
    ///
    /// # Errors
    /// When it can't be used through the pooler.
    pub fn open(&self, user: &str) -> Result<SqlStore, OpenError> {
        let host = self.directory.display().to_string().replace('/', "%2F");
        let address = format!("postgres://{user}@{host}:6432/postgres?prepared=none").parse()?;
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
        let users: String = (0..USERS).map(|number| format!("\"pooled_{number}\" \"\"\n")).collect();
        let names = directory.join("users");
        std::fs::write(&names, users).unwrap_or_else(|error| failed(error));
        let settings = format!(
            "[databases]\n* = host={}\n[pgbouncer]\nunix_socket_dir = {}\nauth_file = {}\n{SETTINGS}",
            server.display(),
            directory.display(),
            names.display()
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
        Self { directory, users: AtomicU32::new(0), nodes: AtomicU32::new(0) }
    }
}
