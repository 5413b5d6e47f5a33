//! `muster rollout …`.

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use muster_client::Client;
use muster_core::rollout::Members;
use muster_protocol::management::agent_policy::{AppliedPolicy, ApplyOutcome};
use muster_protocol::management::bulk::BulkRollout;
use muster_protocol::management::rollout::{
    CreatedRollout, ListRollouts, Rollout, RolloutGate, RolloutPlan, RolloutWave,
};

use super::confirm::Care;
use super::failure::Failed;
use super::find::all_pages;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_json, print_list, print_one, print_yaml, wide};
use super::policy_file::{PolicyFileArgs, read_text};
use super::selection::{Selection, agents};
use super::text::print_line;
use super::times::seconds;

/// Verbs of `rollout`.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Change a policy in waves: each wave of agents gets the new revision only if the previous wave stays healthy
    ///
    /// The rollout halts automatically if agents become unhealthy, reject the revision or go offline. Agents that
    /// it has not reached keep the previous revision.
    #[command(
        after_help = "Examples:\n  muster rollout create -f web.yml --waves 5,25,100 --soak 30m --dry-run\n  muster rollout create -f web.yml --waves canary,10,100 --soak 1h --approve --yes\n  muster rollout create -f web.yml --plan plan.yml --yes"
    )]
    Create(Box<CreateArgs>),
    /// Upgrade agents in waves
    ///
    /// The agents are selected when the rollout is created. Each wave upgrades the selected agents that it reaches, and
    /// starts only if the earlier waves stay healthy.
    #[command(
        after_help = "Examples:\n  muster rollout upgrade --all --version 9.5.2 --waves 3agents,10,100 --soak 2h --dry-run\n  muster rollout upgrade --filter 'tags:web' --version 9.5.2 --approve --yes"
    )]
    Upgrade(Box<UpgradeArgs>),
    /// List rollouts, newest first
    #[command(after_help = "Examples:\n  muster rollout list --output json\n  muster rollout list --state halted")]
    List(ListArgs),
    /// Show a rollout and the health of the agents that it has reached
    #[command(after_help = "Examples:\n  muster rollout show 0192f3c1-…")]
    Show(ShowArgs),
    /// Pause a rollout: no further wave starts
    #[command(after_help = "Examples:\n  muster rollout pause 0192f3c1-…")]
    Pause(OneArgs),
    /// Resume a paused or halted rollout
    ///
    /// The current wave soaks once more. If its agents are still unhealthy, the rollout halts again.
    #[command(after_help = "Examples:\n  muster rollout resume 0192f3c1-…")]
    Resume(OneArgs),
    /// Approve the next wave of a rollout that is waiting for approval
    #[command(after_help = "Examples:\n  muster rollout approve 0192f3c1-…")]
    Approve(OneArgs),
    /// Roll back a rollout
    ///
    /// Rolling back a policy gives all its agents a new revision with the content of the one before the rollout. Rolling back
    /// an upgrade returns the upgraded agents to their former version, if they still have it.
    #[command(after_help = "Examples:\n  muster rollout rollback 0192f3c1-… --yes")]
    Rollback(RollbackArgs),
}

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    #[command(flatten)]
    policy: PolicyFileArgs,
    #[command(flatten)]
    waves: WaveArgs,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `upgrade`.
#[derive(Args, Debug)]
pub struct UpgradeArgs {
    #[command(flatten)]
    selection: Selection,
    /// Target version
    #[arg(long)]
    version: String,
    /// Base URL from which agents download the package [default: the one in their policy]
    #[arg(long, value_name = "URL")]
    source_uri: Option<String>,
    #[command(flatten)]
    waves: WaveArgs,
    #[command(flatten)]
    output: OutputArg,
}

/// The waves of a rollout.
#[derive(Args, Debug)]
pub struct WaveArgs {
    /// Waves: percentages of the agents, numbers of agents (5agents), or tags; the last one must be 100
    #[arg(long, value_delimiter = ',', default_value = "5,25,100")]
    waves: Vec<String>,
    /// Minimum time from the start of a wave to the start of the next one
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "30m")]
    soak: i64,
    /// Wait for `muster rollout approve` before each wave after the first
    #[arg(long)]
    approve: bool,
    /// File with the waves and the gate (YAML or JSON), instead of --waves, --soak and --approve
    #[arg(long, value_name = "FILE", conflicts_with_all = ["waves", "soak", "approve"])]
    plan: Option<Utf8PathBuf>,
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only rollouts in this state: created, running, awaiting_approval, awaiting_agents, paused, halted, completed,
    /// rolled_back
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Rollout id
    rollout: String,
    #[command(flatten)]
    output: OutputArg,
}

/// The rollout of a command.
#[derive(Args, Debug)]
pub struct OneArgs {
    /// Rollout id
    rollout: String,
}

/// Flags of `rollback`.
#[derive(Args, Debug)]
pub struct RollbackArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

const COLUMNS: &[Column<Rollout>] = &[
    column("ID", |rollout| rollout.id.clone()),
    column("SUBJECT", subject),
    column("STATE", |rollout| rollout.state.clone()),
    column("WAVES", |rollout| format!("{} of {}", rollout.started_waves, rollout.plan.waves.len())),
    column("CREATED", |rollout| rollout.created_at.clone()),
    wide("BY", |rollout| rollout.created_by.clone()),
    wide("REASON", |rollout| or_dash(rollout.reason.as_deref())),
];

const DETAILS: &[Column<Rollout>] = &[
    column("ID", |rollout| rollout.id.clone()),
    column("SUBJECT", subject),
    column("BEFORE", |rollout| or_dash(rollout.last_good_revision.map(|revision| revision.to_string()).as_deref())),
    column("ACTIONS", |rollout| or_dash(Some(&rollout.action_ids.join(", ")))),
    column("STATE", |rollout| rollout.state.clone()),
    column("REASON", |rollout| or_dash(rollout.reason.as_deref())),
    column("WAVES", |rollout| format!("{} of {} started", rollout.started_waves, rollout.plan.waves.len())),
    column("PLAN", |rollout| rollout.plan.waves.iter().map(wave_text).collect::<Vec<_>>().join("; ")),
    column("REACHED", |rollout| number(rollout, |agents| agents.reached)),
    column("APPLIED", |rollout| number(rollout, |agents| agents.applied)),
    column("UNHEALTHY", |rollout| number(rollout, |agents| agents.unhealthy)),
    column("FAILED", |rollout| number(rollout, |agents| agents.failed)),
    column("SILENT", |rollout| number(rollout, |agents| agents.silent)),
    column("CREATED", |rollout| format!("{} by {}", rollout.created_at, rollout.created_by)),
    column("UPDATED", |rollout| rollout.updated_at.clone()),
];

fn subject(rollout: &Rollout) -> String {
    match (&rollout.policy_id, rollout.revision, &rollout.version) {
        (Some(policy), Some(revision), _) => format!("policy {policy} revision {revision}"),
        (_, _, Some(version)) => format!("upgrade to {version}"),
        _ => "-".to_owned(),
    }
}

fn number(rollout: &Rollout, of: impl Fn(&muster_protocol::management::rollout::RolloutAgents) -> u64) -> String {
    rollout.agents.as_ref().map_or_else(|| "-".to_owned(), |agents| of(agents).to_string())
}

fn wave_text(wave: &RolloutWave) -> String {
    let members = match (wave.percent, wave.count, &wave.tags) {
        (Some(percent), _, _) => format!("{percent} %"),
        (_, Some(count), _) => agents(count.into()),
        (_, _, Some(tags)) => format!("tags {}", tags.join(", ")),
        _ => "nobody".to_owned(),
    };
    let approval = if wave.needs_approval { ", then approval" } else { "" };
    format!("{members} for {} s{approval}", wave.soak_seconds)
}

impl RolloutCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::Create(args) => args.run(client).await,
            Self::Upgrade(args) => args.run(client).await,
            Self::List(args) => args.run(client).await,
            Self::Show(args) => {
                let rollout = client.rollout(&args.rollout).await?;
                print_one(&rollout, args.output.output, DETAILS, |rollout| rollout.id.clone())
            }
            Self::Pause(args) => args.change(client, "pause").await,
            Self::Resume(args) => args.change(client, "resume").await,
            Self::Approve(args) => args.change(client, "approve").await,
            Self::Rollback(args) => {
                let care = Care { yes: args.yes, dry_run: false };
                care.confirm(&format!("Roll back {} for all its agents?", args.one.rollout))?;
                args.one.change(client, "rollback").await
            }
        }
    }
}

impl OneArgs {
    async fn change(self, client: &Client, verb: &str) -> Result<(), Failed> {
        let rollout = client.change_rollout(&self.rollout, verb).await?;
        print_line(format!("{}: {}", rollout.id, rollout.state))
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let state = &self.state;
        let query = |page, per_page| ListRollouts { page, per_page, state: state.clone() };
        let rollouts = all_pages(async |page, per_page| client.rollouts(&query(page, per_page)).await).await?;
        print_list(&rollouts, self.output.output, COLUMNS, |rollout| rollout.id.clone())
    }
}

impl CreateArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut file = self.policy.read()?;
        file.request.rollout = Some(self.waves.plan()?);
        let plan = client.try_apply_policy(&file.request).await.map_err(|error| file.failed(error))?;
        file.warn(&plan);
        if self.care.dry_run {
            return self.print_plan(&plan);
        }
        let name = &plan.policy.name;
        self.care.confirm(&format!("Roll out a change of the policy {name:?} to {}?", agents(plan.policy.agents)))?;
        // The dry run is valid only for this revision: if the policy has changed since, the server reports a conflict.
        file.request.expected_revision = Some(plan.previous_revision.unwrap_or(0));
        let applied = client.apply_policy(&file.request).await.map_err(|error| file.failed(error))?;
        let rollout = applied.rollout.ok_or_else(|| Failed::new("the server's response contains no rollout"))?;
        match self.output.output {
            Format::Table | Format::Wide => print_line(format!(
                "rolling out revision {} of the policy {name:?} in {} waves: {}",
                rollout.revision.unwrap_or(0),
                rollout.plan.waves.len(),
                rollout.id
            )),
            format => print_one(&rollout, format, DETAILS, |rollout| rollout.id.clone()),
        }
    }

    fn print_plan(&self, plan: &AppliedPolicy) -> Result<(), Failed> {
        match self.output.output {
            Format::Json => return print_json(plan),
            Format::Yaml => return print_yaml(plan),
            _ => {}
        }
        let name = &plan.policy.name;
        if plan.outcome != ApplyOutcome::Changed {
            return print_line(format!("the policy {name:?} is up to date: there is nothing to roll out"));
        }
        let (before, waves) = (plan.previous_revision.unwrap_or(0), plan.rollout.as_ref().map(|it| &it.plan.waves));
        print_line(format!("would roll out a change of the policy {name:?} (currently revision {before}):"))?;
        print_waves(waves.map(Vec::as_slice).unwrap_or_default(), &plan.wave_agents)
    }
}

impl WaveArgs {
    /// Reads the plan from its file, or from the flags.
    fn plan(&self) -> Result<RolloutPlan, Failed> {
        if let Some(path) = &self.plan {
            let text = read_text(path)?;
            let plan = serde_saphyr::from_str(&text);
            return plan.map_err(|error| Failed::usage(format!("cannot read {path}: {error}")));
        }
        let soak = u64::try_from(self.soak).unwrap_or(0);
        let waves = self.waves.iter().map(|text| RolloutWave {
            soak_seconds: soak,
            needs_approval: self.approve,
            ..wave(text)
        });
        // Without a gate, the server uses its default limits.
        Ok(RolloutPlan { waves: waves.collect(), gate: None::<RolloutGate> })
    }
}

impl UpgradeArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let chosen = self.selection.resolve(client).await?;
        let care = self.selection.care();
        let request = |dry_run: bool| -> Result<BulkRollout, Failed> {
            Ok(BulkRollout {
                agents: chosen.agents.clone(),
                include_inactive: chosen.include_inactive,
                batch_size: None,
                dry_run: dry_run.then_some(true),
                version: self.version.clone(),
                source_uri: self.source_uri.clone(),
                plan: self.waves.plan()?,
            })
        };
        if !care.dry_run {
            care.confirm(&format!("Upgrade {} to {} in waves?", agents(chosen.count), self.version))?;
        }
        let made = client.create_rollout(&request(care.dry_run)?).await?;
        if made.left_out > 0 {
            eprintln!("muster: {} left out: their programs cannot be upgraded", agents(made.left_out));
        }
        if let Some(refusal) = made.errors.first() {
            let CreatedRollout { refused, count, .. } = made;
            eprintln!(
                "muster: {refused} of {} not eligible now; agent {}: {}",
                agents(count),
                refusal.agent_id,
                refusal.error
            );
        }
        match (self.output.output, care.dry_run) {
            (Format::Json, true) => print_json(&made),
            (Format::Yaml, true) => print_yaml(&made),
            (_, true) => {
                print_line(format!("would upgrade {} to {}:", agents(made.count), self.version))?;
                print_waves(&made.item.plan.waves, &made.wave_agents)
            }
            (Format::Table | Format::Wide, false) => {
                let (waves, id) = (made.item.plan.waves.len(), &made.item.id);
                print_line(format!("upgrading {} to {} in {waves} waves: {id}", agents(made.count), self.version))
            }
            (format, false) => print_one(&made.item, format, DETAILS, |rollout| rollout.id.clone()),
        }
    }
}

fn print_waves(waves: &[RolloutWave], reached: &[u64]) -> Result<(), Failed> {
    for (number, wave) in waves.iter().enumerate() {
        let reached = reached.get(number).copied().unwrap_or(0);
        print_line(format!("wave {}: {}: {} reached", number + 1, wave_text(wave), agents(reached)))?;
    }
    Ok(())
}

/// Reads a wave from the flag.
fn wave(text: &str) -> RolloutWave {
    match Members::parse(text) {
        Members::Percent(percent) => RolloutWave { percent: Some(percent), ..RolloutWave::default() },
        Members::Count(count) => RolloutWave { count: Some(count), ..RolloutWave::default() },
        Members::Tags(tags) => RolloutWave { tags: Some(tags), ..RolloutWave::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_percentages_numbers_or_tags() {
        assert_eq!(wave("5").percent, Some(5));
        assert_eq!(wave(" 25% ").percent, Some(25));
        assert_eq!(wave("3agents").count, Some(3));
        assert_eq!(wave("canary").tags, Some(vec!["canary".to_owned()]));
    }
}
