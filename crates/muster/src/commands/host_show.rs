//! `muster host show`

use clap::Args;
use muster_client::Client;
use muster_core::plural::counted;
use muster_protocol::management::host::{FailingQuery, Host, HostAgent};
use muster_protocol::management::host_check::AnsweredCheck;
use muster_protocol::management::software::Software;

use super::failure::Failed;
use super::host::find;
use super::host_facts;
use super::host_inventory;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_one, print_table};
use super::text::print_line;

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Host, by id, hardware UUID, serial number or name
    host: String,
    /// Also list its software
    #[arg(long)]
    software: bool,
    /// Also list its users
    #[arg(long)]
    users: bool,
    /// Also list its certificates
    #[arg(long)]
    certificates: bool,
    #[command(flatten)]
    output: OutputArg,
}

const DETAILS: &[Column<Host>] = &[
    column("ID", |host| host.id.clone()),
    column("NAME", |host| or_dash(Some(&host.hostname))),
    column("MACHINE ID", |host| or_dash(host.machine_id.as_deref())),
    column("HARDWARE UUID", |host| or_dash(host.hardware_uuid.as_deref())),
    column("SERIAL", |host| or_dash(host.serial.as_deref())),
    column("DUPLICATES", |host| or_dash(Some(&host.duplicate_hosts.join(", ")))),
    column("OS", |host| or_dash(Some(&host.os))),
    column("VENDOR", |host| host_facts::text(host, "/hardware/vendor")),
    column("MODEL", |host| host_facts::text(host, "/hardware/model")),
    column("CPU", |host| host_facts::text(host, "/hardware/cpu")),
    column("MEMORY", host_facts::memory),
    column("ADDRESSES", |host| host_facts::text(host, "/host/ip")),
    column("MAC", |host| host_facts::text(host, "/host/mac")),
    column("CREATED", |host| host.created_at.clone()),
    column("LAST SEEN", |host| or_dash(host.last_seen.as_deref())),
    column("BOOTED", |host| or_dash(host.booted_at.as_deref())),
    column("LABELS", |host| or_dash(Some(&host.labels.join(", ")))),
    column("SOFTWARE", software),
    column("USERS", host_inventory::users),
    column("CERTIFICATES", host_inventory::certificates),
    column("DENYLISTED", |host| or_dash(Some(&host.denylisted_queries.join(", ")))),
];

const AGENTS: &[Column<HostAgent>] = &[
    column("AGENT", |agent| agent.id.clone()),
    column("FAMILY", |agent| agent.family.clone()),
    column("STATUS", |agent| agent.status.clone()),
    column("VERSION", |agent| or_dash(Some(&agent.version))),
    column("LAST SEEN", |agent| or_dash(agent.last_checkin.as_deref())),
];

const FAILING: &[Column<FailingQuery>] = &[
    column("FAILING QUERY", |query| query.name.clone()),
    column("SINCE", |query| query.since.clone()),
    column("ERROR", |query| query.error.clone()),
];

const CHECKS: &[Column<AnsweredCheck>] = &[
    column("CHECK", |check| check.name.clone()),
    column("RESULT", |check| match check.passes {
        Some(true) => "passes".into(),
        Some(false) => "fails".into(),
        None => "-".into(),
    }),
    column("SINCE", |check| or_dash(check.since.as_deref())),
    column("ERROR", |check| or_dash(check.error.as_deref())),
];

const SOFTWARE: &[Column<Software>] = &[
    column("SOFTWARE", |software| software.name.clone()),
    column("VERSION", |software| or_dash(Some(&software.version))),
    column("SOURCE", |software| software.source.clone()),
];

/// Formats the number of packages on a host.
fn software(host: &Host) -> String {
    let kept = counted(host.software.len() as u64, "package");
    match host.software_left_out {
        Some(left_out) => format!("{kept}, {left_out} more are not stored"),
        None => kept,
    }
}

impl ShowArgs {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let host = find(client, &self.host).await?;
        let format = self.output.output;
        print_one(&host, format, DETAILS, |host| host.id.clone())?;
        if matches!(format, Format::Table | Format::Wide) {
            print_line("")?;
            print_table(&host.agents, false, AGENTS)?;
            if !host.disks.is_empty() {
                print_line("")?;
                print_table(&host.disks, false, host_inventory::DISKS)?;
            }
            if !host.checks.is_empty() {
                print_line("")?;
                print_table(&host.checks, false, CHECKS)?;
            }
            if !host.failing_queries.is_empty() {
                print_line("")?;
                print_table(&host.failing_queries, false, FAILING)?;
            }
            if self.software {
                print_line("")?;
                print_table(&host.software, false, SOFTWARE)?;
            }
            if self.users {
                print_line("")?;
                print_table(&host.users, false, host_inventory::USERS)?;
            }
            if self.certificates {
                print_line("")?;
                print_table(&host.certificates, false, host_inventory::CERTIFICATES)?;
            }
        }
        Ok(())
    }
}
