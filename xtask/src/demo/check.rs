//! `./demo --check`: the whole life of an agent, observed from outside.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::muster::{Muster, items};
use super::steps::Steps;
use super::{Demo, STOP, policy, text};

/// Interval of the demo program's output.
const SILENCE: Duration = Duration::from_secs(4);

/// Continues from the online agent to its unenrollment.
pub fn run(demo: Demo, steps: &mut Steps) -> anyhow::Result<()> {
    let Demo { muster, mut server, mut agent, drones, agent_id } = demo;
    drop(drones);
    steps.wait("the program on the policy runs", || Ok(last_heartbeat(&muster).map(drop)))?;

    muster.run(&["agent", "log-level", "--level", "debug", &agent_id, "--yes"])?;
    let actions = muster.json(&["action", "list"])?;
    let action = items(&actions).next().context("no action is listed")?;
    let action = text(action, "actionId").or_else(|_| text(action, "id"))?;
    steps.done("an action was given");
    muster.run(&["action", "wait", &action, "--timeout", "60"])?;
    steps.done("the agent ran and acked it");

    muster.run(&["agent", "unenroll", &agent_id, "--yes"])?;
    steps.done("the agent was unenrolled");
    let ended = agent.wait(Duration::from_secs(60))?.context("the agent still runs a minute later")?;
    anyhow::ensure!(ended.success(), "the agent ended with {ended}");
    steps.done("the agent stopped by itself");
    let shown = muster.json(&["agent", "show", &agent_id])?;
    anyhow::ensure!(shown["status"] == "unenrolled", "it is shown as {}", shown["status"]);
    let silent = last_heartbeat(&muster).and_then(|at| at.elapsed().ok()).unwrap_or_default();
    std::thread::sleep(SILENCE.saturating_sub(silent));
    let silent = last_heartbeat(&muster).and_then(|at| at.elapsed().ok()).unwrap_or_default();
    anyhow::ensure!(silent >= SILENCE, "the program on the policy still runs");
    steps.done("its program stopped too");

    let ended = server.stop(STOP)?.context("the server does not stop")?;
    anyhow::ensure!(ended.success(), "the server ended with {ended}");
    steps.done("the server stopped");
    Ok(())
}

/// Returns the time of the program's last output.
fn last_heartbeat(muster: &Muster) -> Option<SystemTime> {
    std::fs::metadata(muster.folder().join(policy::LOG)).ok()?.modified().ok()
}
