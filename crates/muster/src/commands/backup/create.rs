//! `muster backup create`.

use muster_core::error_chain::chain;
use std::time::Duration;

use camino::Utf8PathBuf;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use muster_client::Client;
use muster_client::types::backup::Backup;
use muster_server::data_dir::{DATABASE, MASTER_KEY};
use tokio::io::AsyncWriteExt as _;

use super::archive::{Digest, FORMAT, MANIFEST, Manifest, Packed, end, header, padding};
use crate::commands::connect::Connect;
use crate::commands::failure::Failed;
use crate::commands::out_file::OutFile;
use crate::commands::text::print_line;

/// Time between two requests for the progress.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Flags of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// File to write; must not exist
    #[arg(long, value_name = "FILE")]
    out: Utf8PathBuf,
    /// Add master.key of the data directory on this host. Anyone who has the file can then decrypt every secret of the fleet, and sign policies
    #[arg(long)]
    include_master_key: bool,
}

impl CreateArgs {
    /// Creates and downloads a backup.
    pub async fn run(self, connect: &Connect) -> Result<(), Failed> {
        let client = connect.client()?;
        // The key and the file first: they can fail before the server does any work.
        let key = self.include_master_key.then(|| master_key(connect)).transpose()?;
        let out = OutFile::create(&self.out)?;
        let bar = ProgressBar::new(0).with_style(style());
        let backup = client.create_backup().await?;
        let id = backup.id.clone();
        let written = self.write(&client, backup, key.as_deref(), out, &bar).await;
        bar.finish_and_clear();
        // Otherwise the server removes it after some time.
        let removed = client.delete_backup(&id).await;
        let size = written?;
        removed?;
        if key.is_some() {
            eprintln!("muster: {} contains the master key: keep it as secret as the data directory", self.out);
        } else {
            eprintln!("muster: the master key is not in the backup; without a copy of master.key, secrets are lost");
        }
        print_line(format!("{} ({size} bytes)", self.out))
    }

    async fn write(
        &self,
        client: &Client,
        backup: Backup,
        key: Option<&[u8]>,
        mut out: OutFile,
        bar: &ProgressBar,
    ) -> Result<u64, Failed> {
        let backup = ready(client, backup, bar).await?;
        let (Some(size), Some(sha256)) = (backup.size, backup.sha256.clone()) else {
            return Err(Failed::new("the server's response does not contain the checksum of the backup"));
        };
        let database = Packed { name: DATABASE.into(), size, sha256 };
        let key = key.map(|bytes| (Packed::of(MASTER_KEY, bytes), bytes));
        let files = [&database].into_iter().chain(key.as_ref().map(|(packed, _)| packed)).cloned().collect();
        let manifest = Manifest {
            format: FORMAT.into(),
            fleet: backup.fleet,
            created_at: backup.created_at,
            version: backup.version,
            files,
        };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| Failed::new(chain(&error).to_string()))?;
        let mut file = tokio::fs::File::from_std(out.take()?);
        append(&mut file, MANIFEST, &text).await?;
        file.write_all(&header(DATABASE, size)?).await?;
        download(client, &backup.id, &database, &mut file, bar).await?;
        file.write_all(&padding(size)).await?;
        if let Some((packed, bytes)) = key {
            append(&mut file, &packed.name, bytes).await?;
        }
        file.write_all(&end()).await?;
        file.flush().await?;
        let file = file.into_std().await;
        let length = file.metadata()?.len();
        out.finish(&file)?;
        Ok(length)
    }
}

/// Reads the master key of the server on this host.
fn master_key(connect: &Connect) -> Result<Vec<u8>, Failed> {
    let path = connect.data_dir()?.join(MASTER_KEY);
    let read = std::fs::read(&path).map_err(|error| Failed::new(format!("cannot read {path}: {error}")));
    read.map_err(|failed| failed.remedy("run the command on the server's host, as its user; or copy the key yourself"))
}

/// Waits until the server has created the backup.
async fn ready(client: &Client, mut backup: Backup, bar: &ProgressBar) -> Result<Backup, Failed> {
    bar.set_message("creating");
    loop {
        match backup.state.as_str() {
            "ready" => return Ok(backup),
            "failed" => {
                return Err(Failed::new(format!("the backup failed: {}", backup.error.unwrap_or_default())));
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
        backup = client.backup(&backup.id).await?;
        bar.set_length(backup.total);
        bar.set_position(backup.done);
    }
}

async fn download(
    client: &Client,
    id: &str,
    expected: &Packed,
    to: &mut tokio::fs::File,
    bar: &ProgressBar,
) -> Result<(), Failed> {
    bar.set_message("downloading");
    bar.set_length(expected.size);
    bar.set_position(0);
    let mut digest = Digest::new();
    let mut watch = |piece: &[u8]| {
        digest.add(piece);
        bar.inc(piece.len() as u64);
    };
    let size = client.download_backup(id, to, &mut watch).await?;
    if size != expected.size || digest.hex() != expected.sha256 {
        return Err(Failed::new("the backup was damaged during the download").remedy("retry"));
    }
    Ok(())
}

async fn append(file: &mut tokio::fs::File, name: &str, bytes: &[u8]) -> Result<(), Failed> {
    let size = bytes.len() as u64;
    file.write_all(&header(name, size)?).await?;
    file.write_all(bytes).await?;
    Ok(file.write_all(&padding(size)).await?)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {percent}% {msg} {elapsed}").unwrap_or_else(|_| ProgressStyle::default_bar())
}
