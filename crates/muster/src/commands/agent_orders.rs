//! `muster agent unenroll|reassign|upgrade|diagnostics|log-level`: orders to agents.

use std::time::Duration;

use camino::Utf8PathBuf;
use clap::Args;
use muster_client::Client;
use muster_protocol::management::action::NewAction;
use muster_protocol::management::bulk::{BulkActions, BulkDiagnostics, BulkReassign, BulkUnenroll, BulkUpgrade};
use muster_protocol::management::order::{Diagnostics, Ordered, Reassign, Unenroll, Upgrade};
use serde_json::json;

use super::failure::Failed;
use super::find::find_policy;
use super::progress::wait_for;
use super::selection::{Chosen, Selection, refused};
use super::text::print_line;
use super::times::seconds;

/// `--wait`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Wait until every agent has answered
    #[arg(long)]
    wait: bool,
    /// With --wait: how long, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

impl Wait {
    /// Prints the action's id for the commands that follow it up; fails if not one agent could be ordered.
    pub async fn finish(self, client: &Client, action_id: &str, single: bool) -> Result<(), Failed> {
        print_line(action_id)?;
        if self.wait {
            return wait_for(client, action_id, Duration::from_secs(self.timeout)).await;
        }
        // The order to a single agent that can't be carried out was refused at once.
        if single { Ok(()) } else { tell_refused(client, action_id).await }
    }
}

/// Some of many may be unable to do what is ordered: they get an error instead of the order.
async fn tell_refused(client: &Client, action_id: &str) -> Result<(), Failed> {
    let action = client.action(action_id).await?;
    let all = u64::try_from(action.nb_agents_actioned).unwrap_or(0);
    let left_out = u64::try_from(action.nb_agents_actioned - action.nb_agents_action_created).unwrap_or(0);
    let first = action.latest_errors.first().map(|error| (&*error.agent_id, &*error.error));
    let Some(failed) = refused(left_out, all, first) else { return Ok(()) };
    let failed = failed.remedy(format!("muster action show {action_id}"));
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
    /// Revoke the keys now, without waiting for the agents
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Wait,
}

impl UnenrollArgs {
    /// Orders agents to leave.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let how = if self.force { "revoke the keys of, and unenroll," } else { "unenroll" };
        let force = self.force.then_some(true);
        let request = |chosen: &Chosen| {
            let Chosen { agents, include_inactive, .. } = chosen.clone();
            BulkUnenroll { agents, include_inactive, batch_size: None, dry_run: None, revoke: force, force }
        };
        let what = |agents: &str| format!("{how} {agents}");
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let ordered = match chosen.single() {
            Some(agent) => client.unenroll(agent, &Unenroll { revoke: force, force }).await?,
            None => client.bulk(&request(&chosen)).await?,
        };
        self.wait.finish(client, &ordered.action_id, chosen.single().is_some()).await
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
    /// The revision of the policy that the agents run until they are reassigned; without it they follow the newest
    #[arg(long, requires = "policy", value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,
    /// No policy: the agents stay enrolled and keep checking in
    #[arg(long)]
    no_policy: bool,
    /// Also from and to hosted policies
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: Wait,
}

impl ReassignArgs {
    /// Puts agents on another policy, or on none.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = match &self.policy {
            Some(named) => Some(find_policy(client, named).await?),
            None => None,
        };
        let what = |agents: &str| match &policy {
            Some(policy) => match self.revision {
                Some(revision) => format!("put {agents} on revision {revision} of the policy {:?}", policy.name),
                None => format!("put {agents} on the policy {:?}", policy.name),
            },
            None => format!("take the policy from {agents}"),
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
        let ordered = match chosen.single() {
            Some(agent) => client.reassign(agent, &Reassign { policy_id: policy_id(), policy_revision, force }).await?,
            None => client.bulk(&request(&chosen)).await?,
        };
        self.wait.finish(client, &ordered.action_id, chosen.single().is_some()).await
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
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    rollout: Option<i64>,
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
    /// Orders another version.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let version = &self.version;
        let what = |agents: &str| format!("upgrade {agents} to {version}");
        let request = |chosen: &Chosen| self.request(chosen);
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let ordered = self.order(client, &chosen).await?;
        self.wait.finish(client, &ordered.action_id, chosen.single().is_some()).await
    }

    /// The order to a single agent knows no time, but refuses at once.
    async fn order(&self, client: &Client, chosen: &Chosen) -> Result<Ordered, Failed> {
        if let (Some(agent), None, None) = (chosen.single(), &self.rollout, &self.start) {
            let BulkUpgrade { version, source_uri, force, skip_rate_limit_check, .. } = self.request(chosen);
            let order = Upgrade { version, source_uri, force, skip_rate_limit_check };
            return Ok(client.upgrade(agent, &order).await?);
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
    /// Asks for bundles, and fetches one.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        if self.download.is_some() && !self.selection.names_one() {
            return Err(Failed::usage("--download takes one agent").remedy("name one agent by its id or host name"));
        }
        let what = |agents: &str| format!("ask for diagnostics of {agents}");
        let metrics = || self.cpu.then(|| vec!["CPU".to_owned()]);
        let request = |chosen: &Chosen| {
            let (Chosen { agents, include_inactive, .. }, additional_metrics) = (chosen.clone(), metrics());
            BulkDiagnostics { agents, include_inactive, batch_size: None, dry_run: None, additional_metrics }
        };
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let ordered = match chosen.single() {
            Some(agent) => client.request_diagnostics(agent, &Diagnostics { additional_metrics: metrics() }).await?,
            None => client.bulk(&request(&chosen)).await?,
        };
        self.wait.finish(client, &ordered.action_id, chosen.single().is_some()).await?;
        match (&self.download, chosen.single()) {
            (Some(folder), Some(agent)) => download(client, agent, &ordered.action_id, folder).await,
            _ => Ok(()),
        }
    }
}

async fn download(client: &Client, agent: &str, action: &str, folder: &Utf8PathBuf) -> Result<(), Failed> {
    let uploads = client.agent_uploads(agent).await?;
    let upload = uploads.into_iter().find(|upload| upload.action_id == action);
    let upload = upload.ok_or_else(|| {
        Failed::not_found(format!("agent {agent} has uploaded no bundle for action {action}"))
            .remedy(format!("it may be on its way: muster action show {action}"))
    })?;
    // The name comes from the agent: its last part alone, and nothing that a shell or terminal reads.
    let safe = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let name: String = upload.name.chars().map(safe).collect();
    let path = folder.join(format!("{agent}-{}", name.trim_start_matches('.')));
    let created = tokio::fs::File::create(&path).await;
    let mut file = created.map_err(|error| Failed::new(format!("can't write {path}: {error}")))?;
    let bytes = client.download_upload(&upload.id, &upload.name, &mut file).await?;
    print_line(format!("{path} ({bytes} bytes)"))
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
    /// Sets the log level.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let what = |agents: &str| match self.level.as_str() {
            "reset" => format!("set the log level of {agents} to what the policy says"),
            level => format!("set the log level of {agents} to {level}"),
        };
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
