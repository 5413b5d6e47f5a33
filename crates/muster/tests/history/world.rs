//! The servers as processes, their database, and the way of agents to them.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use muster_client::Client;
use muster_drones::dial::Dialer;
use muster_drones::session::Shared;
use muster_drones::tally::Tally;
use muster_store::testing::{Cluster, Proxy, Traffic};

use crate::Scale;
use crate::balancer::Balancer;
use crate::process::Process;

/// Number of servers.
pub const SERVERS: usize = 3;

pub struct World {
    _directory: tempfile::TempDir,
    pub scale: Scale,
    schema: String,
    servers: Vec<Server>,
    balancer: Option<Balancer>,
    /// The addresses that agents know: of all servers, or of the balancer.
    entries: Vec<Arc<Shared>>,
}

struct Server {
    directory: PathBuf,
    /// Fixed, so that agents find the server again after a restart.
    port: u16,
    /// Between the server and the database.
    proxy: Proxy,
    running: Mutex<Running>,
}

struct Running {
    program: PathBuf,
    process: Process,
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

impl World {
    pub async fn start(scale: Scale) -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let schema = blocking(|| Cluster::shared().schema()).await;
        let mut servers: Vec<Server> = Vec::new();
        for number in 0..SERVERS {
            let path = directory.path().join(number.to_string());
            std::fs::create_dir(&path).unwrap();
            if let Some(first) = servers.first() {
                std::fs::copy(first.directory.join("master.key"), path.join("master.key")).unwrap();
            }
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let proxy = Proxy::to(Cluster::shared());
            let process = spawn(&scale.old, &path, port, &proxy.address(&schema), &scale);
            let running = Mutex::new(Running { program: scale.old.clone(), process });
            servers.push(Server { directory: path, port, proxy, running });
            servers[number].accepts().await;
        }
        let ca = servers[0].directory.join("ca.crt");
        let ports = || servers.iter().map(|server| server.port);
        let balancer = scale.balancer.as_ref().map(|program| Balancer::start(program, directory.path(), &ca, ports()));
        let mut entries = Vec::new();
        for port in balancer.as_ref().map_or_else(|| ports().collect(), |balancer| vec![balancer.port]) {
            entries.push(shared(port, &ca).await);
        }
        Arc::new(Self { _directory: directory, scale, schema, servers, balancer, entries })
    }

    /// What agents need to connect, for each address that they know.
    pub fn entries(&self) -> &[Arc<Shared>] {
        &self.entries
    }

    /// The management API of one of the servers.
    pub fn client(&self, server: usize) -> Client {
        Client::unix(self.servers[server].directory.join("admin.sock")).unwrap()
    }

    /// `kill -9`.
    pub async fn kill(&self, server: usize) {
        self.servers[server].running.lock().unwrap().process.kill();
    }

    /// Starts a server that has ended, with the program that it had.
    pub async fn start_again(&self, server: usize) {
        let program = self.servers[server].running.lock().unwrap().program.clone();
        self.run(server, program).await;
    }

    /// Stops a server and starts it with the newer program.
    pub async fn upgrade(&self, server: usize) {
        let running = &self.servers[server].running;
        running.lock().unwrap().process.signal("-TERM");
        let ended = tokio::task::block_in_place(|| running.lock().unwrap().process.wait());
        assert!(ended.success(), "server {server} stopped with {ended}");
        self.run(server, self.scale.new.clone()).await;
    }

    async fn run(&self, server: usize, program: PathBuf) {
        let one = &self.servers[server];
        let process = spawn(&program, &one.directory, one.port, &one.proxy.address(&self.schema), &self.scale);
        *one.running.lock().unwrap() = Running { program, process };
        one.accepts().await;
    }

    /// SIGSTOP.
    pub fn stop_process(&self, server: usize) {
        self.servers[server].running.lock().unwrap().process.signal("-STOP");
    }

    /// SIGCONT.
    pub fn continue_process(&self, server: usize) {
        self.servers[server].running.lock().unwrap().process.signal("-CONT");
    }

    /// Ends every connection to the database, in the middle of whatever is done on it.
    pub async fn cut_connections(&self) {
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                   AND backend_type = 'client backend'";
        blocking(|| Cluster::shared().psql(cut).unwrap()).await;
    }

    /// Cuts a server off from the database.
    pub fn cut_off(&self, server: usize) {
        self.servers[server].proxy.set(Traffic::Cut);
    }

    /// Lets a server reach the database again.
    pub fn reconnect(&self, server: usize) {
        self.servers[server].proxy.set(Traffic::Pass);
    }

    /// Ends the database without a checkpoint, and starts it again after some time.
    pub async fn crash_database(&self, down: Duration) {
        blocking(|| Cluster::shared().stop()).await;
        tokio::time::sleep(down).await;
        blocking(|| Cluster::shared().resume()).await;
    }

    /// Records a migration that no server knows, and that admits them all, as a newer version would at its start.
    pub async fn expand_schema(&self) {
        let text = format!(
            "INSERT INTO {}.schema_migrations (number, name, checksum, applied_at, oldest) \
             VALUES (1000, 'next', '', 0, 1) ON CONFLICT DO NOTHING",
            self.schema
        );
        blocking(move || Cluster::shared().psql(&text).unwrap()).await;
    }

    /// Lets the balancer send the agents of a server to the others. Without one, agents ask any server anyway.
    pub async fn move_agents_away_from(&self, server: usize) {
        if let Some(balancer) = &self.balancer {
            tokio::task::block_in_place(|| balancer.move_away_from(server));
        }
    }
}

fn spawn(program: &Path, directory: &Path, port: u16, database: &str, scale: &Scale) -> Process {
    // Errors are expected while the database is away, and would fill the output of the suite.
    let log = File::options().create(true).append(true).open(directory.with_extension("log")).unwrap();
    // Written by the server when it accepts connections.
    let _ = std::fs::remove_file(directory.join("listen.json"));
    let mut command = Command::new(program);
    command
        .args(["serve", "--local-listen", "none", "--admin-listen", "none", "--log-level", "error"])
        .args(["--agent-listen", &format!("127.0.0.1:{port}"), "--database", database, "--data-dir"])
        .arg(directory)
        .args(["--set", &format!("timeouts.checkin_long_poll={}s", scale.poll.as_secs())])
        .args(["--set", "timeouts.checkin_jitter=0s"])
        .env_remove("MUSTER_CONFIG")
        .stdout(Stdio::null())
        .stderr(log);
    Process::spawn(&mut command)
}

async fn shared(port: u16, ca: &Path) -> Arc<Shared> {
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    Arc::new(Shared {
        dialer: Dialer::new(&format!("https://127.0.0.1:{port}"), ca, true).await.unwrap(),
        tally: Tally::new(0, events),
        user_agent: "Elastic Agent v9.5.2".parse().unwrap(),
        version: "9.5.2".into(),
    })
}

impl Server {
    async fn accepts(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.directory.join("listen.json").try_exists().unwrap() {
            let has_ended = self.running.lock().unwrap().process.has_ended();
            if has_ended || Instant::now() >= end {
                panic!("it does not start: {}", std::fs::read_to_string(self.directory.with_extension("log")).unwrap());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
