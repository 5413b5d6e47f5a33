//! The real server as a process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_client::Client;
use muster_drones::dial::Dialer;
use muster_drones::session::Shared;
use muster_drones::tally::Tally;
use serde_json::Value;

/// The program, with nothing of the caller's environment that it would heed.
pub fn muster() -> Command {
    let binary = std::env::var("MUSTER_KILL_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_muster").into());
    let mut command = Command::new(binary);
    for name in ["MUSTER_URL", "MUSTER_TOKEN", "MUSTER_CA", "MUSTER_CONFIG", "MUSTER_DATA_DIR"] {
        command.env_remove(name);
    }
    command
}

/// Killed when dropped.
pub struct Server {
    child: Child,
    directory: PathBuf,
    agents_at: String,
}

impl Server {
    /// Starts on this data directory and waits until agents are accepted.
    pub fn start(directory: &Path) -> Self {
        Self::start_at(directory, "127.0.0.1:0")
    }

    /// Starts with this address for agents.
    pub fn start_at(directory: &Path, agents_at: &str) -> Self {
        let listen = directory.join("listen.json");
        let _ = std::fs::remove_file(&listen);
        let child = muster()
            .args(["serve", "--agent-listen", agents_at, "--local-listen", "none", "--admin-listen", "none"])
            .args(["--log-level", "error", "--data-dir"])
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut server = Self { child, directory: directory.to_owned(), agents_at: String::new() };
        let end = Instant::now() + Duration::from_secs(60);
        while !listen.try_exists().unwrap() {
            assert!(Instant::now() < end, "it does not start");
            assert!(server.child.try_wait().unwrap().is_none(), "it ended at once");
            std::thread::sleep(Duration::from_millis(5));
        }
        let listening: Value = serde_json::from_slice(&std::fs::read(&listen).unwrap()).unwrap();
        server.agents_at = listening["agent"].as_str().unwrap().to_owned();
        server
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; it must end well.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// Address for agents.
    pub fn agents_at(&self) -> &str {
        &self.agents_at
    }

    pub fn client(&self) -> Client {
        Client::unix(self.directory.join("admin.sock")).unwrap()
    }

    /// What drones need to speak to this server.
    pub async fn shared(&self) -> Arc<Shared> {
        let (url, ca) = (format!("https://{}", self.agents_at), self.directory.join("ca.crt"));
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
