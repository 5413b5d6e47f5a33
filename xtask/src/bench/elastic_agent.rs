//! Measures a real Elastic Agent like muster-agent, at the same server: what both have in common.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::agent::{Gate, Idle, median, starts};
use super::server::Server;
use super::{Bench, say};
use crate::process::Process;

/// Number of starts that are measured.
const REPEATS: usize = 5;

/// The figures.
#[derive(Debug)]
pub struct Figures {
    /// Name and version, for the head of the table.
    pub name: String,
    /// Size of the program, bytes.
    pub size: u64,
    /// What it does without inputs.
    pub idle: Idle,
    /// Time from its start until its first request, the median, milliseconds.
    pub start: f64,
}

/// An Elastic Agent with a directory of its own.
struct Subject {
    directory: PathBuf,
}

impl Subject {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(self.directory.join("elastic-agent"));
        command.current_dir(&self.directory).arg(verb);
        for part in ["home", "config", "logs"] {
            command.arg(format!("--path.{part}")).arg(&self.directory);
        }
        command.arg("--path.socket").arg(format!("unix://{}/agent.sock", self.directory.display()));
        command
    }
}

/// Enrolls and measures this program, which must have been built for this machine.
pub fn measure(bench: &Bench, program: &Path, server: &Server, gate: &Gate) -> anyhow::Result<Figures> {
    say("Elastic Agent");
    let subject = Subject { directory: std::path::absolute(bench.directory.join("elastic-agent"))? };
    let version = version(program)?;
    std::fs::create_dir_all(&subject.directory)?;
    let copy = subject.directory.join("elastic-agent");
    std::fs::copy(program, &copy).with_context(|| program.display().to_string())?;
    // Without these files of its package, it does not start or does not enroll.
    std::fs::write(subject.directory.join("package.version"), &version)?;
    std::fs::write(subject.directory.join("elastic-agent.yml"), "fleet:\n  enabled: true\n")?;

    let admin = server.admin();
    let token = admin.make_token(&admin.make_policy("elastic-agent", &json!({}))?)?;
    let mut enroll = subject.command("enroll");
    enroll.args(["--url", &gate.url, "--enrollment-token", &token, "--skip-daemon-reload", "--force"]);
    let output = enroll.arg("--certificate-authorities").arg(std::path::absolute(server.ca())?).output()?;
    anyhow::ensure!(output.status.success(), "enroll: {}", String::from_utf8_lossy(&output.stderr));

    let log = subject.directory.with_extension("log");
    while gate.requests.try_recv().is_ok() {}
    let mut agent = Process::start(&mut subject.command("run"), &log)?;
    gate.requests.recv_timeout(Duration::from_secs(60)).context("no check-in of the Elastic Agent")?;
    let idle = Idle::measure(bench, &agent)?;
    agent.stop(Duration::from_secs(60))?;
    let start = median(starts(gate, REPEATS, &log, || subject.command("run"))?);
    Ok(Figures { name: format!("Elastic Agent {version}"), size: std::fs::metadata(&copy)?.len(), idle, start })
}

/// Returns the version that the program prints: `Binary: 8.18.8 (build: …)`.
fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).args(["version", "--binary-only"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = text.split("Binary: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    word.map(str::to_owned).with_context(|| format!("{} printed no version: {text}", program.display()))
}
