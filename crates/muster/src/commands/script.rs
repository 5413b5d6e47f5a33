//! `muster script …`

use camino::{Utf8Path, Utf8PathBuf};
use clap::{ArgGroup, Args, Subcommand};
use muster_client::Client;
use muster_core::plural::counted;
use muster_protocol::management::host_run::ListRunHosts;
use muster_protocol::management::script::{
    RunScript, SaveScript, SavedScript, ScriptExecution, ScriptRun, ScriptSettings,
};

use super::confirm::Care;
use super::failure::Failed;
use super::find::only;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};
use super::progress::{ALL_HOSTS, OnHosts};
use super::text::print_line;

/// Verbs of `script`.
#[derive(Debug, Subcommand)]
pub enum ScriptCommand {
    /// Run a script on hosts with orbit, wait for the hosts, and print their results
    ///
    /// Hosts fetch the script within half a minute, one script after the other. Ctrl-C stops
    /// waiting, but not the run.
    #[command(
        after_help = "Examples:\n  muster script run cleanup.sh --host web-7\n  muster script run cleanup.sh --filter 'tags:laptops' --timeout 600 --no-wait\n  muster script run --saved cleanup --all --yes --output json"
    )]
    Run(RunArgs),
    /// List runs of scripts, or the saved scripts
    #[command(after_help = "Examples:\n  muster script list\n  muster script list --saved --output json")]
    List(ListArgs),
    /// Show a run with its script, or a saved script
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster script show 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11\n  muster script show --saved cleanup"
    )]
    Show(ShowArgs),
    /// Print the results of a run, which are kept for a week
    #[command(after_help = "Examples:\n  muster script results 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --output json")]
    Results(ResultsArgs),
    /// Stop a run: hosts that have not fetched the script will not run it
    #[command(after_help = "Examples:\n  muster script stop 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11")]
    Stop(StopArgs),
    /// Save a script under a name
    ///
    /// A saved script with this name is replaced.
    #[command(after_help = "Examples:\n  muster script save cleanup cleanup.sh --description 'Empties the cache'")]
    Save(SaveArgs),
    /// Delete a saved script
    #[command(after_help = "Examples:\n  muster script delete cleanup --yes")]
    Delete(DeleteArgs),
    /// Show whether scripts are enabled in the space, or enable or disable them
    #[command(after_help = "Examples:\n  muster script settings\n  muster script settings --disable")]
    Settings(SettingsArgs),
}

/// Flags of `run`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which hosts").required(true).multiple(true).args(["hosts", "filter", "all"]))]
pub struct RunArgs {
    /// File with the script
    #[arg(required_unless_present = "saved")]
    file: Option<Utf8PathBuf>,
    /// Run a saved script, by name or id
    #[arg(long, value_name = "SCRIPT", conflicts_with = "file")]
    saved: Option<String>,
    /// Host, by name, serial number, hardware UUID or id (repeatable)
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Only hosts whose orbit agent matches
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    /// All hosts with orbit
    #[arg(long, conflicts_with_all = ["hosts", "filter"])]
    all: bool,
    /// Maximum duration on a host in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Seconds within which hosts must fetch the script
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
    expires: u64,
    /// Do not wait for the results
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// List the saved scripts
    #[arg(long)]
    saved: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Run, by id; with --saved, a saved script, by name or id
    script: String,
    /// Show a saved script
    #[arg(long)]
    saved: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `results`.
#[derive(Args, Debug)]
pub struct ResultsArgs {
    /// Run, by id
    run: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `stop`.
#[derive(Args, Debug)]
pub struct StopArgs {
    /// Run, by id
    run: String,
}

/// Flags of `save`.
#[derive(Args, Debug)]
pub struct SaveArgs {
    /// Name, unique in the space
    name: String,
    /// File with the script
    file: Utf8PathBuf,
    /// Description
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Saved script, by name or id
    script: String,
    #[command(flatten)]
    care: Care,
}

/// Flags of `settings`.
#[derive(Args, Debug)]
pub struct SettingsArgs {
    /// Deliver scripts to hosts
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Deliver no scripts to hosts, and reject new runs
    #[arg(long)]
    disable: bool,
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<ScriptRun>] = &[
    column("ID", |run| run.id.clone()),
    column("NAME", |run| run.name.clone()),
    column("STATE", |run| run.state.clone()),
    column("HOSTS", |run| run.targets.to_string()),
    column("FINISHED", |run| run.finished.to_string()),
    column("FAILED", |run| run.failed.to_string()),
    column("CREATED", |run| run.created_at.clone()),
    column("CREATED BY", |run| run.created_by.clone()),
    wide("EXPIRES", |run| run.expires_at.clone()),
    wide("SHA-256", |run| run.sha256.clone()),
];

const DETAILS: &[Column<ScriptRun>] = &[
    column("ID", |run| run.id.clone()),
    column("NAME", |run| run.name.clone()),
    column("STATE", |run| run.state.clone()),
    column("HOSTS", |run| run.targets.to_string()),
    column("FINISHED", |run| run.finished.to_string()),
    column("FAILED", |run| run.failed.to_string()),
    column("CREATED", |run| run.created_at.clone()),
    column("CREATED BY", |run| run.created_by.clone()),
    column("EXPIRES", |run| run.expires_at.clone()),
    column("TIMEOUT", |run| format!("{} s", run.timeout_seconds)),
    column("SHA-256", |run| run.sha256.clone()),
    column("SCRIPT", |run| or_dash(run.script.as_deref())),
];

const RESULTS: &[Column<ScriptExecution>] = &[
    column("HOST", |one| one.hostname.clone()),
    column("OUTCOME", |one| one.outcome.clone()),
    column("EXIT CODE", |one| or_dash(one.exit_code.map(|code| code.to_string()).as_deref())),
    column("SECONDS", |one| or_dash(one.runtime_seconds.map(|seconds| seconds.to_string()).as_deref())),
    column("OUTPUT", |one| or_dash(one.output.as_deref().map(str::trim_end))),
    wide("ENDED", |one| or_dash(one.ended_at.as_deref())),
    wide("AGENT", |one| one.agent_id.clone()),
];

const SAVED: &[Column<SavedScript>] = &[
    column("NAME", |script| script.name.clone()),
    column("DESCRIPTION", |script| or_dash(Some(&script.description))),
    column("CHANGED", |script| script.updated_at.clone()),
    wide("CHANGED BY", |script| script.updated_by.clone()),
    wide("SHA-256", |script| script.sha256.clone()),
    wide("ID", |script| script.id.clone()),
];

const SAVED_DETAILS: &[Column<SavedScript>] = &[
    column("ID", |script| script.id.clone()),
    column("NAME", |script| script.name.clone()),
    column("DESCRIPTION", |script| or_dash(Some(&script.description))),
    column("CHANGED", |script| script.updated_at.clone()),
    column("CHANGED BY", |script| script.updated_by.clone()),
    column("SHA-256", |script| script.sha256.clone()),
    column("SCRIPT", |script| or_dash(script.script.as_deref())),
];

const SETTINGS: &[Column<ScriptSettings>] =
    &[column("SCRIPTS", |settings| if settings.enabled { "enabled" } else { "disabled" }.to_owned())];

impl ScriptCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::Run(args) => args.run(client).await,
            Self::List(args) if args.saved => {
                print_list(&client.saved_scripts().await?, args.output.output, SAVED, |script| script.id.clone())
            }
            Self::List(args) => {
                print_list(&client.script_runs().await?, args.output.output, COLUMNS, |run| run.id.clone())
            }
            Self::Show(args) if args.saved => {
                let script = client.saved_script(&args.script).await?;
                print_one(&script, args.output.output, SAVED_DETAILS, |script| script.id.clone())
            }
            Self::Show(args) => {
                let run = client.script_run(&args.script).await?;
                print_one(&run, args.output.output, DETAILS, |run| run.id.clone())
            }
            Self::Results(args) => print_results(client, &args.run, args.output).await,
            Self::Stop(args) => {
                let stopped = client.stop_script(&args.run).await?;
                print_line(format!("the run {} is {}", stopped.id, stopped.state))
            }
            Self::Save(args) => args.run(client).await,
            Self::Delete(args) => args.run(client).await,
            Self::Settings(args) => args.run(client).await,
        }
    }
}

impl RunArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let script = RunScript {
            script: self.file.as_deref().map(read).transpose()?.unwrap_or_default(),
            name: self.file.as_deref().and_then(Utf8Path::file_name).map(str::to_owned),
            saved: self.saved,
            hosts: self.hosts,
            kuery: if self.all { Some(ALL_HOSTS.to_owned()) } else { self.filter },
            expires_in_seconds: Some(self.expires),
            timeout_seconds: Some(self.timeout),
        };
        let targets = client.try_run_script(&script).await?.targets;
        if self.care.dry_run {
            return print_line(format!("would run the script on {}", counted(targets, "host")));
        }
        // A single host that was named needs no question.
        if targets != 1 {
            self.care.confirm(&format!("Run the script on {}?", counted(targets, "host")))?;
        }
        let run = client.run_script(&script).await?;
        if self.no_wait {
            return print_one(&run, self.output.output, DETAILS, |run| run.id.clone());
        }
        let ended = OnHosts::wait(async || progress(client, &run.id).await).await?;
        print_results(client, &run.id, self.output).await?;
        ended.outcome()
    }
}

impl SaveArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let script = SaveScript { name: self.name, description: self.description, script: read(&self.file)? };
        print_one(&client.save_script(&script).await?, self.output.output, SAVED_DETAILS, |script| script.id.clone())
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut found = client.saved_scripts().await?;
        found.retain(|script| script.id == self.script || script.name.eq_ignore_ascii_case(&self.script));
        let script = only("saved script", "name", &self.script, found, |script| script.id.clone())?;
        let question = format!("Delete the saved script {:?}?", script.name);
        let delete = async |dry_run| client.delete_saved_script(&script.id, dry_run).await;
        self.care.delete(&script.name, &question, delete).await
    }
}

impl SettingsArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let settings = if self.enable || self.disable {
            client.change_script_settings(&ScriptSettings { enabled: self.enable }).await?
        } else {
            client.script_settings().await?
        };
        print_one(&settings, self.output.output, SETTINGS, |settings| settings.enabled.to_string())
    }
}

fn read(path: &Utf8Path) -> Result<String, Failed> {
    fs_err::read_to_string(path).map_err(Into::into)
}

async fn progress(client: &Client, id: &str) -> Result<OnHosts, Failed> {
    // Without the script, which `script_run` would return each time.
    let page = ListRunHosts { limit: Some(1), ..ListRunHosts::default() };
    let ScriptRun { targets, finished, failed, state, .. } = client.script_results(id, &page).await?.run;
    Ok(OnHosts { targets, finished, failed, state })
}

async fn print_results(client: &Client, id: &str, output: OutputArg) -> Result<(), Failed> {
    let (mut all, mut page) = (Vec::new(), ListRunHosts::default());
    loop {
        let found = client.script_results(id, &page).await?;
        all.extend(found.items);
        match found.next {
            Some(next) => page.after = Some(next),
            None => return print_list(&all, output.output, RESULTS, |one| one.hostname.clone()),
        }
    }
}
