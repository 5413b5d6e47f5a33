//! `muster host …`

use clap::{ArgGroup, Args, Subcommand};
use muster_client::Client;
use muster_core::plural::counted;
use muster_protocol::management::disk_key::{DiskKey, DiskKeyStatus};
use muster_protocol::management::host::{Host, ListHosts, TransferHosts, TransferredHost};

use super::confirm::Care;
use super::failure::Failed;
use super::find::{all_rows, if_there, only, quoted};
use super::host_show::ShowArgs;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};
use super::selection::labelled;
use super::text::print_line;

/// Verbs of `host`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List hosts with their agents
    #[command(
        after_help = "Examples:\n  muster host list\n  muster host list --filter 'family:osquery and status:offline'\n  muster host list --filter serial:5JX82\n  muster host list --label 'docker hosts'"
    )]
    List(ListArgs),
    /// Show a host, its agents and its disks
    ///
    /// With --output json, also shows what each agent reports.
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster host show web-7\n  muster host show 5JX82\n  muster host show web-7 --software\n  muster host show web-7 --users --certificates\n  muster host show web-7 --output json"
    )]
    Show(ShowArgs),
    /// Make osquery on a host report its details and answer the host checks now
    #[command(after_help = "Examples:\n  muster host refetch web-7")]
    Refetch(RefetchArgs),
    /// Print the recovery key of a host's encrypted disk; recorded in the audit log
    ///
    /// With --request, makes a Linux host ask its user for the disk passphrase.
    #[command(after_help = "Examples:\n  muster host disk-key web-7\n  muster host disk-key web-7 --request")]
    DiskKey(DiskKeyArgs),
    /// Transfer hosts to another space
    ///
    /// orbit and osqueryd keep their keys. Hosts lose their tags and manual labels. Pending scripts
    /// and installs, unanswered live queries and carves in progress are ended. The configuration,
    /// checks and labels of the other space apply within a minute. Disk keys go with the hosts, which
    /// requires the privilege disk_keys.reveal. Hosts with agents of other families are refused.
    #[command(
        after_help = "Examples:\n  muster host transfer web-7 web-8 --to-space finance\n  muster host transfer --filter 'hostname:lab-*' --to-space lab --dry-run"
    )]
    Transfer(TransferArgs),
    /// Delete a host and its agents
    ///
    /// The keys of its agents are rejected immediately. orbit and osqueryd enroll again
    /// if they still have a valid enroll secret. This cannot be undone.
    #[command(after_help = "Examples:\n  muster host delete web-7 --yes")]
    Delete(DeleteArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only hosts with an agent that matches
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    /// Only hosts with one of these labels (repeatable)
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `disk-key`.
#[derive(Args, Debug)]
pub struct DiskKeyArgs {
    /// Host, by id, hardware UUID, serial number or name
    host: String,
    /// Only print whether a key is stored, and the error of the host
    #[arg(long, conflicts_with = "request")]
    status: bool,
    /// Make a Linux host ask its user for the disk passphrase
    #[arg(long)]
    request: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `refetch`.
#[derive(Args, Debug)]
pub struct RefetchArgs {
    /// Host, by id, hardware UUID, serial number or name
    host: String,
}

/// Flags of `transfer`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which hosts").required(true).args(["hosts", "filter"]))]
pub struct TransferArgs {
    /// Hosts, by id, hardware UUID, serial number or name
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// Hosts with an agent that matches
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    /// Space that the hosts move to, by id
    #[arg(long, value_name = "SPACE")]
    to_space: String,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Host, by id, hardware UUID, serial number or name
    host: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<Host>] = &[
    column("ID", |host| host.id.clone()),
    column("NAME", |host| or_dash(Some(&host.hostname))),
    column("OS", |host| or_dash(Some(&host.os))),
    column("AGENTS", agents),
    column("LAST SEEN", |host| or_dash(host.last_seen.as_deref())),
    wide("MACHINE ID", |host| or_dash(host.machine_id.as_deref())),
    wide("SERIAL", |host| or_dash(host.serial.as_deref())),
    wide("DUPLICATES", |host| or_dash(Some(&host.duplicate_hosts.join(", ")))),
    wide("CREATED", |host| host.created_at.clone()),
];

const TRANSFERRED: &[Column<TransferredHost>] = &transferred(
    |host| if host.moved { "moved" } else { "not moved" }.into(),
    |host| if host.disk_key { "moved" } else { "-" }.into(),
);

/// Of a dry run.
const TRANSFERABLE: &[Column<TransferredHost>] = &transferred(
    |host| if host.moved { "would move" } else { "cannot move" }.into(),
    |host| if host.disk_key { "would move" } else { "-" }.into(),
);

const fn transferred(
    result: fn(&TransferredHost) -> String,
    disk_key: fn(&TransferredHost) -> String,
) -> [Column<TransferredHost>; 7] {
    [
        column("HOST", |host| or_dash(Some(&host.hostname))),
        column("RESULT", result),
        column("NEW ID", |host| or_dash(host.new_id.as_deref())),
        column("REASON", |host| or_dash(host.refusal.as_ref().map(|refusal| refusal.message.as_str()))),
        wide("ID", |host| host.id.clone()),
        wide("DISK KEY", disk_key),
        wide("REMEDY", |host| or_dash(host.refusal.as_ref().map(|refusal| refusal.remedy.as_str()))),
    ]
}

/// Formats the agents of a host: `orbit online, osquery offline`.
fn agents(host: &Host) -> String {
    let agents: Vec<String> = host.agents.iter().map(|agent| format!("{} {}", agent.family, agent.status)).collect();
    or_dash(Some(&agents.join(", ")))
}

impl HostCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => {
                check_labels(client, &args.labels).await?;
                let hosts = matching(client, labelled(&args.labels, args.filter).as_deref()).await?;
                print_list(&hosts, args.output.output, COLUMNS, |host| host.id.clone())
            }
            Self::Show(args) => args.run(client).await,
            Self::Refetch(args) => args.run(client).await,
            Self::DiskKey(args) => args.run(client).await,
            Self::Transfer(args) => args.run(client).await,
            Self::Delete(args) => args.run(client).await,
        }
    }
}

const DISK_KEY: &[Column<DiskKey>] = &[
    column("KEY", |key| key.key.clone()),
    column("SALT", |key| or_dash(key.salt.as_deref())),
    column("KEY SLOT", |key| or_dash(key.key_slot.map(|slot| slot.to_string()).as_deref())),
    column("REPORTED", |key| or_dash(key.stored_at.as_deref())),
];

const DISK_KEY_STATUS: &[Column<DiskKeyStatus>] = &[
    column("STORED", |status| if status.stored { "yes" } else { "no" }.to_owned()),
    column("REPORTED", |status| or_dash(status.stored_at.as_deref())),
    column("ERROR", |status| or_dash(status.error.as_deref())),
    column("ERROR AT", |status| or_dash(status.error_at.as_deref())),
    column("ESCROW", |status| match (status.escrow_pending, status.escrow_requests) {
        (false, _) => "-".to_owned(),
        (true, 0) => "pending".to_owned(),
        (true, times) => format!("pending, asked {}", counted(times, "time")),
    }),
];

impl DiskKeyArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let format = self.output.output;
        let host = match find(client, &self.host).await {
            Ok(host) => host,
            // The key of a host that has enrolled in another space stays here, and is found by the hardware UUID.
            Err(error) if !self.request => match client.disk_key_status(&self.host).await {
                Ok(_) => Host { id: self.host.clone(), ..Host::default() },
                Err(_) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        if self.request {
            client.escrow_disk_key(&host.id).await?;
            return print_line(format!(
                "the host {:?} will ask its user for the passphrase within a minute",
                host.hostname
            ));
        }
        if self.status {
            let status = client.disk_key_status(&host.id).await?;
            return print_one(&status, format, DISK_KEY_STATUS, |status| status.stored.to_string());
        }
        let key = if_there(client.reveal_disk_key(&host.id).await)?.ok_or_else(|| {
            let name = if host.hostname.is_empty() { &host.id } else { &host.hostname };
            Failed::not_found(format!("no disk key of the host {name:?} is stored"))
                .remedy("the host has not reported a key; see muster host disk-key HOST --status")
        })?;
        print_one(&key, format, DISK_KEY, |key| key.key.clone())
    }
}

impl RefetchArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let host = find(client, &self.host).await?;
        client.refetch_host(&host.id).await?;
        print_line(format!("the host {:?} reports with its next requests", host.hostname))
    }
}

impl TransferArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut request = TransferHosts { to_space: self.to_space, kuery: self.filter, hosts: Vec::new() };
        for named in &self.hosts {
            request.hosts.push(find(client, named).await?.id);
        }
        // Also before the confirmation, which tells how many hosts will move.
        let mut done = client.try_transfer_hosts(&request).await?;
        if let (true, Some(filter)) = (done.items.is_empty(), &request.kuery) {
            return Err(Failed::new(format!("no host that can be transferred matches {filter}")));
        }
        if !self.care.dry_run && done.moved > 0 {
            let hosts = counted(done.moved, "host");
            let stay = if done.refused > 0 { format!("; {} cannot move", done.refused) } else { String::new() };
            self.care.confirm(&format!("Transfer {hosts} to the space {}{stay}?", request.to_space))?;
            done = client.transfer_hosts(&request).await?;
        }
        let columns = if self.care.dry_run { TRANSFERABLE } else { TRANSFERRED };
        print_list(&done.items, self.output.output, columns, |host| {
            host.new_id.clone().unwrap_or_else(|| host.id.clone())
        })?;
        if done.refused == 0 {
            return Ok(());
        }
        let remedy = done.items.iter().find_map(|host| host.refusal.as_ref()).map(|refusal| refusal.remedy.clone());
        let failed = Failed::new(format!(
            "{} of {} cannot be transferred",
            done.refused,
            counted(done.items.len() as u64, "host")
        ));
        Err(failed.remedy(remedy.unwrap_or_default()))
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let host = find(client, &self.host).await?;
        let named = format!("the host {:?} ({})", host.hostname, host.id);
        if self.care.dry_run {
            let agents = client.try_delete_host(&host.id).await?.agents;
            return print_line(format!("would delete {named} with {}", counted(agents, "agent")));
        }
        let agents = counted(host.agents.len() as u64, "agent");
        self.care.confirm(&format!("Delete {named} with {agents} and reject their keys?"))?;
        // The number that the server has deleted, which can be another one by then.
        let agents = client.delete_host(&host.id).await?.agents;
        print_line(format!("deleted {named} with {}", counted(agents, "agent")))
    }
}

/// Finds a host by its id or the hardware UUID under which it enrolled, or else by its name, serial number or hardware UUID, if only one
/// host reports it.
pub async fn find(client: &Client, named: &str) -> Result<Host, Failed> {
    if let Some(host) = if_there(client.host(named).await)? {
        return Ok(host);
    }
    let literal = quoted(named);
    let filter = format!("hostname:{literal} or serial:{literal} or hardware_uuid:{literal}");
    let mut hosts = matching(client, Some(&filter)).await?;
    // A former agent on the host can have another name.
    let is_called = |fact: Option<&str>| fact.is_some_and(|fact| fact.trim().eq_ignore_ascii_case(named.trim()));
    hosts.retain(|host| {
        [Some(host.hostname.as_str()), host.serial.as_deref(), host.hardware_uuid.as_deref()].into_iter().any(is_called)
    });
    let host = only("host", "name, serial number or hardware UUID", named, hosts, |host| host.id.clone())?;
    // Again, because the checks are only returned for a single host.
    Ok(client.host(&host.id).await?)
}

/// Rejects a label that does not exist: with a typing error in its name, a list is empty, as if no host had the label.
async fn check_labels(client: &Client, labels: &[String]) -> Result<(), Failed> {
    if labels.is_empty() {
        return Ok(());
    }
    // Without the privilege to read labels, the list is still useful.
    let Ok(known) = client.labels().await else { return Ok(()) };
    let is_known = |name: &String| known.items.iter().any(|label| label.name.to_lowercase() == name.to_lowercase());
    match labels.iter().find(|name| !is_known(name)) {
        Some(name) => {
            Err(Failed::not_found(format!("no label with the name {name:?}")).remedy("list labels: muster label list"))
        }
        None => Ok(()),
    }
}

async fn matching(client: &Client, filter: Option<&str>) -> Result<Vec<Host>, Failed> {
    let read = async |search_after, per_page| {
        let query = ListHosts { search_after, per_page, kuery: filter.map(str::to_owned), ..ListHosts::default() };
        client.hosts(&query).await
    };
    all_rows(read).await
}
