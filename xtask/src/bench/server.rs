//! A release build of `muster serve` with its own data directory.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Bench;
use crate::admin::Admin;
use crate::process::Process;

/// The running server.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// URL of its agent listener.
    pub url: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Time from its start until it accepted connections.
    pub took: Duration,
    address: String,
    muster: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    /// Starts a server on the data directory `name`, which may already contain a store. On PostgreSQL, it gets a new
    /// database.
    pub fn start(bench: &Bench, name: &str, settings: &[&str]) -> anyhow::Result<Self> {
        let data = bench.directory.join(format!("{name}-{}", bench.engine.name()));
        std::fs::create_dir_all(&data)?;
        let mut arguments: Vec<_> = settings.iter().flat_map(|setting| ["--set", setting]).map(str::to_owned).collect();
        if let Some(database) = bench.database()? {
            arguments.extend(["--database".into(), database]);
        }
        Self::launch(bench.muster.clone(), data, "127.0.0.1:0", arguments)
    }

    /// Starts another server of the same fleet, over the same database.
    pub fn join(&self, name: &str) -> anyhow::Result<Self> {
        let data = self.data.with_file_name(name);
        std::fs::create_dir_all(&data)?;
        std::fs::copy(self.data.join("master.key"), data.join("master.key"))?;
        Self::launch(self.muster.clone(), data, "127.0.0.1:0", self.arguments.clone())
    }

    /// Kills the server and starts it again on the same port.
    pub fn restart(self) -> anyhow::Result<Self> {
        self.restart_with(&[])
    }

    /// Kills the server and starts it again on the same port, with additional settings.
    pub fn restart_with(mut self, settings: &[&str]) -> anyhow::Result<Self> {
        self.process.kill()?;
        let Self { muster, data, address, mut arguments, .. } = self;
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]).map(str::to_owned));
        Self::launch(muster, data, &address, arguments)
    }

    /// Returns a client of its management API.
    pub fn admin(&self) -> Admin {
        Admin::new(self.data.join("admin.sock"))
    }

    /// Returns the path of the CA certificate.
    pub fn ca(&self) -> PathBuf {
        self.data.join("ca.crt")
    }

    fn launch(muster: PathBuf, data: PathBuf, listen_on: &str, arguments: Vec<String>) -> anyhow::Result<Self> {
        let listen = data.join("listen.json");
        let log = data.with_extension("log");
        // A file of the previous run would be mistaken for readiness.
        match std::fs::remove_file(&listen) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut command = Command::new(&muster);
        command.args(["serve", "--local-listen", "none", "--admin-listen", "none", "--log-level", "warn"]);
        command.arg("--data-dir").arg(&data).args(["--agent-listen", listen_on]);
        command.args(&arguments);
        let began = Instant::now();
        let mut process = Process::start(&mut command, &log)?;
        let mut found = None;
        let ready = process.wait_until(|| {
            found = agent_address(&listen);
            found.is_some()
        });
        ready.with_context(|| format!("muster serve, see {}", log.display()))?;
        let address = found.context("no address in listen.json")?;
        let took = began.elapsed();
        Ok(Self { process, url: format!("https://{address}"), data, took, address, muster, arguments })
    }
}

/// Reads the address of the agent listener from `listen.json`.
pub fn agent_address(listen: &std::path::Path) -> Option<String> {
    let listen: serde_json::Value = serde_json::from_slice(&std::fs::read(listen).ok()?).ok()?;
    Some(listen.get("agent")?.as_str()?.to_owned())
}
