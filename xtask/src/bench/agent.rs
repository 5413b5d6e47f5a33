//! Measures muster-agent: its size, its memory, what it does while nothing happens, and how fast it starts and applies a policy.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::elastic_agent;
use super::server::Server;
use super::table::{Goal, Goals, Row, Table};
use super::{Bench, say};
use crate::admin::Admin;
use crate::process::Process;
use crate::{release, shell};

/// Time between the start of the agent and the measurement of its memory.
const SETTLED: Duration = Duration::from_secs(20);
/// Number of components of the second measurement.
const COMPONENTS: usize = 20;
/// Number of starts and of changed policies that are measured.
const REPEATS: usize = 20;

/// An agent with a base path of its own, and a server.
struct Subject {
    program: PathBuf,
    base: PathBuf,
    admin: Admin,
    policy: String,
}

impl Subject {
    fn start(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--base-path").arg(&self.base);
        // As the services that `install` defines.
        command
            .env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=65536:glibc.malloc.top_pad=0");
        let mut agent = Process::start(&mut command, &self.base.with_extension("log"))?;
        agent.wait_until(|| self.status().is_some_and(|status| status["fleet"]["state"] == "HEALTHY"))?;
        Ok(agent)
    }

    fn status(&self) -> Option<Value> {
        let mut command = Command::new(&self.program);
        let output = command.args(["status", "--output", "json", "--base-path"]).arg(&self.base).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Replaces the policy by one with these inputs.
    fn apply(&self, inputs: &[Value]) -> anyhow::Result<()> {
        let policy = json!({"name": "agent", "namespace": "default", "config": {"inputs": inputs}});
        self.admin.put(&format!("/api/fleet/agent_policies/{}", self.policy), &policy).map(drop)
    }
}

/// What an agent without inputs does.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Resident memory, bytes.
    pub resident: u64,
    /// Written to disk in the time `--idle`, bytes.
    pub written: u64,
    /// CPU time, percent of a core.
    pub cpu: f64,
}

impl Idle {
    /// Measures an agent that was just started.
    pub fn measure(bench: &Bench, agent: &Process) -> anyhow::Result<Self> {
        std::thread::sleep(SETTLED);
        let resident = agent.usage().resident()?;
        let (written, cpu) = (agent.usage().written()?, agent.usage().cpu()?);
        let idle = Duration::from_secs(u64::from(bench.sizes.idle));
        std::thread::sleep(idle);
        let cpu = (agent.usage().cpu()? - cpu) / idle.as_secs_f64() * 100.0;
        Ok(Self { resident, written: agent.usage().written()? - written, cpu })
    }
}

/// The programs to measure.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// muster-agent; `None` builds it.
    pub muster_agent: Option<&'a Path>,
    /// An Elastic Agent beside it, if there is one.
    pub elastic_agent: Option<&'a Path>,
}

/// Adds the rows. They do not depend on the engine of the server.
pub fn measure(bench: &Bench, table: &mut Table, programs: Programs<'_>) -> anyhow::Result<()> {
    say("agent");
    let program = stripped(programs.muster_agent, &bench.directory)?;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;

    // Policies name the gate, so that agents stay there.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let external = format!("external_url=https://{}", listener.local_addr()?);
    let server = Server::start(bench, "agent", &[&external])?;
    let admin = server.admin();
    let policy = admin.make_policy("agent", &json!({}))?;
    let token = admin.make_token(&policy)?;
    let gate = Gate::open(listener, &server.url)?;
    // First, so that nothing runs beside either of them.
    let elastic = programs.elastic_agent.map(|elastic| elastic_agent::measure(bench, elastic, &server, &gate));
    let elastic = elastic.transpose()?;
    if let Some(elastic) = &elastic {
        table.name_other_agent(&elastic.name);
    }
    let of_elastic = |value: fn(&elastic_agent::Figures) -> f64| elastic.as_ref().map(value);
    let mut add = |figure: &str, unit, goal, ours, other| {
        let goals = Goals::sqlite(Goal::AtMost(goal));
        table.add(bench.engine, Row { figure: format!("muster-agent: {figure}"), unit, goals, ours, other });
    };
    let size = std::fs::metadata(&program)?.len();
    add("size of the program", "MB", 10.0, megabytes(size), of_elastic(|other| other.size as f64 / 1e6));
    let subject = Subject { program, base: bench.directory.join("agent-base"), admin, policy };
    enroll(&subject, &server, &gate.url, &token)?;

    let mut agent = subject.start()?;
    let idle = Idle::measure(bench, &agent)?;
    let resident = of_elastic(|other| other.idle.resident as f64 / 1e6);
    add("resident memory without inputs", "MB", 8.0, megabytes(idle.resident), resident);
    let written = of_elastic(|other| other.idle.written as f64);
    add("disk writes while idle", "bytes", 0.0, idle.written as f64, written);
    add("CPU while idle", "% of a core", 0.1, idle.cpu, of_elastic(|other| other.idle.cpu));

    let applied = apply_repeatedly(&subject)?;
    // Elastic Agent has no input of which a program on the host could see the same.
    add("policy applied after its change, p50", "ms", 100.0, median(applied), None);

    let sleeper = |number: usize| json!({"id": format!("sleeper-{number}"), "type": "process", "command": "/bin/sleep", "args": ["100000"]});
    subject.apply(&(0..COMPONENTS).map(sleeper).collect::<Vec<_>>())?;
    let healthy = |status: Value| {
        let components = status["components"].as_array().map(Vec::as_slice).unwrap_or_default();
        components.iter().filter(|component| component["state"] == "HEALTHY").count() == COMPONENTS
    };
    agent.wait_until(|| subject.status().is_some_and(healthy))?;
    std::thread::sleep(SETTLED);
    add("resident memory with 20 components", "MB", 15.0, megabytes(agent.usage().resident()?), None);
    agent.stop(Duration::from_secs(30))?;

    let run = || {
        let mut command = Command::new(&subject.program);
        command.arg("run").arg("--base-path").arg(&subject.base);
        command
    };
    let start = median(starts(&gate, REPEATS, &subject.base.with_extension("log"), run)?);
    add("first check-in after a cold start, p50", "ms", 100.0, start, of_elastic(|other| other.start));
    Ok(())
}

/// Returns a copy of the program without symbols, as in a release. Builds it, unless there is one.
fn stripped(agent: Option<&Path>, directory: &Path) -> anyhow::Result<PathBuf> {
    let built = release::agent()?;
    if agent.is_none() {
        shell::run(release::agent_build())?;
    }
    let program = directory.join("muster-agent");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&program).arg(agent.unwrap_or(&built));
    shell::run(strip)?;
    Ok(program)
}

fn enroll(subject: &Subject, server: &Server, url: &str, token: &str) -> anyhow::Result<()> {
    let mut enroll = Command::new(&subject.program);
    enroll.args(["enroll", "--url", url, "--attempts", "1", "--base-path"]).arg(&subject.base);
    enroll.arg("--certificate-authorities").arg(server.ca()).env("MUSTER_ENROLLMENT_TOKEN", token);
    let output = enroll.output()?;
    anyhow::ensure!(output.status.success(), "enroll: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Measures from the request that changes the policy until its program runs.
fn apply_repeatedly(subject: &Subject) -> anyhow::Result<Vec<Duration>> {
    (0..REPEATS)
        .map(|number| {
            let mark = subject.base.with_extension(format!("mark-{number}"));
            let script = format!("touch {}; exec sleep 100000", mark.display());
            let input = json!({"id": "mark", "type": "process", "command": "/bin/sh", "args": ["-c", script]});
            let begun = Instant::now();
            subject.apply(&[input])?;
            while !mark.try_exists()? {
                anyhow::ensure!(begun.elapsed() < Duration::from_secs(30), "the policy was not applied");
                std::thread::sleep(Duration::from_millis(1));
            }
            let took = begun.elapsed();
            // A check-in that reports the new component may be next; the policy must find a held one.
            std::thread::sleep(Duration::from_secs(2));
            Ok(took)
        })
        .collect()
}

/// Measures from the start of the process until its first request arrives at the server.
pub fn starts(gate: &Gate, repeats: usize, log: &Path, run: impl Fn() -> Command) -> anyhow::Result<Vec<Duration>> {
    (0..repeats)
        .map(|_| {
            while gate.requests.try_recv().is_ok() {}
            let begun = Instant::now();
            let mut agent = Process::start(&mut run(), log)?;
            let at = gate.requests.recv_timeout(Duration::from_secs(30)).context("no check-in")?;
            agent.stop(Duration::from_secs(30))?;
            Ok(at - begun)
        })
        .collect()
}

/// Returns the median in milliseconds.
pub fn median(mut all: Vec<Duration>) -> f64 {
    all.sort();
    all.get(all.len() / 2).map_or(0.0, |median| median.as_secs_f64() * 1e3)
}

/// Forwards connections to the server, and tells when a client has sent its first request.
pub struct Gate {
    /// Its URL.
    pub url: String,
    /// When the first request of each connection came.
    pub requests: mpsc::Receiver<Instant>,
}

impl Gate {
    fn open(listener: TcpListener, server: &str) -> anyhow::Result<Self> {
        let url = format!("https://{}", listener.local_addr()?);
        let server = server.trim_start_matches("https://").to_owned();
        let (sender, requests) = mpsc::channel();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, sender) = (server.clone(), sender.clone());
                std::thread::spawn(move || forward(client, &server, &sender));
            }
        });
        Ok(Self { url, requests })
    }
}

fn forward(mut client: TcpStream, server: &str, requests: &mpsc::Sender<Instant>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
    let mut buffer = vec![0; 64 << 10];
    let mut sent = 0;
    loop {
        let length = client.read(&mut buffer)?;
        if length == 0 {
            return server.shutdown(std::net::Shutdown::Write);
        }
        sent += 1;
        // First the greeting of TLS, then its end together with the request.
        if sent == 2 {
            // Nobody may be waiting.
            let _ = requests.send(Instant::now());
        }
        server.write_all(&buffer[..length])?;
    }
}
