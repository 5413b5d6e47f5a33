//! `muster agent retention`: how long unenrolled agents are kept.

use clap::Args;
use muster_client::Client;
use muster_protocol::management::settings::{DeleteUnenrolled, SaveSettings};

use super::failure::Failed;
use super::listing::{Format, OutputArg, print_json, print_yaml};
use super::text::print_line;
use super::times::seconds;

/// Flags of `retention`.
#[derive(Args, Debug)]
pub struct RetentionArgs {
    /// Delete agents this long after their unenrollment, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    delete_after: Option<i64>,
    /// Keep unenrolled agents until they are deleted by a command
    #[arg(long, conflicts_with = "delete_after")]
    keep: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl RetentionArgs {
    /// Shows the retention, after changing it if a flag is set.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let change = match (self.delete_after, self.keep) {
            (Some(after), _) => Some(DeleteUnenrolled {
                enabled: true,
                retention_seconds: Some(after.unsigned_abs()),
                ..DeleteUnenrolled::default()
            }),
            (None, true) => Some(DeleteUnenrolled::default()),
            (None, false) => None,
        };
        let settings = match change {
            Some(delete) => {
                let change = SaveSettings { delete_unenrolled_agents: Some(delete), ..SaveSettings::default() };
                client.update_settings(&change).await?
            }
            None => client.settings().await?,
        };
        let delete = settings.delete_unenrolled_agents;
        match self.output.output {
            Format::Json => print_json(&delete),
            Format::Yaml => print_yaml(&delete),
            Format::Table | Format::Wide | Format::Name | Format::Csv if delete.enabled => {
                let after = delete.retention_seconds.unwrap_or(0);
                print_line(format!("unenrolled agents are deleted {after} seconds after their unenrollment"))
            }
            Format::Table | Format::Wide | Format::Name | Format::Csv => print_line("unenrolled agents are kept"),
        }
    }
}
