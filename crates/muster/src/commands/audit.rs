//! `muster audit …`

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::audit::{AuditEvent, AuditVerdict, ListAuditEvents};

use super::audit_file;
use super::connect::Connect;
use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};

/// Events per request.
const PER_PAGE: u32 = 1000;

/// Verbs of `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List audit events, newest first
    ///
    /// With --space, the events of this space. Without it, those of all spaces and of the installation, if your role
    /// covers them.
    #[command(
        after_help = "Examples:\n  muster audit list --limit 20\n  muster audit list --space lab\n  muster audit list --subject policy:web --since 2026-01-02T00:00:00Z --output json"
    )]
    List(ListArgs),
    /// Export audit events to a signed file
    ///
    /// The file is signed with the key that signs policies, and can be verified on any machine: muster audit verify
    /// FILE. With --space, it contains the events of this space, and hashes in place of the others.
    #[command(
        after_help = "Examples:\n  muster audit export --out audit.jsonl\n  muster audit export --out lab.jsonl --space lab\n  muster audit export --out january.jsonl --since 2026-01-01T00:00:00Z --until 2026-02-01T00:00:00Z"
    )]
    Export(audit_file::ExportArgs),
    /// Verify that no audit event was changed or removed
    ///
    /// Without FILE, the server verifies its log. With FILE, the command verifies the chains, the seals and the
    /// signature of an
    /// exported file, without a server. The events of each server form a hash chain. Store the printed hashes of the
    /// last events
    /// elsewhere, so that you can detect later whether events were removed from the end of a chain.
    #[command(
        after_help = "Examples:\n  muster audit verify\n  muster audit verify --output json\n  muster audit verify audit.jsonl --public-key b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"
    )]
    Verify(VerifyArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only events caused by this actor, such as local:root or agent:ID
    #[arg(long)]
    actor: Option<String>,
    /// Only events of this kind, such as policy.update
    #[arg(long)]
    action: Option<String>,
    /// Only events about this object, such as policy:ID
    #[arg(long, value_name = "OBJECT")]
    subject: Option<String>,
    /// Only events at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Maximum number of events
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// File that `muster audit export` wrote
    file: Option<Utf8PathBuf>,
    /// The fleet's public signing key (base64) or its fingerprint (SHA-256 in hex); verification fails if another key
    /// signed the file
    #[arg(long, value_name = "KEY", requires = "file")]
    public_key: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<AuditEvent>] = &[
    column("NO", |event| event.seq.to_string()),
    column("TIME", |event| event.at.clone()),
    column("ACTOR", |event| event.actor.clone()),
    column("ACTION", |event| event.action.clone()),
    column("OBJECT", |event| event.subject.clone()),
    column("DETAIL", |event| event.detail.to_string()),
    wide("HASH", |event| event.hash.clone()),
];

const VERDICT: &[Column<AuditVerdict>] = &[
    column("INTACT", |verdict| if verdict.intact { "yes" } else { "no" }.to_owned()),
    column("EVENTS", |verdict| verdict.lines.to_string()),
    column("LAST HASH", |verdict| or_dash(Some(heads(verdict).as_str()).filter(|heads| !heads.is_empty()))),
];

/// Returns the last hash. With several nodes, returns the name and the last hash of each chain.
fn heads(verdict: &AuditVerdict) -> String {
    match verdict.heads.as_slice() {
        [head] => head.hash.clone(),
        heads => heads.iter().map(|head| format!("{}:{}", head.chain, head.hash)).collect::<Vec<_>>().join(" "),
    }
}

impl AuditCommand {
    /// Runs the verb.
    pub async fn run(self, connect: &Connect) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(&connect.client()?).await,
            Self::Export(args) => args.run(&connect.client()?).await,
            Self::Verify(VerifyArgs { file: Some(file), public_key, output }) => {
                audit_file::verify(&file, public_key, output.output)
            }
            Self::Verify(args) => args.run(&connect.client()?).await,
        }
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut query = ListAuditEvents {
            actor: self.actor,
            action: self.action,
            subject: self.subject,
            since: self.since,
            until: self.until,
            per_page: Some(PER_PAGE),
            search_after: None,
        };
        let mut events = Vec::new();
        // Each page continues after the last event of the previous page.
        while events.len() < self.limit {
            let page = client.audit_events(&query).await?;
            events.extend(page.items);
            query.search_after = page.next_search_after;
            if query.search_after.is_none() {
                break;
            }
        }
        events.truncate(self.limit);
        print_list(&events, self.output.output, COLUMNS, |event| event.seq.to_string())
    }
}

impl VerifyArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let verdict = client.verify_audit().await?;
        // The verdict is printed in any case, so that scripts can read it together with the exit code.
        print_one(&verdict, self.output.output, VERDICT, heads)?;
        match verdict.broken {
            None => Ok(()),
            Some(defect) => {
                let what = format!("audit event {} of node {}: {}", defect.position, defect.chain, defect.reason);
                Err(Failed::new(what)
                    .remedy("compare the log with a backup; the earlier events of this node are unchanged"))
            }
        }
    }
}
