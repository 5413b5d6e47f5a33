//! `muster agent …`: list, show, tag, delete. Actions are in `agent_actions`.

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_core::raw_json;
use muster_protocol::management::Json;
use muster_protocol::management::agent::{Agent, AgentCredential, ListAgents};
use muster_protocol::management::bulk::{BulkDelete, BulkTags};

use super::agent_actions::{DiagnosticsArgs, ReassignArgs, SettingsArgs, UnenrollArgs, UpgradeArgs};
use super::agent_moves::{MigrateArgs, PrivilegeLevelArgs};
use super::agent_retention::RetentionArgs;
use super::failure::Failed;
use super::find::{find_agent, hostname, list_agents};
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, wide};
use super::policy_names::{Named, with_policy_name, with_policy_names};
use super::respond::RespondArgs;
use super::selection::{Chosen, Selection, agents, labelled};
use super::text::{print_line, tag};

/// Verbs of `agent`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// List agents
    #[command(
        after_help = "Examples:\n  muster agent list\n  muster agent list --filter 'status:(offline or error)' --output wide\n  muster agent list --filter 'tags:\"web\" and not status:online' --output name\n  muster agent list --filter 'status:error or not policy_id:*'\n  muster agent list --label 'docker hosts'"
    )]
    List(ListArgs),
    /// Show an agent and its components
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster agent show web-1\n  muster agent show 7c9d6f7e-0a51-4f0f-9d0c-0d8f1f0d5a11 --output json"
    )]
    Show(ShowArgs),
    /// Unenroll agents; with --force, revoke their access keys immediately
    ///
    /// An unenrolled agent deletes its policy, and must enroll again to return. With --force, the unenrollment cannot
    /// be cancelled.
    #[command(
        after_help = "Examples:\n  muster agent unenroll web-1\n  muster agent unenroll web-1 --force\n  muster agent unenroll --filter 'tags:\"old\"' --dry-run"
    )]
    Unenroll(UnenrollArgs),
    /// Respond to a compromised agent: revoke its keys, and list what else it could read
    ///
    /// The list contains the secrets of the agent's policy, shared credentials of outputs, files and the enrollment
    /// key, each
    /// with a remedy. With --review-since, the agents that enrolled with the same key since then are tagged.
    #[command(
        after_help = "Examples:\n  muster agent respond web-1 --dry-run\n  muster agent respond web-1 --reason 'stolen laptop' --yes\n  muster agent respond web-1 --review-since 2026-11-29T08:00:00Z --yes"
    )]
    Respond(Box<RespondArgs>),
    /// Assign agents to another policy, or to none
    #[command(
        after_help = "Examples:\n  muster agent reassign web-1 --policy web\n  muster agent reassign --filter 'tags:\"web\"' --policy web --yes\n  muster agent reassign web-1 --policy web --revision 3\n  muster agent reassign web-1 --no-policy"
    )]
    Reassign(ReassignArgs),
    /// Upgrade agents
    #[command(
        after_help = "Examples:\n  muster agent upgrade web-1 --version 9.5.2\n  muster agent upgrade --all --version 9.5.2 --rollout 4h --yes"
    )]
    Upgrade(UpgradeArgs),
    /// Request diagnostics bundles, and download one
    #[command(
        after_help = "Examples:\n  muster agent diagnostics web-1\n  muster agent diagnostics web-1 --wait --download ."
    )]
    Diagnostics(DiagnosticsArgs),
    /// Set the log level of agents
    #[command(
        after_help = "Examples:\n  muster agent log-level web-1 --level debug\n  muster agent log-level --level reset --all --yes"
    )]
    LogLevel(SettingsArgs),
    /// Move agents to another server
    ///
    /// This server cannot move the agents back.
    #[command(
        after_help = "Examples:\n  muster agent migrate web-1 --to https://other.example:8220 --enrollment-token @token.txt\n  muster agent migrate web-1 --to https://other.example:8220 --enrollment-token @token.txt --setting ca=/etc/other-ca.crt\n  muster agent migrate --filter 'tags:\"web\"' --to https://other.example:8220 --enrollment-token @token.txt --dry-run"
    )]
    Migrate(MigrateArgs),
    /// Make agents run without root privileges
    ///
    /// The server cannot restore their root privileges.
    #[command(
        after_help = "Examples:\n  muster agent privilege-level web-1\n  muster agent privilege-level web-1 --user agents --group agents\n  muster agent privilege-level --filter 'tags:\"web\"' --dry-run"
    )]
    PrivilegeLevel(PrivilegeLevelArgs),
    /// Add tags to agents
    #[command(after_help = "Examples:\n  muster agent tag web-1 web-2 --tag prod --tag web --yes")]
    Tag(TagArgs),
    /// Remove tags from agents
    #[command(
        after_help = "Examples:\n  muster agent untag web-1 --tag prod\n  muster agent untag --all --tag prod --dry-run"
    )]
    Untag(TagArgs),
    /// Delete agents, and their keys, results and files
    ///
    /// This cannot be undone: a deleted agent is rejected until it enrolls again.
    #[command(
        after_help = "Examples:\n  muster agent delete web-1\n  muster agent delete --filter status:unenrolled --yes"
    )]
    Delete(DeleteArgs),
    /// Show or set how long unenrolled agents are kept
    ///
    /// Applies to the space that --space selects. Agents are deleted within ten minutes after their retention period
    /// has ended.
    #[command(
        after_help = "Examples:\n  muster agent retention\n  muster agent retention --delete-after 30d\n  muster agent retention --keep"
    )]
    Retention(RetentionArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Filter. Fields: id, policy_id, status, tags, hostname, serial, hardware_uuid, version, enrolled_at, last_checkin, os, architecture,
    /// upgrade_details.state, enrollment_key_id, duplicate_hosts, family, host_id, labels (of its host), failing_checks,
    /// failing_queries, audit_unenrolled_reason, left_at, policy_pending_since. Operators: and, or, not, ( ); for versions and times also
    /// <, <=, >, >=
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    /// Only agents on hosts with one of these labels (repeatable)
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Include inactive agents
    #[arg(long)]
    inactive: bool,
    /// Maximum number of agents [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Agent, by id or host name
    agent: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `tag` and `untag`.
#[derive(Args, Debug)]
pub struct TagArgs {
    #[command(flatten)]
    selection: Selection,
    /// Tags, separated by commas (repeatable)
    #[arg(long = "tag", short, value_name = "TAG", value_delimiter = ',', value_parser = tag, required = true)]
    tags: Vec<String>,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    #[command(flatten)]
    selection: Selection,
}

const COLUMNS: &[Column<Named<Agent>>] = &[
    column("ID", |agent| agent.id.clone()),
    column("HOST", |agent| hostname(agent).into_owned()),
    column("STATUS", |agent| agent.status.clone()),
    column("POLICY", Named::policy),
    column("REVISION", |agent| agent.policy_revision.map_or_else(|| "-".into(), |revision| revision.to_string())),
    column("VERSION", |agent| agent.agent.version.clone()),
    column("LAST CHECK-IN", |agent| or_dash(agent.last_checkin.as_deref())),
    wide("POLICY ID", |agent| or_dash(agent.policy_id.as_deref())),
    wide("TAGS", |agent| or_dash(Some(&agent.tags.join(",")))),
    wide("CONNECTED", |agent| if agent.connected { "yes" } else { "no" }.to_owned()),
    wide("SINCE", |agent| agent.status_since.clone()),
    wide("ENROLLED", |agent| agent.enrolled_at.clone()),
    wide("KEY", |agent| or_dash(agent.enrollment_key_id.as_deref())),
    wide("ADDRESS", |agent| agent.last_address.clone()),
];

const DETAILS: &[Column<Named<Agent>>] = &[
    column("ID", |agent| agent.id.clone()),
    column("HOST", |agent| hostname(agent).into_owned()),
    column("STATUS", |agent| agent.status.clone()),
    column("SINCE", |agent| agent.status_since.clone()),
    column("MESSAGE", |agent| or_dash(agent.last_checkin_message.as_deref())),
    column("CONNECTED", |agent| if agent.connected { "yes" } else { "no" }.to_owned()),
    column("LAST CHECK-IN", |agent| or_dash(agent.last_checkin.as_deref())),
    column("POLICY", Named::policy),
    column("POLICY ID", |agent| or_dash(agent.policy_id.as_deref())),
    column("REVISION", |agent| agent.policy_revision.map_or_else(|| "-".into(), |revision| revision.to_string())),
    // Without a target revision, the agent follows the newest revision.
    column("TARGET", |agent| {
        agent.target_revision.map_or_else(|| "newest".into(), |target| format!("revision {target}"))
    }),
    column("POLICY FAILED", |agent| policy_failure(agent)),
    column("FAMILY", |agent| or_dash(Some(&agent.family))),
    column("HOST ID", |agent| or_dash(agent.host_id.as_deref())),
    column("FORMER ID", |agent| or_dash(agent.former_id.as_deref())),
    column("VERSION", |agent| version(agent)),
    column("UPGRADE", |agent| upgrade(agent)),
    column("TAGS", |agent| or_dash(Some(&agent.tags.join(", ")))),
    column("DUPLICATES", |agent| duplicates(agent)),
    column("ENROLLED", |agent| agent.enrolled_at.clone()),
    column("ENROLLMENT KEY", |agent| or_dash(agent.enrollment_key_id.as_deref())),
    column("CREDENTIALS", |agent| credentials(agent)),
    column("FIRST ADDRESS", |agent| agent.first_address.clone()),
    column("LAST ADDRESS", |agent| agent.last_address.clone()),
    column("LEFT", |agent| left(agent)),
    column("UNENROLLED", |agent| or_dash(agent.unenrolled_at.as_deref())),
    column("COMPONENTS", |agent| components(agent)),
];

/// Formats the agent's report that it left: reason, time, and who caused it.
fn left(agent: &Agent) -> String {
    let Some(reason) = &agent.audit_unenrolled_reason else { return "-".into() };
    let mut text = reason.clone();
    if let Some(at) = &agent.audit_unenrolled_time {
        text.push_str(&format!(" at {at}"));
    }
    if let Some(departure) = &agent.audit_departure {
        let user = if departure.user.is_empty() { "unknown user" } else { &departure.user };
        text.push_str(&format!(" by {user} (uid {}), {}", departure.uid, departure.process));
        text.extend(departure.why.iter().map(|why| format!(": {why}")));
        text.extend(departure.new_url.iter().map(|url| format!("; now at {url}")));
    }
    text
}

/// Formats the revision that the agent could not apply, and the reason.
fn policy_failure(agent: &Agent) -> String {
    let failure = agent.policy_failure.as_ref();
    failure.map_or_else(|| "-".into(), |failed| format!("revision {}: {}", failed.revision, failed.reason))
}

/// Formats the hosts that share the agent's key, and what became of those that were told to enroll again.
fn duplicates(agent: &Agent) -> String {
    let Some(known) = &agent.duplicate_hosts else { return "-".into() };
    let of = |host: &String| {
        // The latest one: a host can be told more than once.
        let told = known.reenrollments.iter().rev().find(|one| one.host == *host);
        match told {
            _ if *host == known.keeper => format!("{host} (keeps the agent)"),
            Some(told) => format!("{host} (reenrollment {} since {})", told.state.replace('_', " "), told.at),
            None => host.clone(),
        }
    };
    known.hosts.iter().map(of).collect::<Vec<_>>().join(", ")
}

/// Formats the credentials: the valid ones, or the last one if all are revoked.
fn credentials(agent: &Agent) -> String {
    let all = agent.credentials.as_deref().unwrap_or_default();
    let valid = all.iter().filter(|one| one.revoked_at.is_none());
    let shown = |one: &AgentCredential| {
        let used = one.last_used_at.as_ref().map_or_else(|| "not used yet".into(), |at| format!("last used {at}"));
        let revoked = one.revoked_at.as_ref().map_or_else(String::new, |at| format!(", revoked {at}"));
        format!("{} {} (created {}, {used}{revoked})", one.kind.replace('_', " "), one.id, one.created_at)
    };
    let mut words: Vec<String> = valid.map(shown).collect();
    if words.is_empty() {
        words.extend(all.first().map(shown));
    }
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

fn version(agent: &Agent) -> String {
    let note = if agent.newer_than_tested { " (newer than tested)" } else { "" };
    format!("{}{note}", agent.agent.version)
}

/// Formats an upgrade as the agent reports it: target version, state, and the reason of a failure.
fn upgrade(agent: &Agent) -> String {
    let Some(details) = &agent.upgrade_details else { return "-".into() };
    let field = |path: &[&str]| raw_json::text(details.get(), path);
    let error = |key| field(&["metadata", key]).filter(|text| !text.is_empty());
    let failure = error("error_msg").map(|text| format!(": {text}"));
    let retry = || error("retry_error_msg").map(|text| format!(", retrying: {text}"));
    let failure = failure.or_else(retry).unwrap_or_default();
    // The agent's document is stored as it was sent, so that any field may be missing or of another type.
    let word = |key| field(&[key]).unwrap_or("?".into());
    format!("{} {}{failure}", word("target_version"), word("state"))
}

fn components(agent: &Agent) -> String {
    let mut words = Vec::new();
    raw_json::each_element(agent.components.as_ref().map_or("[]", Json::get), |component| {
        let [id, status] = raw_json::members(component, ["id", "status"]);
        let word = |raw: Option<&str>| raw.and_then(raw_json::as_text).unwrap_or("?".into()).into_owned();
        words.push(format!("{} {}", word(id), word(status)));
        // Continue with the next component.
        true
    });
    if words.is_empty() { "-".into() } else { words.join(", ") }
}

impl AgentCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Show(args) => args.run(client).await,
            Self::Unenroll(args) => args.run(client).await,
            Self::Respond(args) => args.run(client).await,
            Self::Reassign(args) => args.run(client).await,
            Self::Upgrade(args) => args.run(client).await,
            Self::Diagnostics(args) => args.run(client).await,
            Self::LogLevel(args) => args.run(client).await,
            Self::Migrate(args) => args.run(client).await,
            Self::PrivilegeLevel(args) => args.run(client).await,
            Self::Tag(args) => args.run(client, true).await,
            Self::Untag(args) => args.run(client, false).await,
            Self::Delete(args) => args.run(client).await,
            Self::Retention(args) => args.run(client).await,
        }
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let kuery = labelled(&self.labels, self.filter);
        let query = ListAgents { kuery, show_inactive: self.inactive.then_some(true), ..ListAgents::default() };
        let (agents, total) = list_agents(client, &query, self.limit.map(|limit| limit as usize)).await?;
        let format = self.output.output;
        let agents = with_policy_names(client, format, agents, |agent| agent.policy_id.as_deref()).await?;
        print_list(&agents, format, COLUMNS, |agent| agent.id.clone())?;
        // Inactive and unenrolled agents are hidden by default, so that an empty list may be surprising.
        if total == 0 && matches!(format, Format::Table | Format::Wide) {
            eprintln!(
                "muster: no agents\n  hint: to list unenrolled and inactive agents: muster agent list --filter 'status:*'"
            );
        }
        // A truncated list must not look complete.
        if (agents.len() as u64) < total {
            eprintln!("muster: showing {} of {total} agents\n  hint: raise --limit, or narrow --filter", agents.len());
        }
        Ok(())
    }
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let agent = find_agent(client, &self.agent).await?;
        let format = self.output.output;
        let agent = with_policy_name(client, format, agent, |agent| agent.policy_id.as_deref()).await?;
        print_one(&agent, format, DETAILS, |agent| agent.id.clone())
    }
}

impl TagArgs {
    async fn run(self, client: &Client, add: bool) -> Result<(), Failed> {
        let tags = self.tags.join(", ");
        let (verb, preposition) = if add { ("add", "to") } else { ("remove", "from") };
        let what = |agents: &str| format!("{verb} {tags} {preposition} {agents}");
        let request = |chosen: &Chosen| BulkTags {
            agents: chosen.agents.clone(),
            include_inactive: chosen.include_inactive,
            batch_size: None,
            dry_run: None,
            tags_to_add: add.then(|| self.tags.clone()),
            tags_to_remove: (!add).then(|| self.tags.clone()),
        };
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        // Tags are changed immediately and need no action, so that there is nothing to wait for.
        client.bulk(&request(&chosen)).await?;
        print_line(format!("{} {}", if add { "tagged" } else { "untagged" }, agents(chosen.count)))
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let what = |agents: &str| format!("delete {agents} with their keys, results and files");
        let request = |chosen: &Chosen| {
            let Chosen { agents, include_inactive, .. } = chosen.clone();
            BulkDelete { agents, include_inactive, batch_size: None, dry_run: None }
        };
        let Some(chosen) = self.selection.choose(client, what, request).await? else { return Ok(()) };
        let deleted = client.bulk(&request(&chosen)).await?.count;
        if let Some(agent) = chosen.single().filter(|_| deleted == 0) {
            return Err(Failed::not_found(format!("the agent {agent} was deleted in the meantime")));
        }
        print_line(format!("deleted {}", agents(deleted)))
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::management::agent::{DuplicateHosts, Reenrollment};
    use serde_json::json;

    use super::*;

    #[test]
    fn valid_credentials_are_shown_and_the_last_one_of_an_agent_without() {
        let key = |id: &str, revoked: Option<&str>| AgentCredential {
            id: id.into(),
            kind: "access_key".into(),
            created_at: "2026-01-02".into(),
            last_used_at: None,
            revoked_at: revoked.map(Into::into),
        };
        let agent = |credentials| Agent { credentials: Some(credentials), ..Agent::default() };
        assert_eq!(credentials(&Agent::default()), "-");
        let both = agent(vec![key("b", None), key("a", Some("2026-01-03"))]);
        assert_eq!(credentials(&both), "access key b (created 2026-01-02, not used yet)");
        let revoked = agent(vec![key("b", Some("2026-01-04")), key("a", Some("2026-01-03"))]);
        assert_eq!(credentials(&revoked), "access key b (created 2026-01-02, not used yet, revoked 2026-01-04)");
    }

    #[test]
    fn hosts_behind_one_key_are_shown_with_what_became_of_them() {
        let told = Reenrollment { host: "b".into(), at: "noon".into(), state: "by_hand".into(), action_id: None };
        let known = DuplicateHosts {
            hosts: ["a", "b", "c"].map(Into::into).into(),
            keeper: "a".into(),
            reenrollments: vec![told],
            ..DuplicateHosts::default()
        };
        let agent = Agent { duplicate_hosts: Some(known), ..Agent::default() };
        assert_eq!(duplicates(&agent), "a (keeps the agent), b (reenrollment by hand since noon), c");
    }

    #[test]
    fn an_upgrade_is_shown_with_the_reason_of_its_failure() {
        let mut agent = Agent::default();
        assert_eq!(upgrade(&agent), "-");
        agent.upgrade_details =
            Some(json!({"target_version": "9.6.0", "state": "UPG_DOWNLOADING", "metadata": {}}).into());
        assert_eq!(upgrade(&agent), "9.6.0 UPG_DOWNLOADING");
        agent.upgrade_details = Some(
            json!({
                "target_version": "9.6.0", "state": "UPG_FAILED",
                "metadata": {"failed_state": "UPG_REQUESTED", "error_msg": "cannot be upgraded"}
            })
            .into(),
        );
        assert_eq!(upgrade(&agent), "9.6.0 UPG_FAILED: cannot be upgraded");
        let metadata = json!({"retry_error_msg": "not found"});
        agent.upgrade_details =
            Some(json!({"target_version": "9.6.0", "state": "UPG_DOWNLOADING", "metadata": metadata}).into());
        assert_eq!(upgrade(&agent), "9.6.0 UPG_DOWNLOADING, retrying: not found");
    }
}
