//! `muster backup restore`.

use std::os::unix::fs::OpenOptionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use muster_core::error_chain::chain;
use muster_core::time::Timestamp;
use muster_server::data_dir::{DATABASE, MASTER_KEY};
use muster_server::restore::{Contents, RestoreError, Target};
use muster_store::postgres::Address;

use super::archive::{Archive, Packed};
use crate::commands::connect::Connect;
use crate::commands::failure::Failed;
use crate::commands::text::print_line;

/// Flags of `restore`. The data directory is that of the connection flags.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// File that `muster backup create` wrote
    file: Utf8PathBuf,
    /// Empty PostgreSQL database to restore to, instead of SQLite in the data directory: postgres://USER@HOST:PORT/DATABASE
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Copy of master.key to put into the data directory
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<Utf8PathBuf>,
}

impl RestoreArgs {
    /// Restores a backup. Blocks.
    pub fn run(self, connect: &Connect) -> Result<(), Failed> {
        let Some(directory) = connect.data_dir.clone() else {
            return Err(Failed::usage("--data-dir is required: the empty directory to restore to"));
        };
        let database = self.database.as_deref().map(str::parse::<Address>).transpose();
        let database = database.map_err(|error| Failed::usage(chain(&error).to_string()))?;
        let bar = ProgressBar::new(0).with_style(style());
        // Verified before anything is created or changed.
        let archive = Archive::open(&self.file, &mut |bytes| bar.inc(bytes))?;
        let packed = archive.find(DATABASE).ok_or_else(|| Failed::new(format!("{} has no database", self.file)))?;
        let key = self.key(&archive)?;
        let backup_at = Timestamp::parse_rfc3339(&archive.manifest.created_at)
            .map_err(|_| Failed::new(format!("{}: created_at is not a time", self.file)))?;
        let target = Target::open(&directory)?;
        bar.set_length(packed.size);
        bar.set_position(0);
        extract(&archive, &packed, &target.staging(), &bar)?;
        let contents = Contents { fleet: &archive.manifest.fleet, backup_at, master_key: key.as_deref() };
        let has_key = target.finish(&contents, database.as_ref())?;
        bar.finish_and_clear();
        eprintln!("muster: {}", next_steps(&directory, has_key, database.is_some()));
        print_line(format!("restored fleet {} as of {}", archive.manifest.fleet, archive.manifest.created_at))
    }

    fn key(&self, archive: &Archive) -> Result<Option<Vec<u8>>, Failed> {
        if let Some(path) = &self.master_key_file {
            let read = std::fs::read(path);
            return read.map(Some).map_err(|error| Failed::new(format!("cannot read {path}: {error}")));
        }
        archive.find(MASTER_KEY).map(|packed| archive.small(&packed)).transpose()
    }
}

fn extract(archive: &Archive, packed: &Packed, to: &Utf8Path, bar: &ProgressBar) -> Result<(), Failed> {
    let failed = |error: std::io::Error| Failed::new(format!("cannot write {to}: {error}"));
    // What an interrupted restore has left is replaced.
    let created = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to);
    let mut file = created.map_err(failed)?;
    archive.read(packed, &mut file, &mut |bytes| bar.inc(bytes))?;
    file.sync_all().map_err(failed)
}

/// What remains to be done by hand.
fn next_steps(directory: &Utf8Path, has_key: bool, is_shared: bool) -> String {
    let key = match has_key {
        true => String::new(),
        false => {
            format!(
                "copy master.key to {directory} before you start the server, or specify it with --master-key-file\n  "
            )
        }
    };
    let database = if is_shared { " and the database" } else { "" };
    format!(
        "{key}start the server with this data directory{database}, at the addresses that the agents use\n  \
         hint: changes after the backup are lost, including revocations, which you must repeat; \
         `muster status` lists agents that enrolled after the backup"
    )
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {bytes} {elapsed}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl From<RestoreError> for Failed {
    fn from(error: RestoreError) -> Self {
        let text = chain(&error).to_string();
        match text.split_once("\nhint: ") {
            Some((text, hint)) => Self::new(text).remedy(hint),
            None => Self::new(text),
        }
    }
}
