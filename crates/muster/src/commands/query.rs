//! `muster query …`

use std::time::{Duration, Instant};

use clap::{ArgGroup, Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use muster_client::Client;
use muster_core::plural::counted;
use muster_protocol::management::live_query::{ListResults, LiveQuery, LiveQueryResults, RunQuery};
use muster_protocol::management::saved_query::{SaveQuery, SavedQuery};

use super::confirm::Care;
use super::failure::Failed;
use super::find::only;
use super::listing::{Column, Format, OutputArg, column, or_dash, print_list, print_one, wide};
use super::query_rows::RowPrinter;
use super::text::print_line;

/// Number of results that are requested at a time: the maximum.
const PAGE: u32 = 1000;
/// Time between two requests for results while hosts answer. A request for each answer would cost as much as the answer.
const GATHER: Duration = Duration::from_millis(25);
/// Maximum time between two requests for results, while no host answers.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time for which a server may be unreachable while a query runs, as during a restart, and time between two attempts.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);
/// Maximum characters of the SQL in a table.
const SQL_SHOWN: usize = 60;

/// Verbs of `query`.
#[derive(Debug, Subcommand)]
pub enum QueryCommand {
    /// Run SQL on hosts with osquery, and print the rows as they arrive
    ///
    /// Ends when all hosts have answered, or after the timeout. Ctrl-C stops the query on all
    /// hosts. With --output json, prints one JSON object per line, one for each host. Exits with 1
    /// unless all rows of all hosts are printed; if a host has more than 1,000 rows or 256 KiB, a
    /// last JSON object has the number of missing rows.
    #[command(
        after_help = "Examples:\n  muster query run 'SELECT name, version FROM os_version' --all\n  muster query run 'SELECT pid, path FROM processes' --host web-7 --output csv\n  muster query run 'SELECT * FROM usb_devices' --filter 'tags:laptops' --timeout 300\n  muster query run 'SELECT * FROM docker_containers' --label 'docker hosts'\n  muster query run --saved 'logged in users' --host web-7"
    )]
    Run(RunArgs),
    /// Save a query under a name, so that people can run it without the right to run any SQL
    ///
    /// A saved query with this name is replaced. With --restricted, running it requires the privilege queries.run, as for any SQL.
    #[command(
        after_help = "Examples:\n  muster query save 'logged in users' 'SELECT user, host FROM logged_in_users' --description 'Who is logged in'\n  muster query save 'password hashes' 'SELECT * FROM shadow' --restricted"
    )]
    Save(SaveArgs),
    /// Delete a saved query
    #[command(after_help = "Examples:\n  muster query delete 'logged in users' --yes")]
    Delete(DeleteArgs),
    /// List the live queries of the last day, or the saved queries
    #[command(
        after_help = "Examples:\n  muster query list\n  muster query list --saved\n  muster query list --output json"
    )]
    List(ListArgs),
    /// Show a live query and how many hosts have answered
    #[command(
        visible_alias = "get",
        after_help = "Examples:\n  muster query show 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --output json"
    )]
    Show(ShowArgs),
    /// Print the results of a live query, which are kept for a day
    #[command(after_help = "Examples:\n  muster query results 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11 --output csv")]
    Results(ShowArgs),
    /// Stop a live query
    ///
    /// Hosts that have not received it will not run it. The results so far are kept.
    #[command(after_help = "Examples:\n  muster query stop 5f6c1d9e-2f0e-4a55-8f3b-6f1f4a0d9c11")]
    Stop(StopArgs),
}

/// Flags of `run`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which hosts").required(true).multiple(true).args(["hosts", "filter", "labels", "all"]))]
pub struct RunArgs {
    /// SQL to run in osquery
    #[arg(required_unless_present = "saved")]
    sql: Option<String>,
    /// Run a saved query, by name or id
    #[arg(long, value_name = "QUERY", conflicts_with = "sql")]
    saved: Option<String>,
    /// Host, by name, serial number, hardware UUID or id (repeatable)
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Only hosts whose osquery agent matches
    #[arg(long, value_name = "KQL")]
    filter: Option<String>,
    /// Only hosts with one of these labels (repeatable)
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// All hosts with osquery
    #[arg(long, conflicts_with_all = ["hosts", "filter", "labels"])]
    all: bool,
    /// Seconds after which the query ends
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// Print the number of hosts, and run nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `save`.
#[derive(Args, Debug)]
pub struct SaveArgs {
    /// Name, unique in the space
    name: String,
    /// SQL of osquery
    sql: String,
    /// Description
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// Only people who may run any SQL may run it
    #[arg(long)]
    restricted: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Saved query, by name or id
    query: String,
    #[command(flatten)]
    care: Care,
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// List the saved queries
    #[arg(long)]
    saved: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show` and `results`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Live query, by id
    query: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `stop`.
#[derive(Args, Debug)]
pub struct StopArgs {
    /// Live query, by id
    query: String,
}

const COLUMNS: &[Column<LiveQuery>] = &[
    column("ID", |query| query.id.clone()),
    column("STATE", |query| query.state.clone()),
    column("HOSTS", |query| query.targets.to_string()),
    column("ANSWERED", |query| query.answered.to_string()),
    column("FAILED", |query| query.failed.to_string()),
    column("ROWS", |query| query.rows.to_string()),
    column("CREATED", |query| query.created_at.clone()),
    column("SQL", |query| muster_core::reported::shortened_to(&query.sql, SQL_SHOWN).into_owned()),
    wide("CREATED BY", |query| query.created_by.clone()),
];

const DETAILS: &[Column<LiveQuery>] = &[
    column("ID", |query| query.id.clone()),
    column("STATE", |query| query.state.clone()),
    column("SQL", |query| query.sql.clone()),
    column("HOSTS", |query| query.targets.to_string()),
    column("ANSWERED", |query| query.answered.to_string()),
    column("FAILED", |query| query.failed.to_string()),
    column("GONE", |query| query.gone.to_string()),
    column("OFFLINE", |query| query.offline.unwrap_or(0).to_string()),
    column("NO ANSWER", |query| or_dash(silent(query).as_deref())),
    column("ROWS", |query| query.rows.to_string()),
    column("CREATED", |query| query.created_at.clone()),
    column("CREATED BY", |query| query.created_by.clone()),
    column("ENDED", |query| or_dash(query.ended_at.as_deref())),
];

const SAVED: &[Column<SavedQuery>] = &[
    column("NAME", |query| query.name.clone()),
    column("DESCRIPTION", |query| or_dash(Some(&query.description))),
    column("SQL", |query| muster_core::reported::shortened_to(&query.sql, SQL_SHOWN).into_owned()),
    wide("RESTRICTED", |query| if query.restricted { "yes" } else { "no" }.into()),
    wide("CHANGED", |query| query.updated_at.clone()),
    wide("CHANGED BY", |query| query.updated_by.clone()),
    wide("ID", |query| query.id.clone()),
];

impl QueryCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::Run(args) => args.run(client).await,
            Self::Save(args) => args.run(client).await,
            Self::Delete(args) => args.run(client).await,
            Self::List(args) if args.saved => {
                print_list(&client.saved_queries().await?, args.output.output, SAVED, |query| query.id.clone())
            }
            Self::List(args) => {
                print_list(&client.live_queries().await?, args.output.output, COLUMNS, |query| query.id.clone())
            }
            Self::Show(args) => {
                let query = client.live_query(&args.query).await?;
                print_one(&query, args.output.output, DETAILS, |query| query.id.clone())
            }
            Self::Results(args) => {
                let mut follower = Follower::new(client, &args.query, args.output.output);
                // To the first empty page: the query itself need not have ended.
                while follower.step().await?.results > 0 {}
                follower.rows.finish()
            }
            Self::Stop(args) => {
                let stopped = client.stop_query(&args.query).await?;
                print_line(format!("the live query {} has ended: {}", stopped.id, stopped.state))
            }
        }
    }
}

impl RunArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let query = RunQuery {
            sql: self.sql.unwrap_or_default(),
            saved: self.saved,
            hosts: self.hosts,
            labels: self.labels,
            kuery: self.filter,
            timeout_seconds: Some(self.timeout),
        };
        if self.dry_run {
            let targets = client.try_run_query(&query).await?.targets;
            return print_line(format!("would run the query on {}", counted(targets, "host")));
        }
        let begun = client.run_query(&query).await?;
        let mut follower = Follower::new(client, &begun.id, self.output.output);
        follower.patience = PATIENCE;
        // An interrupted query ends on the server too, so that no further host runs it.
        let ended = tokio::select! {
            ended = follower.until_the_end(begun.targets) => ended?,
            _ = tokio::signal::ctrl_c() => client.stop_query(&begun.id).await?,
        };
        follower.bar.finish_and_clear();
        // What cut answers lack comes last, but does not hide that hosts did not answer.
        let (answered, complete) = (outcome(&ended), follower.rows.finish());
        match (answered, complete) {
            (Err(failed), Err(incomplete)) => {
                eprintln!("{incomplete}");
                Err(failed)
            }
            (answered, complete) => answered.and(complete),
        }
    }
}

impl SaveArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let query =
            SaveQuery { name: self.name, description: self.description, sql: self.sql, restricted: self.restricted };
        print_one(&client.save_query(&query).await?, self.output.output, SAVED, |query| query.id.clone())
    }
}

impl DeleteArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let mut found = client.saved_queries().await?;
        found.retain(|query| query.id == self.query || query.name.eq_ignore_ascii_case(&self.query));
        let query = only("saved query", "name", &self.query, found, |query| query.id.clone())?;
        let question = format!("Delete the saved query {:?}?", query.name);
        self.care
            .delete(&query.name, &question, async |dry_run| client.delete_saved_query(&query.id, dry_run).await)
            .await
    }
}

/// Prints the results of a live query.
struct Follower<'a> {
    client: &'a Client,
    id: &'a str,
    rows: RowPrinter,
    next: ListResults,
    bar: ProgressBar,
    /// Time for which the server may be unreachable.
    patience: Duration,
}

/// Results that were printed.
struct Step {
    /// Number of results.
    results: usize,
    /// The live query, as it was before them.
    query: LiveQuery,
}

impl<'a> Follower<'a> {
    fn new(client: &'a Client, id: &'a str, format: Format) -> Self {
        let (next, bar) = (ListResults { after: None, limit: Some(PAGE) }, ProgressBar::hidden());
        Self { client, id, rows: RowPrinter::new(format), next, bar, patience: Duration::ZERO }
    }

    /// Reads the next results.
    async fn page(&self) -> Result<LiveQueryResults, Failed> {
        let begun = Instant::now();
        loop {
            match self.client.live_query_results(self.id, &self.next).await {
                // The query goes on meanwhile, on the other servers or after the restart.
                Err(error) if is_passing(&error) && begun.elapsed() < self.patience => tokio::time::sleep(AGAIN).await,
                Err(error) if is_passing(&error) && !self.patience.is_zero() => {
                    let hint = format!("the query goes on; print its results with `muster query results {}`", self.id);
                    return Err(Failed::from(error).remedy(hint));
                }
                found => return Ok(found?),
            }
        }
    }

    /// Prints the next results.
    async fn step(&mut self) -> Result<Step, Failed> {
        let page = self.page().await?;
        self.next.after = Some(page.next);
        self.bar.set_position(page.query.answered);
        self.bar.set_message(progress(&page.query));
        // The bar must not be drawn between the rows.
        self.bar.suspend(|| self.rows.print(&page.items))?;
        Ok(Step { results: page.items.len(), query: page.query })
    }

    async fn until_the_end(&mut self, targets: u64) -> Result<LiveQuery, Failed> {
        self.bar = ProgressBar::new(targets).with_style(style());
        let mut pause = GATHER;
        loop {
            let Step { results, query } = self.step().await?;
            match (results, query.ended_at.is_some()) {
                // Only after an empty page, so that no result is left out.
                (0, true) => return Ok(query),
                // The rest is there.
                (_, true) => continue,
                // The next answers are printed soon, and a query whose hosts are silent causes few requests.
                (0, false) => pause = (pause * 2).min(LOOK_EVERY),
                (_, false) => pause = GATHER,
            }
            if results < PAGE as usize {
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Returns whether a request may succeed when the server is back.
fn is_passing(error: &muster_client::Error) -> bool {
    matches!(error, muster_client::Error::Broken { .. }) || error.failure() == muster_client::Failure::Unreachable
}

fn progress(query: &LiveQuery) -> String {
    let mut parts = vec![counted(query.rows, "row")];
    parts.extend((query.failed > 0).then(|| format!("{} failed", query.failed)));
    parts.extend((query.gone > 0).then(|| format!("{} deleted or transferred", query.gone)));
    parts.extend(query.offline.filter(|offline| *offline > 0).map(|offline| format!("{offline} offline")));
    parts.join(", ")
}

/// Returns the names of the hosts that did not answer a live query that has ended, if there are any.
fn silent(query: &LiveQuery) -> Option<String> {
    let without = query.targets.saturating_sub(query.answered + query.gone);
    let more = without.saturating_sub(query.silent.len() as u64);
    let mut names = query.silent.clone();
    names.extend((more > 0).then(|| format!("{more} more")));
    (!query.silent.is_empty()).then(|| names.join(", "))
}

/// Returns an error unless every host has answered without an error.
fn outcome(query: &LiveQuery) -> Result<(), Failed> {
    let silent = silent(query).map_or_else(String::new, |names| format!("; no answer from {names}"));
    let told =
        format!("{} of {} answered: {}{silent}", query.answered, counted(query.targets, "host"), progress(query));
    match query.state.as_str() {
        "complete" if query.failed == 0 && query.gone == 0 => {
            eprintln!("{told}");
            Ok(())
        }
        "complete" => Err(Failed::new(told)),
        "timed_out" => Err(Failed::new(format!("timeout: {told}")).remedy("increase --timeout")),
        "full" => Err(Failed::new(format!("too many results: {told}")).remedy("select fewer rows or columns")),
        state => Err(Failed::new(format!("{state}: {told}"))),
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {pos}/{len} hosts {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn hosts_that_did_not_answer_are_named() {
        let query = |targets, silent: &[&str]| LiveQuery {
            state: "timed_out".into(),
            targets,
            answered: 4,
            offline: Some(1),
            silent: silent.iter().map(|name| (*name).to_owned()).collect(),
            ..LiveQuery::default()
        };
        let message = outcome(&query(7, &["lab-4", "lab-5", "leak"])).unwrap_err().to_string();
        assert!(
            message.contains("4 of 7 hosts answered: 0 rows, 1 offline; no answer from lab-4, lab-5, leak"),
            "{message}"
        );
        assert_eq!(silent(&query(4, &[])), None);
        assert_eq!(silent(&query(30, &["a", "b"])).as_deref(), Some("a, b, 24 more"));
    }

    #[tokio::test]
    async fn a_query_in_the_terminal_survives_a_restart_of_the_server() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let query = LiveQuery { state: "complete".into(), ended_at: Some("now".into()), ..LiveQuery::default() };
        let results = serde_json::to_string(&LiveQueryResults { query, ..LiveQueryResults::default() }).unwrap();
        let refusal = r#"{"statusCode":503,"error":"x","message":"starting","code":"starting"}"#;
        let reply = |status: u16, body: &str| {
            format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        // The server stops, starts, and is there again.
        let replies = [String::new(), reply(503, refusal), reply(200, &results)];
        tokio::spawn(async move {
            for reply in replies {
                let (mut stream, _) = listener.accept().await.unwrap();
                let read = stream.read(&mut [0; 4_096]).await.unwrap();
                assert!(read > 0);
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        let client = Client::http(&url, None).unwrap();
        let mut follower = Follower::new(&client, "q", Format::Table);
        follower.patience = PATIENCE;
        assert_eq!(follower.until_the_end(1).await.unwrap().state, "complete");
        // Nobody listens any more: without patience, the first attempt is the last one.
        follower.patience = Duration::ZERO;
        assert!(follower.page().await.is_err());
    }
}
