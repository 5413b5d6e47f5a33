//! `muster software install`, `uninstall`, `installs`, `results` and `stop`.

use clap::{ArgGroup, Args};
use muster_client::Client;
use muster_core::plural::counted;
use muster_protocol::management::host_run::ListRunHosts;
use muster_protocol::management::install::{CreateInstall, HostInstall, InstallKind, InstallOfHost, InstallRun};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};
use super::progress::{ALL_HOSTS, OnHosts};
use super::text::print_line;

/// Flags of `install`.
#[derive(Args, Debug)]
pub struct InstallArgs {
    /// Number of times that a host repeats a failed installation, at most 5
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    retries: u64,
    #[command(flatten)]
    on_hosts: UninstallArgs,
}

/// Flags of `uninstall`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which hosts").required(true).multiple(true).args(["hosts", "filter", "all"]))]
pub struct UninstallArgs {
    /// Installer, by name or id
    installer: String,
    /// Host, by name, serial number, hardware UUID or id (repeatable)
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Only hosts whose orbit agent matches
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    /// All hosts with orbit on the installer's platform
    #[arg(long, conflicts_with_all = ["hosts", "filter"])]
    all: bool,
    /// Seconds within which hosts must begin
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

/// Flags of `installs`.
#[derive(Args, Debug)]
pub struct InstallsArgs {
    /// Only those on this host, with their results
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `results`.
#[derive(Args, Debug)]
pub struct ResultsArgs {
    /// Install or uninstall, by id
    install: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `stop`.
#[derive(Args, Debug)]
pub struct StopArgs {
    /// Install or uninstall, by id
    install: String,
}

const RUNS: &[Column<InstallRun>] = &[
    column("ID", |run| run.id.clone()),
    column("KIND", |run| kind(run).to_owned()),
    column("NAME", |run| run.name.clone()),
    column("VERSION", |run| run.version.clone()),
    column("STATE", |run| run.state.clone()),
    column("HOSTS", |run| run.targets.to_string()),
    column("FINISHED", |run| run.finished.to_string()),
    column("FAILED", |run| run.failed.to_string()),
    column("CREATED", |run| run.created_at.clone()),
    wide("CREATED BY", |run| run.created_by.clone()),
    wide("EXPIRES", |run| run.expires_at.clone()),
    wide("INSTALLER", |run| run.installer_id.clone()),
];

const RESULTS: &[Column<HostInstall>] = &[
    column("HOST", |one| one.hostname.clone()),
    column("OUTCOME", |one| one.outcome.clone()),
    column("FAILED STEP", |one| or_dash(one.failed_step.as_deref())),
    column("EXIT CODE", |one| or_dash(one.exit_code.map(|code| code.to_string()).as_deref())),
    column("OUTPUT", |one| or_dash(one.output.as_deref().map(str::trim_end))),
    wide("POST-INSTALL", |one| or_dash(one.post_install_output.as_deref().map(str::trim_end))),
    wide("ATTEMPTS", |one| one.attempts.to_string()),
    wide("ENDED", |one| or_dash(one.ended_at.as_deref())),
    wide("AGENT", |one| one.agent_id.clone()),
];

const OF_HOST: &[Column<InstallOfHost>] = &[
    column("ID", |one| one.run.id.clone()),
    column("KIND", |one| kind(&one.run).to_owned()),
    column("NAME", |one| one.run.name.clone()),
    column("VERSION", |one| one.run.version.clone()),
    column("OUTCOME", |one| one.result.outcome.clone()),
    column("FAILED STEP", |one| or_dash(one.result.failed_step.as_deref())),
    column("CREATED", |one| one.run.created_at.clone()),
    wide("ENDED", |one| or_dash(one.result.ended_at.as_deref())),
];

fn kind(run: &InstallRun) -> &'static str {
    word(run.kind)
}

fn word(kind: InstallKind) -> &'static str {
    match kind {
        InstallKind::Install => "install",
        InstallKind::Uninstall => "uninstall",
    }
}

fn id(run: &InstallRun) -> String {
    run.id.clone()
}

impl InstallArgs {
    /// Installs software.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        self.on_hosts.run_as(client, InstallKind::Install, Some(self.retries)).await
    }
}

impl UninstallArgs {
    /// Uninstalls software.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        self.run_as(client, InstallKind::Uninstall, None).await
    }

    async fn run_as(self, client: &Client, kind: InstallKind, max_retries: Option<u64>) -> Result<(), Failed> {
        let new = CreateInstall {
            installer: self.installer,
            kind,
            hosts: self.hosts,
            kuery: if self.all { Some(ALL_HOSTS.to_owned()) } else { self.filter },
            expires_in_seconds: Some(self.expires),
            max_retries,
        };
        let tried = client.create_install(&new, true).await?;
        let what = format!("{} {} {} on {}", word(kind), tried.name, tried.version, counted(tried.targets, "host"));
        if self.care.dry_run {
            return print_line(format!("would {what}"));
        }
        // A single host that was named needs no question.
        if tried.targets != 1 || new.hosts.is_empty() {
            let question = what[..1].to_uppercase() + &what[1..];
            self.care.confirm(&format!("{question}?"))?;
        }
        let run = client.create_install(&new, false).await?;
        if self.no_wait {
            return print_one(&run, self.output.output, RUNS, id);
        }
        let ended = OnHosts::wait(async || progress(client, &run.id).await).await?;
        print_results(client, &run.id, self.output).await?;
        ended.outcome()
    }
}

impl InstallsArgs {
    /// Lists runs.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let format = self.output.output;
        match self.host {
            Some(host) => {
                let host = super::host::find(client, &host).await?;
                print_list(&client.installs_of_host(&host.id).await?, format, OF_HOST, |one| one.run.id.clone())
            }
            None => print_list(&client.installs().await?, format, RUNS, id),
        }
    }
}

impl ResultsArgs {
    /// Prints the results of a run.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        print_results(client, &self.install, self.output).await
    }
}

impl StopArgs {
    /// Stops a run.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let stopped = client.stop_install(&self.install).await?;
        print_line(format!("the {} {} is {}", kind(&stopped), stopped.id, stopped.state))
    }
}

async fn progress(client: &Client, id: &str) -> Result<OnHosts, Failed> {
    let InstallRun { targets, finished, failed, state, .. } = client.install(id).await?;
    Ok(OnHosts { targets, finished, failed, state })
}

async fn print_results(client: &Client, id: &str, output: OutputArg) -> Result<(), Failed> {
    let (mut all, mut page) = (Vec::new(), ListRunHosts::default());
    loop {
        let found = client.install_hosts(id, &page).await?;
        all.extend(found.items);
        match found.next {
            Some(next) => page.after = Some(next),
            None => return print_list(&all, output.output, RESULTS, |one| one.hostname.clone()),
        }
    }
}
