//! `muster carve …`

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::carve::Carve;

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};
use super::out_file::OutFile;
use super::text::print_line;

/// Verbs of `carve`.
#[derive(Debug, Subcommand)]
pub enum CarveCommand {
    /// List the archives that hosts have uploaded
    ///
    /// A query that calls carve() makes osquery upload the files, for example:
    /// muster query run "SELECT * FROM carves WHERE path = '/etc/hosts' AND carve = 1" --host web-7
    #[command(
        after_help = "Examples:\n  muster carve list\n  muster carve list --host web-7\n  muster carve list --query 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --output json"
    )]
    List(ListArgs),
    /// Show the state of an archive
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster carve show 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --output json"
    )]
    Show(ShowArgs),
    /// Download an archive, a tar file
    #[command(
        after_help = "Examples:\n  muster carve download 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11\n  muster carve download 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --out hosts.tar"
    )]
    Download(DownloadArgs),
    /// Delete an archive and its record
    #[command(after_help = "Examples:\n  muster carve delete 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --yes")]
    Delete(DeleteArgs),
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only archives of this host, by name or id
    #[arg(long)]
    host: Option<String>,
    /// Only archives of this live query
    #[arg(long, value_name = "ID")]
    query: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Carve, by id
    carve: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `download`.
#[derive(Args, Debug)]
pub struct DownloadArgs {
    /// Carve, by id
    carve: String,
    /// File to write; by default, named after the host and the carve, in the current directory
    #[arg(long, value_name = "FILE")]
    out: Option<Utf8PathBuf>,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Carve, by id
    carve: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<Carve>] = &[
    column("ID", |carve| carve.id.clone()),
    column("HOST", |carve| carve.hostname.clone()),
    column("STATE", |carve| carve.state.clone()),
    column("SIZE", |carve| carve.size.to_string()),
    column("RECEIVED", |carve| carve.received.to_string()),
    column("BEGAN", |carve| carve.began_at.clone()),
    column("ERROR", |carve| or_dash(carve.error.as_deref())),
    wide("QUERY", |carve| or_dash(carve.query_id.as_deref())),
    wide("EXPIRES", |carve| or_dash(carve.expires_at.as_deref())),
];

const DETAILS: &[Column<Carve>] = &[
    column("ID", |carve| carve.id.clone()),
    column("HOST", |carve| carve.hostname.clone()),
    column("STATE", |carve| carve.state.clone()),
    column("ERROR", |carve| or_dash(carve.error.as_deref())),
    column("SIZE", |carve| carve.size.to_string()),
    column("RECEIVED", |carve| carve.received.to_string()),
    column("FILE", |carve| carve.file_name.clone()),
    column("QUERY", |carve| or_dash(carve.query_id.as_deref())),
    column("BEGAN", |carve| carve.began_at.clone()),
    column("ENDED", |carve| or_dash(carve.ended_at.as_deref())),
    column("EXPIRES", |carve| or_dash(carve.expires_at.as_deref())),
];

fn id(carve: &Carve) -> String {
    carve.id.clone()
}

impl CarveCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::List(args) => args.run(client).await,
            Self::Show(args) => print_one(&client.carve(&args.carve).await?, args.output.output, DETAILS, id),
            Self::Download(args) => args.run(client).await,
            Self::Delete(args) => {
                let question = format!("Delete the carve {}?", args.carve);
                let delete = async |dry_run| client.delete_carve(&args.carve, dry_run).await;
                args.care.delete(&args.carve, &question, delete).await
            }
        }
    }
}

impl ListArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut carves = client.carves().await?;
        let is_of = |carve: &Carve, host: &str| {
            carve.hostname.eq_ignore_ascii_case(host)
                || carve.host_id.as_deref() == Some(host)
                || carve.agent_id == host
        };
        carves.retain(|carve| self.host.as_ref().is_none_or(|host| is_of(carve, host)));
        carves.retain(|carve| self.query.is_none() || carve.query_id == self.query);
        print_list(&carves, self.output.output, COLUMNS, id)
    }
}

impl DownloadArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let carve = client.carve(&self.carve).await?;
        // The server derives the name from the host's, with characters that have no special meaning.
        let path = self.out.unwrap_or_else(|| Utf8PathBuf::from(&carve.file_name));
        let mut out = OutFile::create(&path)?;
        let mut file = tokio::fs::File::from_std(out.take()?);
        let bytes = client.download_carve(&carve.id, &mut file).await?;
        out.finish(&file.into_std().await)?;
        print_line(format!("{path} ({bytes} bytes)"))
    }
}
