//! `muster software …`

use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::software::{ListSoftware, ListSoftwareHosts, Software, SoftwareHost};

use super::failure::Failed;
use super::find::{all_rows, if_there, only};
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, print_table};
use super::software_install::{InstallArgs, InstallsArgs, ResultsArgs, StopArgs, UninstallArgs};
use super::software_installer::InstallerCommand;
use super::text::print_line;

/// Verbs of `software`.
#[derive(Debug, Subcommand)]
pub enum SoftwareCommand {
    /// List the software on hosts with osquery, with the numbers of hosts
    ///
    /// Hosts report their software every hour. Versions are compared as Debian does.
    #[command(
        after_help = "Examples:\n  muster software list --name openssl\n  muster software list --name 'openssl*' --version '>=3.0,<3.0.7'\n  muster software list --source chrome_extensions --output json"
    )]
    List(ListArgs),
    /// Show software and the hosts that have it
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster software show 0f3a5b7c9d1e2f\n  muster software show openssl --version 3.0.2-0ubuntu1.10\n  muster software show openssl --version 3.0.2-0ubuntu1.10 --output json"
    )]
    Show(ShowArgs),
    /// Manage installers: packages with the scripts that install and uninstall them
    #[command(subcommand)]
    Installer(InstallerCommand),
    /// Install software on hosts with orbit, wait for the hosts, and print their results
    ///
    /// Hosts begin within half a minute, and install one package after the
    /// other. Hosts on other platforms than the installer's are ignored.
    /// Ctrl-C stops waiting, but not the installation.
    #[command(
        after_help = "Examples:\n  muster software install zsh --host web-7\n  muster software install zsh --filter 'tags:laptops' --retries 2 --no-wait\n  muster software install zsh --all --yes --output json"
    )]
    Install(InstallArgs),
    /// Uninstall software on hosts with orbit, with the uninstall script of its installer
    #[command(
        after_help = "Examples:\n  muster software uninstall zsh --host web-7\n  muster software uninstall zsh --all --yes --output json"
    )]
    Uninstall(UninstallArgs),
    /// List installs and uninstalls, which are kept for 30 days
    #[command(
        after_help = "Examples:\n  muster software installs\n  muster software installs --host web-7 --output json"
    )]
    Installs(InstallsArgs),
    /// Print the results of an install or uninstall
    #[command(after_help = "Examples:\n  muster software results 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --output json")]
    Results(ResultsArgs),
    /// Stop an install or uninstall: hosts that have not begun will not begin
    #[command(after_help = "Examples:\n  muster software stop 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11")]
    Stop(StopArgs),
}

/// What to search for.
#[derive(Args, Debug, Default)]
pub struct Which {
    /// Versions, such as '<1.2' or '>=3.0,<3.0.7'
    #[arg(long, value_name = "CONDITIONS")]
    version: Option<String>,
    /// Table of osquery that it is from, such as deb_packages
    #[arg(long, value_name = "TABLE")]
    source: Option<String>,
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Name, ignoring case; * stands for any characters
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Software, by id or name
    software: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<Software>] = &[
    column("ID", |software| software.id.clone()),
    column("NAME", |software| software.name.clone()),
    column("VERSION", |software| or_dash(Some(&software.version))),
    column("SOURCE", |software| software.source.clone()),
    column("HOSTS", |software| software.hosts.unwrap_or_default().to_string()),
];

const HOSTS: &[Column<SoftwareHost>] =
    &[column("HOST", |host| or_dash(Some(&host.hostname))), column("ID", |host| or_dash(host.id.as_deref()))];

fn id(software: &Software) -> String {
    software.id.clone()
}

impl SoftwareCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => {
                print_list(&matching(client, args.name, args.which).await?, args.output.output, COLUMNS, id)
            }
            Self::Show(args) => args.run(client).await,
            Self::Installer(verb) => verb.run(client).await,
            Self::Install(args) => args.run(client).await,
            Self::Uninstall(args) => args.run(client).await,
            Self::Installs(args) => args.run(client).await,
            Self::Results(args) => args.run(client).await,
            Self::Stop(args) => args.run(client).await,
        }
    }
}

impl ShowArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let software = find(client, &self.software, self.which).await?;
        let format = self.output.output;
        print_one(&software, format, COLUMNS, id)?;
        if !matches!(format, Format::Table | Format::Wide) {
            return Ok(());
        }
        let read = async |search_after, per_page| {
            let query = ListSoftwareHosts { page: None, per_page, search_after };
            client.software_hosts(&software.id, &query).await
        };
        let hosts = all_rows(read).await?;
        print_line("")?;
        print_table(&hosts, format == Format::Wide, HOSTS)
    }
}

/// Finds software by id, or by a name of which one version matches.
async fn find(client: &Client, named: &str, which: Which) -> Result<Software, Failed> {
    if let Some(software) = if_there(client.software_by_id(named).await)? {
        return Ok(software);
    }
    let is_limited = which.version.is_some() || which.source.is_some();
    let found = matching(client, Some(named.to_owned()), which).await?;
    if found.is_empty() && is_limited {
        let others = matching(client, Some(named.to_owned()), Which::default()).await?;
        if !others.is_empty() {
            return Err(no_such_version(named, &others));
        }
    }
    only("software version", "name", named, found, id)
}

/// Returns the error for software of which no version meets the conditions.
fn no_such_version(named: &str, others: &[Software]) -> Failed {
    let known: Vec<String> =
        others.iter().take(10).map(|other| format!("{} ({})", or_dash(Some(&other.version)), other.source)).collect();
    let more = if others.len() > known.len() { ", …" } else { "" };
    Failed::not_found(format!("no host has {named:?} with this version and source"))
        .remedy(format!("hosts have: {}{more}", known.join(", ")))
}

async fn matching(client: &Client, name: Option<String>, which: Which) -> Result<Vec<Software>, Failed> {
    let read = async |search_after, per_page| {
        let Which { version, source } = &which;
        let (name, version, source) = (name.clone(), version.clone(), source.clone());
        client.software(&ListSoftware { page: None, per_page, name, version, source, search_after }).await
    };
    all_rows(read).await
}
