//! Waiting for an action, with a progress bar on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use muster_client::Client;
use muster_core::shell;
use muster_protocol::management::action::ActionStatus;
use tokio::time::Instant;

use super::failure::Failed;

/// Time between two requests for the status of the action.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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
