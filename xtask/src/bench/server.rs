//! A release `muster serve` with a data folder of its own.

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
    /// Returns the address for agents.
    pub url: String,
    /// Its data folder.
    pub data: PathBuf,
    /// From its start until it listened.
    pub took: Duration,
    address: String,
    muster: PathBuf,
    settings: Vec<String>,
}

impl Server {
    /// Starts it on a folder `name` of the bench's folder, which may hold a store.
    pub fn start(bench: &Bench, name: &str, settings: &[&str]) -> anyhow::Result<Self> {
        let data = bench.folder.join(name);
        std::fs::create_dir_all(&data)?;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self::launch(bench.muster.clone(), data, "127.0.0.1:0", settings)
    }

    /// Ends it as a power cut would and starts it again on the same port.
    pub fn restart(mut self) -> anyhow::Result<Self> {
        self.process.kill()?;
        let Self { muster, data, address, settings, .. } = self;
        Self::launch(muster, data, &address, settings)
    }

    /// Its management API.
    pub fn admin(&self) -> Admin {
        Admin::new(self.data.join("admin.sock"))
    }

    /// The CA to trust.
    pub fn ca(&self) -> PathBuf {
        self.data.join("ca.crt")
    }

    fn launch(muster: PathBuf, data: PathBuf, listen_on: &str, settings: Vec<String>) -> anyhow::Result<Self> {
        let listen = data.join("listen.json");
        let log = data.with_extension("log");
        match std::fs::remove_file(&listen) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut command = Command::new(&muster);
        command.args(["serve", "--local-listen", "none", "--admin-listen", "none", "--log-level", "warn"]);
        command.arg("--data-dir").arg(&data).args(["--agent-listen", listen_on]);
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        let began = Instant::now();
        let mut process = Process::start(&mut command, &log)?;
        let mut found = None;
        let ready = process.wait_until(|| {
            found = agent_address(&listen);
            found.is_some()
        });
        ready.with_context(|| format!("muster serve, see {}", log.display()))?;
        let address = found.context("it listens")?;
        let took = began.elapsed();
        Ok(Self { process, url: format!("https://{address}"), data, took, address, muster, settings })
    }
}

/// Where agents go, as `listen.json` says.
pub fn agent_address(listen: &std::path::Path) -> Option<String> {
    let listen: serde_json::Value = serde_json::from_slice(&std::fs::read(listen).ok()?).ok()?;
    Some(listen.get("agent")?.as_str()?.to_owned())
}
