//! The servers as processes, and their database.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use muster_client::Client;
use muster_drones::dial::Dialer;
use muster_drones::session::Shared;
use muster_drones::tally::Tally;
use muster_store::testing::Cluster;

/// Number of servers.
pub const SERVERS: usize = 3;

pub struct World {
    _directory: tempfile::TempDir,
    database: String,
    servers: Vec<Server>,
    shared: Vec<Arc<Shared>>,
}

struct Server {
    directory: PathBuf,
    /// Fixed, so that agents find the server again after a restart.
    port: u16,
    child: Mutex<Child>,
}

impl World {
    pub async fn start() -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let cluster = tokio::task::spawn_blocking(Cluster::shared).await.unwrap();
        let database = tokio::task::spawn_blocking(|| cluster.address(&cluster.schema())).await.unwrap();
        let (mut servers, mut shared) = (Vec::new(), Vec::new());
        for number in 0..SERVERS {
            let path = directory.path().join(number.to_string());
            std::fs::create_dir(&path).unwrap();
            if let Some(first) = servers.first() {
                let first: &Server = first;
                std::fs::copy(first.directory.join("master.key"), path.join("master.key")).unwrap();
            }
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let child = Mutex::new(spawn(&path, port, &database));
            servers.push(Server { directory: path, port, child });
            servers[number].accepts().await;
            shared.push(servers[number].shared().await);
        }
        Arc::new(Self { _directory: directory, database, servers, shared })
    }

    /// What agents need to speak to one of the servers.
    pub fn shared(&self, server: usize) -> Arc<Shared> {
        Arc::clone(&self.shared[server])
    }

    /// The management API of one of the servers.
    pub fn client(&self, server: usize) -> Client {
        Client::unix(self.servers[server].directory.join("admin.sock")).unwrap()
    }

    /// `kill -9`.
    pub async fn kill(&self, server: usize) {
        let mut child = self.servers[server].child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub async fn restart(&self, server: usize) {
        let Server { directory, port, child } = &self.servers[server];
        *child.lock().unwrap() = spawn(directory, *port, &self.database);
        self.servers[server].accepts().await;
    }

    /// SIGSTOP.
    pub fn stop_process(&self, server: usize) {
        self.signal(server, "-STOP");
    }

    /// SIGCONT.
    pub fn continue_process(&self, server: usize) {
        self.signal(server, "-CONT");
    }

    fn signal(&self, server: usize, signal: &str) {
        let process = self.servers[server].child.lock().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    /// Ends every connection to the database, in the middle of whatever is done on it.
    pub async fn cut_connections(&self) {
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                   AND backend_type = 'client backend'";
        tokio::task::spawn_blocking(|| Cluster::shared().psql(cut).unwrap()).await.unwrap();
    }
}

fn spawn(directory: &Path, port: u16, database: &str) -> Child {
    let listen = directory.join("listen.json");
    let _ = std::fs::remove_file(listen);
    let binary = std::env::var("MUSTER_HISTORY_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_muster").into());
    Command::new(binary)
        .args(["serve", "--local-listen", "none", "--admin-listen", "none", "--log-level", "error"])
        .args(["--agent-listen", &format!("127.0.0.1:{port}"), "--database", database, "--data-dir"])
        .arg(directory)
        .args(["--set", "timeouts.checkin_long_poll=2s", "--set", "timeouts.checkin_jitter=0s"])
        .env_remove("MUSTER_CONFIG")
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

impl Server {
    async fn accepts(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.directory.join("listen.json").try_exists().unwrap() {
            assert!(Instant::now() < end, "it does not start");
            assert!(self.child.lock().unwrap().try_wait().unwrap().is_none(), "it ended at once");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn shared(&self) -> Arc<Shared> {
        let (url, ca) = (format!("https://127.0.0.1:{}", self.port), self.directory.join("ca.crt"));
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        Arc::new(Shared {
            dialer: Dialer::new(&url, &ca, true).await.unwrap(),
            tally: Tally::new(0, events),
            user_agent: "Elastic Agent v9.5.2".parse().unwrap(),
            version: "9.5.2".into(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}
