//! `./demo --check` observes the life cycle of an agent from outside.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::muster::{Muster, items};
use super::steps::Steps;
use super::{Demo, STOP, policy, text};

/// Interval of the demo program's output.
const SILENCE: Duration = Duration::from_secs(4);

/// Continues with the online agent until it is unenrolled.
pub fn run(demo: Demo, steps: &mut Steps) -> anyhow::Result<()> {
    let Demo { muster, mut server, mut agent, drones, agent_id } = demo;
    drop(drones);
    steps.wait("the policy's program is running", || Ok(last_heartbeat(&muster).map(drop)))?;

    super::fleetd::check(&muster, steps)?;
    muster.run(&["agent", "log-level", "--level", "debug", &agent_id, "--yes"])?;
    let actions = muster.json(&["action", "list"])?;
    let action = items(&actions).next().context("the list of actions is empty")?;
    let action = text(action, "actionId").or_else(|_| text(action, "id"))?;
    steps.done("action created");
    muster.run(&["action", "wait", &action, "--timeout", "60"])?;
    steps.done("action acknowledged by the agent");

    let rollout = policy::roll_out(&muster)?;
    steps.done("change of the policy started in waves");
    steps.wait("the change has reached all agents", || {
        let shown = muster.json(&["rollout", "show", &rollout])?;
        anyhow::ensure!(shown["state"] != "halted", "the rollout halted: {}", shown["reason"]);
        Ok((shown["state"] == "completed").then_some(()))
    })?;

    muster.run(&["agent", "unenroll", &agent_id, "--yes"])?;
    steps.done("agent unenrolled");
    let ended = agent.wait(Duration::from_secs(60))?.context("the agent is still running after a minute")?;
    anyhow::ensure!(ended.success(), "the agent exited with {ended}");
    steps.done("agent exited");
    let shown = muster.json(&["agent", "show", &agent_id])?;
    anyhow::ensure!(shown["status"] == "unenrolled", "the status of the agent is {}", shown["status"]);
    let exposed = muster.json(&["agent", "respond", &agent_id, "--reason", "the demo ends", "--yes"])?;
    anyhow::ensure!(exposed["exposures"].is_array(), "no list of what the agent could read: {exposed}");
    steps.done("listed what the agent could read");
    let silent = last_heartbeat(&muster).and_then(|at| at.elapsed().ok()).unwrap_or_default();
    std::thread::sleep(SILENCE.saturating_sub(silent));
    let silent = last_heartbeat(&muster).and_then(|at| at.elapsed().ok()).unwrap_or_default();
    anyhow::ensure!(silent >= SILENCE, "the policy's program is still running");
    steps.done("the policy's program stopped");

    let ended = server.stop(STOP)?.context("the server did not stop")?;
    anyhow::ensure!(ended.success(), "the server exited with {ended}");
    steps.done("server stopped");
    Ok(())
}

/// Returns the time of the last output of the program.
fn last_heartbeat(muster: &Muster) -> Option<SystemTime> {
    std::fs::metadata(muster.directory().join(policy::LOG)).ok()?.modified().ok()
}
