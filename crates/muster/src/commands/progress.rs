//! Waiting for an action, or for a run on hosts, with a progress bar on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use muster_client::Client;
use muster_core::plural::counted;
use muster_core::shell;
use muster_protocol::management::action::ActionStatus;
use tokio::time::Instant;

use super::failure::Failed;

/// Time between two requests for the status of the action.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time between two requests for the state of a run on hosts, which need longer.
const LOOK_AT_HOSTS_EVERY: Duration = Duration::from_millis(500);

/// KQL that matches all hosts with orbit.
pub const ALL_HOSTS: &str = "family:orbit";

/// Maximum timeout. Keeps the deadline within the range of the clock.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// Waits at most `timeout` for an action to complete. Returns an error if the action failed, was cancelled, expired, or
/// is still pending.
pub async fn wait_for(client: &Client, action_id: &str, timeout: Duration) -> Result<(), Failed> {
    let end = Instant::now() + timeout.min(LONGEST);
    let bar = ProgressBar::new(0).with_style(style());
    loop {
        let status = client.action(action_id).await?;
        bar.set_length(u64::try_from(status.nb_agents_actioned).unwrap_or(0));
        bar.set_position(u64::try_from(status.nb_agents_ack + status.nb_agents_failed).unwrap_or(0));
        bar.set_message(status.status.to_lowercase());
        match status.status.as_str() {
            "COMPLETE" => {
                bar.finish_and_clear();
                return Ok(());
            }
            // After ROLLOUT_PASSED, agents can still answer.
            "IN_PROGRESS" | "ROLLOUT_PASSED" if Instant::now() < end => tokio::time::sleep(LOOK_EVERY).await,
            _ => {
                bar.finish_and_clear();
                return Err(unfinished(&status));
            }
        }
    }
}

/// How far a run on hosts is.
pub struct OnHosts {
    /// Number of targets.
    pub targets: u64,
    /// Number of targets that have ended.
    pub finished: u64,
    /// Number of targets that have ended without success.
    pub failed: u64,
    /// State of the run.
    pub state: String,
}

impl OnHosts {
    /// Waits until all hosts have reported, or their time is over.
    pub async fn wait(look: impl AsyncFn() -> Result<Self, Failed>) -> Result<Self, Failed> {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} hosts {msg} {elapsed}");
        let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        loop {
            let run = look().await?;
            bar.set_length(run.targets);
            bar.set_position(run.finished);
            bar.set_message(if run.failed > 0 { format!("{} failed", run.failed) } else { String::new() });
            if run.state != "running" {
                bar.finish_and_clear();
                return Ok(run);
            }
            tokio::time::sleep(LOOK_AT_HOSTS_EVERY).await;
        }
    }

    /// Returns an error unless the run has succeeded on all hosts.
    pub fn outcome(&self) -> Result<(), Failed> {
        let told = format!("{} of {} reported, {} failed", self.finished, counted(self.targets, "host"), self.failed);
        if self.state == "complete" && self.failed == 0 {
            eprintln!("{told}");
            return Ok(());
        }
        Err(Failed::new(if self.state == "complete" { told } else { format!("{}: {told}", self.state) }))
    }
}

fn unfinished(status: &ActionStatus) -> Failed {
    let word = status.status.to_lowercase().replace('_', " ");
    let counts =
        format!("{} acked, {} failed, of {}", status.nb_agents_ack, status.nb_agents_failed, status.nb_agents_actioned);
    let first = status.latest_errors.first().map(|error| format!("; agent {}: {}", error.agent_id, error.error));
    Failed::new(format!("action {} is {word}: {counts}{}", status.action_id, first.unwrap_or_default()))
        .remedy(format!("muster action show {}", shell::argument(&status.action_id)))
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
