//! `muster doctor`.

use clap::Args;
use muster_server::config::gather;
use muster_server::config::problem::Source;
use muster_server::config::source::Entry;
use muster_server::config::value::Raw;
use muster_server::doctor::{Finding, Grade, examine_host};

use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_list};

/// Check the server and its host for problems
///
/// Checks the data directory and its permissions, the master key, the certificates, the clock, the disk space, the database, the ports,
/// and the limit on open files, without changing anything. Exits with 1 if a check fails. Run it as the server's user.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  muster doctor\n  muster doctor --data-dir /srv/muster --output json\n  muster doctor --config /etc/muster/muster.toml"
)]
pub struct DoctorArgs {
    /// Configuration file [default: /etc/muster/muster.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Data directory of the server
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// URL of a PostgreSQL database, postgres://USER@HOST:PORT/DATABASE [default: SQLite in the data directory]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Set any configuration key (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<Finding>] = &[
    column("CHECK", |finding| finding.check.to_owned()),
    column("RESULT", |finding| grade(finding.grade).to_owned()),
    column("DETAIL", |finding| finding.message.clone()),
    column("REMEDY", |finding| or_dash(finding.remedy.as_deref())),
];

const fn grade(grade: Grade) -> &'static str {
    match grade {
        Grade::Ok => "ok",
        Grade::Warning => "warning",
        Grade::Error => "error",
    }
}

impl DoctorArgs {
    /// Runs the checks. Blocks.
    pub fn run(self) -> Result<(), Failed> {
        let texts = [("data_dir", "--data-dir", self.data_dir), ("database", "--database", self.database)];
        let flags = texts.into_iter().filter_map(|(key, flag, value)| {
            Some(Entry { key: key.into(), raw: Raw::Text(value?), source: Source::Flag(flag.into()) })
        });
        let loaded = gather::from_process(self.config.as_deref(), flags.collect(), self.assignments);
        let loaded = loaded.map_err(|problems| Failed::usage(problems.to_string()))?;
        let findings = examine_host(&loaded.config);
        print_list(&findings, self.output.output, COLUMNS, |finding| finding.check.to_owned())?;
        let errors = findings.iter().filter(|finding| finding.grade == Grade::Error).count();
        match errors {
            0 => Ok(()),
            1 => Err(Failed::new("1 check failed")),
            errors => Err(Failed::new(format!("{errors} checks failed"))),
        }
    }
}
