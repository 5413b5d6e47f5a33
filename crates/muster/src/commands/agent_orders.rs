//! `muster agent unenroll|reassign|upgrade|diagnostics|log-level`: orders to agents.

use std::time::Duration;

use camino::Utf8PathBuf;
use clap::Args;
use muster_client::Client;
use muster_protocol::management::action::NewAction;
use muster_protocol::management::bulk::{
    AgentSelector, BulkActions, BulkDiagnostics, BulkReassign, BulkUnenroll, BulkUpgrade,
};
use muster_protocol::management::order::{Diagnostics, Ordered, Reassign, Unenroll, Upgrade};
use serde_json::json;

use super::failure::Failed;
use super::policy::find_policy;
use super::progress::wait_for;
use super::selection::{Chosen, Selection};

/// `--wait`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Wait until every agent has answered
    #[arg(long)]
    wait: bool,
    /// How long to wait, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

impl Wait {
    async fn finish(self, client: &Client, ordered: &Ordered) -> Result<(), Failed> {
        println!("{}", ordered.action_id);
        if self.wait {
            wait_for(client, &ordered.action_id, Duration::from_secs(self.timeout)).await?;
        }
        Ok(())
    }
}

/// Flags of `unenroll`.
#[derive(Args, Debug)]
pub struct UnenrollArgs {
    #[command(flatten)]
    selection: Selection,
    /// Revoke the keys now, without waiting for the agents
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Wait,
}

impl UnenrollArgs {
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let what = if self.force { "revoke the keys of and unenroll" } else { "unenroll" };
        let Chosen::These(agents) = self.selection.choose(client, what).await? else { return Ok(()) };
        let force = self.force.then_some(true);
        let ordered = match self.selection.single() {
            Some(agent) => client.unenroll(agent, &Unenroll { revoke: force, force }).await?,
            None => {
                let include_inactive = self.selection.include_inactive();
                let request =
                    BulkUnenroll { agents, include_inactive, batch_size: None, dry_run: None, revoke: force, force };
                client.bulk(&request).await?
            }
        };
        self.wait.finish(client, &ordered).await
    }
}

/// Flags of `reassign`.
#[derive(Args, Debug)]
pub struct ReassignArgs {
    #[command(flatten)]
    selection: Selection,
    /// The policy, by name or id
    #[arg(long, required_unless_present = "no_policy", conflicts_with = "no_policy")]
    policy: Option<String>,
    /// No policy: the agents stay enrolled and keep checking in
    #[arg(long)]
    no_policy: bool,
    #[command(flatten)]
    wait: Wait,
}

impl ReassignArgs {
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = match &self.policy {
            Some(named) => Some(find_policy(client, named).await?),
            None => None,
        };
        let what = match &policy {
            Some(policy) => format!("put on the policy {:?}", policy.name),
            None => "take the policy from".to_owned(),
        };
        let Chosen::These(agents) = self.selection.choose(client, &what).await? else { return Ok(()) };
        let policy_id = policy.map(|policy| policy.id);
        let ordered = match self.selection.single() {
            Some(agent) => client.reassign(agent, &Reassign { policy_id, force: None }).await?,
            None => {
                let include_inactive = self.selection.include_inactive();
                let (batch_size, dry_run, force) = (None, None, None);
                let request = BulkReassign { agents, include_inactive, batch_size, dry_run, policy_id, force };
                client.bulk(&request).await?
            }
        };
        self.wait.finish(client, &ordered).await
    }
}

/// Flags of `upgrade`.
#[derive(Args, Debug)]
pub struct UpgradeArgs {
    #[command(flatten)]
    selection: Selection,
    /// The version
    #[arg(long)]
    version: String,
    /// Where agents fetch it
    #[arg(long, value_name = "URL")]
    source_uri: Option<String>,
    /// Spread the start over this time: 10m, 4h
    #[arg(long, value_name = "TIME")]
    rollout: Option<String>,
    /// When to start, RFC 3339
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Also where the rules say no
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Wait,
}

impl UpgradeArgs {
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let rollout = self.rollout.as_deref().map(seconds).transpose()?;
        let what = format!("upgrade to {}", self.version);
        let Chosen::These(agents) = self.selection.choose(client, &what).await? else { return Ok(()) };
        let ordered = match self.selection.single() {
            // The order to one agent knows no time.
            Some(agent) if rollout.is_none() && self.start.is_none() => client.upgrade(agent, &self.single()).await?,
            _ => client.bulk(&self.bulk(agents, rollout)).await?,
        };
        self.wait.finish(client, &ordered).await
    }

    fn single(&self) -> Upgrade {
        Upgrade {
            version: self.version.clone(),
            source_uri: self.source_uri.clone(),
            force: self.force.then_some(true),
            skip_rate_limit_check: None,
        }
    }

    fn bulk(&self, agents: AgentSelector, rollout: Option<i64>) -> BulkUpgrade {
        BulkUpgrade {
            agents,
            include_inactive: self.selection.include_inactive(),
            batch_size: None,
            dry_run: None,
            version: self.version.clone(),
            source_uri: self.source_uri.clone(),
            force: self.force.then_some(true),
            skip_rate_limit_check: None,
            rollout_duration_seconds: rollout,
            start_time: self.start.clone(),
        }
    }
}

/// `90s`, `10m`, `4h`, `2d` in seconds.
fn seconds(text: &str) -> Result<i64, Failed> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    match number.parse::<i64>() {
        Ok(number) if factor > 0 && number > 0 => Ok(number.saturating_mul(factor)),
        _ => Err(Failed::usage(format!("{text:?} is no time")).remedy("write a number with s, m, h or d: 4h")),
    }
}

/// Flags of `diagnostics`.
#[derive(Args, Debug)]
pub struct DiagnosticsArgs {
    #[command(flatten)]
    selection: Selection,
    /// CPU profile as well
    #[arg(long)]
    cpu: bool,
    /// Folder to put the bundle in; one agent only, needs --wait
    #[arg(long, value_name = "DIR", requires = "wait")]
    download: Option<Utf8PathBuf>,
    #[command(flatten)]
    wait: Wait,
}

impl DiagnosticsArgs {
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        if self.download.is_some() && self.selection.single().is_none() {
            return Err(Failed::usage("--download takes one agent"));
        }
        let Chosen::These(agents) = self.selection.choose(client, "ask for diagnostics of").await? else {
            return Ok(());
        };
        let additional_metrics = self.cpu.then(|| vec!["CPU".to_owned()]);
        let ordered = match self.selection.single() {
            Some(agent) => client.request_diagnostics(agent, &Diagnostics { additional_metrics }).await?,
            None => {
                let include_inactive = self.selection.include_inactive();
                let (batch_size, dry_run) = (None, None);
                let request = BulkDiagnostics { agents, include_inactive, batch_size, dry_run, additional_metrics };
                client.bulk(&request).await?
            }
        };
        self.wait.finish(client, &ordered).await?;
        match (&self.download, self.selection.single()) {
            (Some(folder), Some(agent)) => download(client, agent, &ordered.action_id, folder).await,
            _ => Ok(()),
        }
    }
}

async fn download(client: &Client, agent: &str, action: &str, folder: &Utf8PathBuf) -> Result<(), Failed> {
    let uploads = client.agent_uploads(agent).await?;
    let upload = uploads.into_iter().find(|upload| upload.action_id == action);
    let upload = upload.ok_or_else(|| Failed::not_found("the agent has not uploaded a bundle for this action"))?;
    // The name comes from the agent: its last part alone, and nothing that a shell or terminal reads.
    let safe = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let name: String = upload.name.chars().map(safe).collect();
    let path = folder.join(format!("{agent}-{}", name.trim_start_matches('.')));
    let mut file = tokio::fs::File::create(&path).await?;
    let bytes = client.download_upload(&upload.id, &upload.name, &mut file).await?;
    println!("{path} ({bytes} bytes)");
    Ok(())
}

/// Flags of `log-level`.
#[derive(Args, Debug)]
pub struct SettingsArgs {
    /// trace, debug, info, warning, error; `reset`: as the policy says
    #[arg(long, value_parser = ["trace", "debug", "info", "warning", "error", "reset"])]
    level: String,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    wait: Wait,
}

impl SettingsArgs {
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let what = format!("set the log level {} on", self.level);
        let Chosen::These(agents) = self.selection.choose(client, &what).await? else { return Ok(()) };
        let level = (self.level != "reset").then_some(self.level);
        let action =
            NewAction { kind: "SETTINGS".into(), data: Some(json!({"log_level": level})), ..NewAction::default() };
        let ordered = match self.selection.single() {
            Some(agent) => Ordered { action_id: client.create_action(agent, action).await?.id },
            None => {
                let include_inactive = self.selection.include_inactive();
                let request = BulkActions { agents, include_inactive, batch_size: None, dry_run: None, action };
                client.bulk(&request).await?
            }
        };
        self.wait.finish(client, &ordered).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_units() {
        assert_eq!(seconds("4h").unwrap(), 14_400);
        for bad in ["", "h", "4", "-1h", "4y", "ä"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
