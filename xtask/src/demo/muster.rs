//! The programs of the demo and their directories.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use super::output;
use crate::process::Process;
use crate::shell;

/// `muster` and `muster-agent`, with the directory of the demo.
pub struct Muster {
    directory: PathBuf,
    programs: PathBuf,
}

impl Muster {
    /// Empties `target/demo`.
    pub fn in_clean_directory() -> anyhow::Result<Self> {
        let directory = shell::root().join("target/demo");
        if directory.try_exists()? {
            std::fs::remove_dir_all(&directory).context("cannot empty target/demo; another demo may be running")?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory, programs: shell::target()?.join("debug") })
    }

    /// Returns the directory of the demo.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the path of the `muster` command.
    pub fn tool(&self) -> String {
        let program = self.programs.join("muster");
        // Relative, so that the printed commands are short.
        program.strip_prefix(shell::root()).unwrap_or(&program).display().to_string()
    }

    /// Starts the server on free ports, and returns when it is ready.
    pub fn start_server(&self) -> anyhow::Result<Process> {
        let mut command = self.command("muster");
        // Port 0 selects a free port, so that the demo can run beside a server.
        command.args([
            "serve",
            "--agent-listen",
            "127.0.0.1:0",
            "--local-listen",
            "none",
            "--admin-listen",
            "127.0.0.1:0",
        ]);
        command.arg("--data-dir").arg(self.data());
        let mut server = Process::start(&mut command, &self.directory.join("server.log"))?;
        server.wait_until(|| self.url().is_ok()).context("muster serve, see target/demo/server.log")?;
        Ok(server)
    }

    /// Returns the URL for agents.
    pub fn url(&self) -> anyhow::Result<String> {
        Ok(format!("https://{}", self.listener("agent")?))
    }

    /// Returns the URL of the web pages.
    pub fn pages_url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.listener("admin")?))
    }

    /// Returns the URL of the page on which a user sets a password.
    pub fn setup_link(&self, user: &str) -> anyhow::Result<String> {
        let link = self.json(&["user", "setup-link", user])?;
        let token = super::text(&link, "token")?;
        Ok(format!("{}/setup?token={}", self.pages_url()?, token.replace('=', "%3D")))
    }

    /// Returns the path of the socket for administrators.
    pub fn socket(&self) -> PathBuf {
        self.data().join("admin.sock")
    }

    /// Sends a request as an agent does, by `curl`, and returns the response; null if it is empty.
    pub fn send(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--json", &body.to_string()]).arg("--cacert").arg(self.ca());
        let text = output(curl.arg(format!("{}{path}", self.url()?)))?;
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    fn listener(&self, name: &str) -> anyhow::Result<String> {
        let listen = std::fs::read(self.data().join("listen.json"))?;
        super::text(&serde_json::from_slice(&listen)?, name)
    }

    /// Installs and starts the agent. Without a service manager, so that the demo changes nothing outside of its
    /// directory.
    pub fn start_agent(&self, token: &str) -> anyhow::Result<Process> {
        let mut install = self.command("muster-agent");
        install.args(["install", "--service", "none", "--tag", "demo", "--url", &self.url()?]);
        install.arg("--certificate-authorities").arg(self.ca()).arg("--base-path").arg(self.agent_directory());
        output(install.env("MUSTER_ENROLLMENT_TOKEN", token))?;
        let mut installed = Command::new(self.agent_directory().join("muster-agent"));
        Process::start(installed.arg("run"), &self.directory.join("agent.log"))
    }

    /// Starts simulated agents with these arguments of `muster drones`.
    pub fn start_drones(&self, arguments: &[&str], token: &str) -> anyhow::Result<Process> {
        self.start(arguments, token, &self.directory.join("drones.log"))
    }

    /// Starts a simulated host with orbit and osqueryd, which asks for queries several times a second.
    pub fn start_fleetd_host(&self, secret: &str) -> anyhow::Result<Process> {
        let arguments = ["--json", "--family", "fleetd", "--count", "1", "--first", "7", "--interval", "0.2"];
        self.start(&arguments, secret, &self.fleetd_log())
    }

    fn start(&self, arguments: &[&str], token: &str, log: &Path) -> anyhow::Result<Process> {
        let mut command = self.command("muster");
        command.arg("drones").args(arguments).args(["--url", &self.url()?, "--back-off", "1"]);
        Process::start(command.arg("--ca").arg(self.ca()).env("MUSTER_ENROLLMENT_TOKEN", token), log)
    }

    /// Returns the path of the events of the simulated host.
    pub fn fleetd_log(&self) -> PathBuf {
        self.directory.join("fleetd.log")
    }

    /// Returns the output of `muster` as JSON.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.run(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("muster {arguments:?} printed {text:?}"))
    }

    /// Returns the output of `muster`.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(self.command("muster").args(arguments).env("MUSTER_DATA_DIR", self.data()))
    }

    /// Returns the demo's agent if it is online with this revision.
    pub fn online_agent(&self, revision: i64) -> anyhow::Result<Option<String>> {
        let agents = self.json(&["agent", "list", "--filter", "tags:demo"])?;
        let is_online = |agent: &&Value| agent["status"] == "online" && agent["policy_revision"] == revision;
        Ok(items(&agents).find(is_online).and_then(|agent| agent["id"].as_str()).map(str::to_owned))
    }

    fn agent_directory(&self) -> PathBuf {
        self.directory.join("agent")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(shell::root());
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.join("server")
    }

    fn ca(&self) -> PathBuf {
        self.data().join("ca.crt")
    }
}

/// Returns the elements of a list.
pub fn items(listing: &Value) -> impl Iterator<Item = &Value> {
    listing.as_array().or_else(|| listing["items"].as_array()).into_iter().flatten()
}
