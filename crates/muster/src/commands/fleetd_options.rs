//! `muster fleetd-options …`

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::fleetd_options::{ChangedFleetdOptions, FleetdOptions, SaveFleetdOptions};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Format, OutputArg, print_json, print_list, print_table, print_yaml};
use super::policy::CHANGES;
use super::policy_file::{problems_of, read_text, warn_of};
use super::text::{print_line, printable_lines};

/// Verbs of `fleetd-options`.
#[derive(Debug, Subcommand)]
pub enum FleetdOptionsCommand {
    /// Print the options; with --output json, also their version
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster fleetd-options show > options.yml\n  muster fleetd-options show --output json"
    )]
    Show(ShowArgs),
    /// Replace the options with those in a file
    ///
    /// Hosts get the new configuration with their next request.
    #[command(
        after_help = "Examples:\n  muster fleetd-options apply -f options.yml --dry-run\n  muster fleetd-options apply -f options.yml --yes\n  muster fleetd-options apply -f options.yml --yes --output json"
    )]
    Apply(ApplyArgs),
    /// Return to the default options
    #[command(after_help = "Examples:\n  muster fleetd-options reset --yes")]
    Reset(ResetArgs),
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `apply`.
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// File with the options (YAML or JSON); - reads standard input
    #[arg(long, short, value_name = "FILE")]
    file: Utf8PathBuf,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `reset`.
#[derive(Args, Debug)]
pub struct ResetArgs {
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

impl FleetdOptionsCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::Show(args) => print_options(&client.fleetd_options().await?, args.output.output),
            Self::Apply(args) => args.run(client).await,
            Self::Reset(args) => args.run(client).await,
        }
    }
}

impl ApplyArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let failed = |error| problems_of(&self.file, error);
        // The dry run is valid only for this version: if the options have changed since, the server reports a
        // conflict.
        let expected_version = Some(client.fleetd_options().await?.version);
        let file = SaveFleetdOptions { options: read_text(&self.file)?, expected_version };
        let plan = client.try_update_fleetd_options(&file).await.map_err(failed)?;
        // Before the question, so that it is answered with them in mind.
        warn_of(&self.file, &plan.warnings);
        if self.care.dry_run {
            return print_changes(&plan, self.care, self.output.output);
        }
        confirm(&plan, self.care)?;
        let done = client.update_fleetd_options(&file).await.map_err(failed)?;
        print_changes(&done, self.care, self.output.output)
    }
}

impl ResetArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let plan = client.try_reset_fleetd_options().await?;
        if self.care.dry_run {
            return print_changes(&plan, self.care, self.output.output);
        }
        confirm(&plan, self.care)?;
        print_changes(&client.reset_fleetd_options().await?, self.care, self.output.output)
    }
}

/// Asks for confirmation, unless only comments differ.
fn confirm(plan: &ChangedFleetdOptions, care: Care) -> Result<(), Failed> {
    if plan.changes.is_empty() {
        return Ok(());
    }
    care.confirm("Change the osquery configuration of all hosts in the space?")
}

fn print_options(options: &FleetdOptions, format: Format) -> Result<(), Failed> {
    match format {
        Format::Json => print_json(options),
        Format::Yaml => print_yaml(options),
        Format::Name => print_line(options.version.to_string()),
        Format::Table | Format::Wide | Format::Csv => print_line(printable_lines(options.options.trim_end())),
    }
}

fn print_changes(done: &ChangedFleetdOptions, care: Care, format: Format) -> Result<(), Failed> {
    match format {
        Format::Json => return print_json(done),
        Format::Yaml => return print_yaml(done),
        Format::Name => return print_line(done.options.version.to_string()),
        Format::Csv => return print_list(&done.changes, format, CHANGES, |change| change.path.clone()),
        Format::Table | Format::Wide => {}
    }
    match (done.changes.is_empty(), care.dry_run) {
        (true, _) => return print_line("no changes to the configuration of hosts"),
        (false, true) => print_line("would change the configuration of hosts:")?,
        (false, false) => print_line(format!("changed the configuration of hosts, version {}:", done.options.version))?,
    }
    print_table(&done.changes, false, CHANGES)
}
