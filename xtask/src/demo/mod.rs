//! `./demo` runs a server with its embedded store and an enrolled `muster-agent`, set up with the same commands that a
//! user would run. All files are under `target/demo`, which each run empties first.

mod check;
mod fleetd;
mod muster;
mod policy;
mod steps;

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use crate::process::Process;
use crate::shell;
pub use muster::{Muster, items};
pub use steps::Steps;

/// Maximum time for a program to stop.
const STOP: Duration = Duration::from_secs(15);

/// Arguments of `demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Number of additional simulated agents.
    #[arg(long, value_name = "N", default_value_t = 0)]
    drones: u32,
    /// Take the agent through its life cycle until it is unenrolled, and exit.
    #[arg(long)]
    check: bool,
    /// Use the programs of the last build, of which `cargo xtask test` is one.
    #[arg(long)]
    built: bool,
}

/// Running programs.
pub struct Demo {
    /// The programs.
    pub muster: Muster,
    server: Process,
    agent: Process,
    drones: Option<Process>,
    agent_id: String,
}

impl Demo {
    /// Starts a server with an agent.
    pub fn start(built: bool, steps: &mut Steps) -> anyhow::Result<Self> {
        set_up(&DemoArgs { drones: 0, check: false, built }, steps)
    }
}

/// Starts the demo, then waits for Ctrl-C or runs the check.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let mut steps = Steps::begin();
    let outcome =
        set_up(args, &mut steps).and_then(|demo| if args.check { check::run(demo, &mut steps) } else { stay(demo) });
    outcome.with_context(|| format!("the demo failed after \"{}\"; logs are in target/demo", steps.last()))
}

fn set_up(args: &DemoArgs, steps: &mut Steps) -> anyhow::Result<Demo> {
    // A debug build, because it is faster to build and the demo needs no performance.
    if !args.built {
        shell::run(shell::cargo(&["build", "--quiet", "--package", "muster", "--package", "muster-agent"]))?;
        steps.done("built");
    }
    let muster = Muster::in_clean_directory()?;
    let server = muster.start_server()?;
    steps.done(&format!("server is ready for agents at {}", muster.url()?));

    let revision = policy::apply(&muster)?;
    steps.done(&format!("policy \"{}\" applied, revision {revision}", policy::NAME));
    // Policies have a key already. The command is used to show how keys are created.
    let token = muster.json(&["enrollment-key", "create", "--policy", policy::NAME])?;
    let token = text(&token, "api_key")?;
    steps.done("enrollment key created");

    let drones =
        (args.drones > 0).then(|| muster.start_drones(&["--count", &args.drones.to_string()], &token)).transpose()?;
    let agent = muster.start_agent(&token)?;
    steps.done("agent enrolled and started");
    let agent_id = steps.wait(&format!("agent is online on revision {revision}"), || muster.online_agent(revision))?;
    Ok(Demo { muster, server, agent, drones, agent_id })
}

/// Prints commands to try next, and waits.
fn stay(mut demo: Demo) -> anyhow::Result<()> {
    let Demo { muster, agent_id, .. } = &demo;
    let tool = muster.tool();
    let link = muster.setup_link("admin")?;
    println!(
        "\nOpen the web pages, and set a password for the user admin. The link works once, within an hour:\n
  {link}\n
Try these commands in another terminal:\n
  export MUSTER_DATA_DIR={data}
  {tool} status
  {tool} agent list
  {tool} agent show {agent_id}
  {tool} policy show \"{name}\" --full
  {tool} policy apply -f {file}     (edit the file first; the agent applies the change)
  {tool} agent log-level --level debug {agent_id}
  {tool} action list
  {tool} agent unenroll {agent_id}
  tail -f {log}        (output of the policy's program)\n
Press Ctrl-C to stop.",
        data = muster.directory().join("server").display(),
        name = policy::NAME,
        file = muster.directory().join(policy::FILE).display(),
        log = muster.directory().join(policy::LOG).display(),
    );
    interrupted()?;
    println!("\nstopping");
    // The agent stops first, so that it does not log connection errors.
    demo.agent.stop(STOP)?;
    if let Some(mut drones) = demo.drones.take() {
        drones.stop(STOP)?;
    }
    demo.server.stop(STOP)?;
    Ok(())
}

fn interrupted() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            _ = terminated.recv() => {}
        }
        Ok(())
    })
}

/// Returns a required string field.
fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    Ok(value[field].as_str().with_context(|| format!("no {field} in {value}"))?.to_owned())
}

/// Returns the output of a program, or its error output if it fails.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?} exited with {}: {}", output.status, said.trim());
    Ok(String::from_utf8(output.stdout)?)
}
