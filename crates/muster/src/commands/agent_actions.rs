//! `muster agent unenroll|reassign|upgrade|diagnostics|log-level`: actions for agents.

use std::time::Duration;

use camino::Utf8PathBuf;
use clap::Args;
use muster_client::Client;
use muster_core::shell;
use muster_protocol::management::action::NewAction;
use muster_protocol::management::agent_action::{CreatedAction, Diagnostics, Reassign, Unenroll, Upgrade};
use muster_protocol::management::bulk::{BulkActions, BulkDiagnostics, BulkReassign, BulkUnenroll, BulkUpgrade};
use serde_json::json;

use super::failure::Failed;
use super::find::find_policy;
use super::progress::wait_for;
use super::selection::{Chosen, Selection, refused};
use super::text::print_line;
use super::times::seconds;

/// `--wait` and `--timeout`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Wait until every agent has acknowledged the action
    #[arg(long)]
    wait: bool,
    /// With --wait: maximum time in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

impl Wait {
    /// Prints the id of the action, and waits if `--wait` is set. Returns an error if no agent is eligible.
    pub async fn finish(self, client: &Client, action_id: &str, single: bool) -> Result<(), Failed> {
        // Printed before waiting, so that the user knows the id even if the wait is interrupted.
        print_line(action_id)?;
        if self.wait {
            return wait_for(client, action_id, Duration::from_secs(self.timeout)).await;
        }
        // An action for a single ineligible agent has already been rejected by the server.
        if single { Ok(()) } else { tell_refused(client, action_id).await }
    }
}

/// Prints how many agents are not eligible for the action. The result of these agents is an error.
async fn tell_refused(client: &Client, action_id: &str) -> Result<(), Failed> {
    let action = client.action(action_id).await?;
    let all = u64::try_from(action.nb_agents_actioned).unwrap_or(0);
    // The action has been created only for eligible agents.
    let left_out = u64::try_from(action.nb_agents_actioned - action.nb_agents_action_created).unwrap_or(0);
    let first = action.latest_errors.first().map(|error| (&*error.agent_id, &*error.error));
    let Some(failed) = refused(left_out, all, first) else { return Ok(()) };
    let failed = failed.remedy(format!("muster action show {}", shell::argument(action_id)));
    if action.nb_agents_action_created == 0 {
        return Err(failed);
    }
    eprintln!("{failed}");
    Ok(())
}

/// Flags of `unenroll`.
#[derive(Args, Debug)]
pub struct UnenrollArgs {
    #[command(flatten)]
    selection: Selection,
    /// Revoke the access keys immediately, without waiting for the agents
    #[arg(long)]
    force: bool,
    /// Reason to record in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    wait: Wait,
}

impl UnenrollArgs {
    /// Unenrolls agents.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let revocation = if self.force { " and immediately revoke access keys" } else { "" };
        let force = self.force.then_some(true);
        let request = |chosen: &Chosen| {
            let Chosen { agents, include_inactive, .. } = chosen.clone();
            // In the API, `revoke` invalidates the keys, and `force` includes agents of managed policies (MG §5.6).
            BulkUnenroll {
                agents,
                include_inactive,
                batch_size: None,
                dry_run: None,
                revoke: force,
                force,
                reason: self.reason.clone(),
            }
        };
        let what = |agents: &str| format!("unenroll {agents}{revocation}");
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let created = match chosen.single() {
            Some(agent) => {
                client.unenroll(agent, &Unenroll { revoke: force, force, reason: self.reason.clone() }).await?
            }
            None => client.bulk(&request(&chosen)).await?,
        };
        self.wait.finish(client, &created.action_id, chosen.single().is_some()).await
    }
}

/// Flags of `reassign`.
#[derive(Args, Debug)]
pub struct ReassignArgs {
    #[command(flatten)]
    selection: Selection,
    /// Policy, by name or id
    #[arg(long, required_unless_present = "no_policy", conflicts_with = "no_policy")]
    policy: Option<String>,
    /// Pin the agents to this revision until they are reassigned [default: follow the newest]
    #[arg(long, requires = "policy", value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
    /// Remove the policy; the agents stay enrolled and keep checking in
    #[arg(long)]
    no_policy: bool,
    /// Reassign even if a policy is managed
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Wait,
}

impl ReassignArgs {
    /// Assigns agents to another policy, or to none.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = match &self.policy {
            Some(named) => Some(find_policy(client, named).await?),
            None => None,
        };
        let what = |agents: &str| match &policy {
            Some(policy) => match self.revision {
                Some(revision) => format!("pin {agents} to revision {revision} of the policy {:?}", policy.name),
                None => format!("assign {agents} to the policy {:?}", policy.name),
            },
            None => format!("remove {agents} from their policies"),
        };
        let (force, policy_revision) = (self.force.then_some(true), self.revision);
        let policy_id = || policy.as_ref().map(|policy| policy.id.clone());
        let request = |chosen: &Chosen| {
            let (Chosen { agents, include_inactive, .. }, policy_id) = (chosen.clone(), policy_id());
            BulkReassign {
                agents,
                include_inactive,
                batch_size: None,
                dry_run: None,
                policy_id,
                policy_revision,
                force,
            }
        };
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let created = match chosen.single() {
            Some(agent) => client.reassign(agent, &Reassign { policy_id: policy_id(), policy_revision, force }).await?,
            None => client.bulk(&request(&chosen)).await?,
        };
        self.wait.finish(client, &created.action_id, chosen.single().is_some()).await
    }
}

/// Flags of `upgrade`.
#[derive(Args, Debug)]
pub struct UpgradeArgs {
    #[command(flatten)]
    selection: Selection,
    /// Target version
    #[arg(long)]
    version: String,
    /// Base URL from which agents download the package
    #[arg(long, value_name = "URL")]
    source_uri: Option<String>,
    /// Period over which the upgrades are started, such as 10m or 4h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    rollout: Option<i64>,
    /// Start time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Allow downgrades, managed policies, and agents that report that they are not upgradeable
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Wait,
}

impl UpgradeArgs {
    /// Upgrades agents.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let version = &self.version;
        let what = |agents: &str| format!("upgrade {agents} to {version}");
        let request = |chosen: &Chosen| self.request(chosen);
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let created = self.create(client, &chosen).await?;
        self.wait.finish(client, &created.action_id, chosen.single().is_some()).await
    }

    /// Uses the route for a single agent if there is no schedule, because that route rejects an ineligible agent.
    async fn create(&self, client: &Client, chosen: &Chosen) -> Result<CreatedAction, Failed> {
        if let (Some(agent), None, None) = (chosen.single(), &self.rollout, &self.start) {
            let BulkUpgrade { version, source_uri, force, skip_rate_limit_check, .. } = self.request(chosen);
            let upgrade = Upgrade { version, source_uri, force, skip_rate_limit_check };
            return Ok(client.upgrade(agent, &upgrade).await?);
        }
        Ok(client.bulk(&self.request(chosen)).await?)
    }

    fn request(&self, chosen: &Chosen) -> BulkUpgrade {
        BulkUpgrade {
            agents: chosen.agents.clone(),
            include_inactive: chosen.include_inactive,
            batch_size: None,
            dry_run: None,
            version: self.version.clone(),
            source_uri: self.source_uri.clone(),
            force: self.force.then_some(true),
            skip_rate_limit_check: None,
            rollout_duration_seconds: self.rollout,
            start_time: self.start.clone(),
        }
    }
}

/// Flags of `diagnostics`.
#[derive(Args, Debug)]
pub struct DiagnosticsArgs {
    #[command(flatten)]
    selection: Selection,
    /// Include a CPU profile
    #[arg(long)]
    cpu: bool,
    /// Directory to download the bundle to; requires --wait and a single agent
    #[arg(long, value_name = "DIR", requires = "wait")]
    download: Option<Utf8PathBuf>,
    #[command(flatten)]
    wait: Wait,
}

impl DiagnosticsArgs {
    /// Requests diagnostics bundles, and downloads one.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        if self.download.is_some() && !self.selection.names_one() {
            return Err(
                Failed::usage("--download requires a single agent").remedy("name one agent by its id or host name")
            );
        }
        let what = |agents: &str| format!("request diagnostics from {agents}");
        // The CPU profile is the only additional metric of the API (MG §5.1).
        let metrics = || self.cpu.then(|| vec!["CPU".to_owned()]);
        let request = |chosen: &Chosen| {
            let (Chosen { agents, include_inactive, .. }, additional_metrics) = (chosen.clone(), metrics());
            BulkDiagnostics { agents, include_inactive, batch_size: None, dry_run: None, additional_metrics }
        };
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        // Checked before the request is sent to the agent, whose response can take minutes.
        if let Some(directory) = &self.download {
            let made = tokio::fs::create_dir_all(directory).await;
            made.map_err(|error| Failed::new(format!("cannot create {directory}: {error}")))?;
        }
        let created = match chosen.single() {
            Some(agent) => client.request_diagnostics(agent, &Diagnostics { additional_metrics: metrics() }).await?,
            None => client.bulk(&request(&chosen)).await?,
        };
        self.wait.finish(client, &created.action_id, chosen.single().is_some()).await?;
        match (&self.download, chosen.single()) {
            (Some(directory), Some(agent)) => download(client, agent, &created.action_id, directory).await,
            _ => Ok(()),
        }
    }
}

async fn download(client: &Client, agent: &str, action: &str, directory: &Utf8PathBuf) -> Result<(), Failed> {
    let uploads = client.agent_uploads(agent).await?;
    let upload = uploads.into_iter().find(|upload| upload.action_id == action);
    let upload = upload.ok_or_else(|| {
        Failed::not_found(format!("agent {agent} has not uploaded a bundle for action {action}"))
            .remedy(format!("the upload may still be running: muster action show {}", shell::argument(action)))
    })?;
    // The name comes from the agent: keep only characters that have no special meaning in a path, a shell or a
    // terminal.
    let safe = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let name: String = upload.name.chars().map(safe).collect();
    let path = directory.join(format!("{agent}-{}", name.trim_start_matches('.')));
    let created = tokio::fs::File::create(&path).await;
    let mut file = created.map_err(|error| Failed::new(format!("cannot write {path}: {error}")))?;
    let bytes = client.download_upload(&upload.id, &upload.name, &mut file).await?;
    print_line(format!("{path} ({bytes} bytes)"))
}

/// Flags of `log-level`.
#[derive(Args, Debug)]
pub struct SettingsArgs {
    /// Log level; reset returns to the policy's level
    #[arg(long, value_parser = ["trace", "debug", "info", "warning", "error", "reset"])]
    level: String,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    wait: Wait,
}

impl SettingsArgs {
    /// Sets the log level.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let what = |agents: &str| match self.level.as_str() {
            "reset" => format!("reset the log level of {agents} to the policy's"),
            level => format!("set the log level of {agents} to {level}"),
        };
        // `null` resets the level to that of the policy (MG §5.1).
        let level = (self.level != "reset").then_some(&self.level);
        let action =
            NewAction { kind: "SETTINGS".into(), data: Some(json!({"log_level": level})), ..NewAction::default() };
        let request = |chosen: &Chosen| {
            let (Chosen { agents, include_inactive, .. }, action) = (chosen.clone(), action.clone());
            BulkActions { agents, include_inactive, batch_size: None, dry_run: None, action }
        };
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let action_id = match chosen.single() {
            Some(agent) => client.create_action(agent, action.clone()).await?.id,
            None => client.bulk(&request(&chosen)).await?.action_id,
        };
        self.wait.finish(client, &action_id, chosen.single().is_some()).await
    }
}
