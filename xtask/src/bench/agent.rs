//! Measures muster-agent: its size, its memory, what it does while nothing happens, and how fast it starts and applies a policy.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

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

/// Adds the rows. They do not depend on the engine of the server.
pub fn measure(bench: &Bench, table: &mut Table, agent: Option<&Path>) -> anyhow::Result<()> {
    say("agent");
    let program = stripped(agent, &bench.directory)?;
    let mut add = |figure: &str, unit, goal, ours| {
        let goals = Goals::sqlite(Goal::AtMost(goal));
        table.add(bench.engine, Row { figure: figure.into(), unit, goals, ours, other: None });
    };
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    add("muster-agent: size of the program", "MB", 10.0, megabytes(std::fs::metadata(&program)?.len()));

    // Policies name the gate, so that agents stay there.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let external = format!("external_url=https://{}", listener.local_addr()?);
    let server = Server::start(bench, "agent", &[&external])?;
    let admin = server.admin();
    let policy = admin.make_policy("agent", &json!({}))?;
    let token = admin.make_token(&policy)?;
    let gate = Gate::open(listener, &server.url)?;
    let subject = Subject { program, base: bench.directory.join("agent-base"), admin, policy };
    enroll(&subject, &server, &gate.url, &token)?;

    let mut agent = subject.start()?;
    std::thread::sleep(SETTLED);
    add("muster-agent: resident memory without inputs", "MB", 8.0, megabytes(agent.usage().resident()?));
    let (written, cpu) = (agent.usage().written()?, agent.usage().cpu()?);
    let idle = Duration::from_secs(u64::from(bench.sizes.idle));
    std::thread::sleep(idle);
    add("muster-agent: disk writes while idle", "bytes", 0.0, (agent.usage().written()? - written) as f64);
    let share = (agent.usage().cpu()? - cpu) / idle.as_secs_f64() * 100.0;
    add("muster-agent: CPU while idle", "% of a core", 0.1, share);

    let applied = apply_repeatedly(&subject)?;
    add("muster-agent: policy applied after its change, p50", "ms", 100.0, median(applied));

    let sleeper = |number: usize| json!({"id": format!("sleeper-{number}"), "type": "process", "command": "/bin/sleep", "args": ["100000"]});
    subject.apply(&(0..COMPONENTS).map(sleeper).collect::<Vec<_>>())?;
    let healthy = |status: Value| {
        let components = status["components"].as_array().map(Vec::as_slice).unwrap_or_default();
        components.iter().filter(|component| component["state"] == "HEALTHY").count() == COMPONENTS
    };
    agent.wait_until(|| subject.status().is_some_and(healthy))?;
    std::thread::sleep(SETTLED);
    add("muster-agent: resident memory with 20 components", "MB", 15.0, megabytes(agent.usage().resident()?));
    agent.stop(Duration::from_secs(30))?;

    add("muster-agent: first check-in after a cold start, p50", "ms", 100.0, median(starts(&subject, &gate)?));
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
fn starts(subject: &Subject, gate: &Gate) -> anyhow::Result<Vec<Duration>> {
    (0..REPEATS)
        .map(|_| {
            while gate.requests.try_recv().is_ok() {}
            let begun = Instant::now();
            let mut command = Command::new(&subject.program);
            command.arg("run").arg("--base-path").arg(&subject.base);
            let mut agent = Process::start(&mut command, &subject.base.with_extension("log"))?;
            let at = gate.requests.recv_timeout(Duration::from_secs(30)).context("no check-in")?;
            agent.stop(Duration::from_secs(30))?;
            Ok(at - begun)
        })
        .collect()
}

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort();
    all.get(all.len() / 2).map_or(0.0, |median| median.as_secs_f64() * 1e3)
}

/// Forwards connections to the server, and tells when a client has sent its first request.
struct Gate {
    url: String,
    requests: mpsc::Receiver<Instant>,
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
