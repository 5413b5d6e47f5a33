//! The other server: bare Go, which holds connections and does nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::{say, server};
use crate::process::Process;
use crate::shell;

/// The built program.
pub struct Peer {
    program: PathBuf,
    folder: PathBuf,
}

/// One that runs.
pub struct Running {
    /// Its process.
    pub process: Process,
    /// Returns the address for agents.
    pub url: String,
    /// The CA to trust.
    pub ca: PathBuf,
}

impl Peer {
    /// Builds it, if Go is there.
    pub fn build(folder: &Path) -> anyhow::Result<Option<Self>> {
        let program = folder.join("go-hold");
        let source = shell::root().join("bench/go-hold");
        let mut command = Command::new("go");
        command.current_dir(source).env("CGO_ENABLED", "0").arg("build").arg("-o").arg(&program).arg(".");
        match command.status() {
            Ok(status) if status.success() => Ok(Some(Self { program, folder: folder.to_owned() })),
            Ok(status) => anyhow::bail!("go build of bench/go-hold ended with {status}"),
            Err(_) => {
                say("Go is not installed: the columns of the other server stay empty");
                Ok(None)
            }
        }
    }

    /// Starts one that holds each request for a while (`0s`: answers at once).
    pub fn start(&self, hold: &str) -> anyhow::Result<Running> {
        let folder = self.folder.join(format!("go-{hold}"));
        if folder.try_exists()? {
            // An address of an earlier run would be taken for this one's.
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let log = folder.join("log");
        let mut command = Command::new(&self.program);
        let mut process = Process::start(command.arg("-dir").arg(&folder).args(["-hold", hold]), &log)?;
        let mut address = None;
        let ready = process.wait_until(|| {
            address = server::agent_address(&folder.join("listen.json"));
            address.is_some()
        });
        ready.with_context(|| format!("go-hold, see {}", log.display()))?;
        let url = format!("https://{}", address.context("it listens")?);
        Ok(Running { process, url, ca: folder.join("ca.crt") })
    }
}
