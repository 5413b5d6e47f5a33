//! `muster agent respond`.

use clap::Args;
use muster_client::Client;
use muster_core::plural::counted;
use muster_protocol::management::respond::{Exposed, Respond, Responded, Reviewed};

use super::confirm::Care;
use super::failure::Failed;
use super::find::{find_agent, hostname};
use super::listing::{Column, Format, OutputArg, column, or_dash, print_json, print_table, print_yaml};
use super::selection::agents;
use super::text::print_line;

/// Flags of `respond`.
#[derive(Args, Debug)]
pub struct RespondArgs {
    /// Agent, by id or host name
    agent: String,
    /// Reason to record in the audit log
    #[arg(long)]
    reason: Option<String>,
    /// Add the tag under-review to the agents that enrolled with the same key since this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    review_since: Option<String>,
    /// Respond even if the policy is managed
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

const EXPOSURES: &[Column<Exposed>] = &[
    column("COULD READ", |one| one.kind.replace('_', " ")),
    column("NAME", |one| one.name.clone()),
    column("WHAT TO DO", |one| one.remedy.clone()),
];

const REVIEW: &[Column<Reviewed>] = &[
    column("UNDER REVIEW", |agent| agent.id.clone()),
    column("HOST", |agent| or_dash(Some(&agent.hostname))),
    column("ENROLLED", |agent| agent.enrolled_at.clone()),
    column("FROM", |agent| or_dash(Some(&agent.first_address))),
];

impl RespondArgs {
    /// Responds to the compromise of an agent.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let agent = find_agent(client, &self.agent).await?;
        let request = Respond {
            reason: self.reason.clone(),
            review_since: self.review_since.clone(),
            force: self.force.then_some(true),
        };
        let name = hostname(&agent).into_owned();
        if self.care.dry_run {
            let done = client.try_respond(&agent.id, &request).await?;
            return self.print(&name, &done, "would revoke", "would tag");
        }
        self.care.confirm(&format!("Revoke {name} and invalidate its keys? To return, it must enroll again."))?;
        let done = client.respond(&agent.id, &request).await?;
        self.print(&name, &done, "revoked", "tagged")
    }

    fn print(&self, name: &str, done: &Responded, revoked: &str, tagged: &str) -> Result<(), Failed> {
        match self.output.output {
            Format::Json => return print_json(done),
            Format::Yaml => return print_yaml(done),
            Format::Name => return print_line(done.action_id.as_deref().unwrap_or_default()),
            Format::Table | Format::Wide | Format::Csv => {}
        }
        let Responded { access_keys, output_keys, reviewed, .. } = done;
        let (access_keys, output_keys) = (counted(*access_keys, "access key"), counted(*output_keys, "output key"));
        print_line(format!("{name}: {revoked} {access_keys} and {output_keys}"))?;
        if !done.exposures.is_empty() {
            print_table(&done.exposures, false, EXPOSURES)?;
        }
        if *reviewed > 0 {
            print_line(format!("{tagged} {} under-review", agents(*reviewed)))?;
            print_table(&done.review, false, REVIEW)?;
        }
        Ok(())
    }
}
