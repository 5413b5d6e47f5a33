//! `muster package …`

use std::fs::File;
use std::io::Read;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use muster_client::Client;
use muster_core::package::is_package_file;

use super::confirm::Care;
use super::failure::Failed;
use super::print_line;

/// Maximum size of a file, which is the limit of the API.
const MAX_BYTES: u64 = 100 << 20;

/// Verbs of `package`.
#[derive(Debug, Subcommand)]
pub enum PackageCommand {
    /// Upload a package, so that agents can download it from the server
    ///
    /// A package consists of an archive and a signed manifest, which
    /// `cargo xtask release` creates. Both must be uploaded. A stored
    /// file must be deleted before another one can replace it.
    #[command(
        after_help = "Examples:\n  muster package upload muster-agent-0.2.0-linux-x86_64.tar.gz muster-agent-0.2.0-linux-x86_64.manifest.json\n  muster agent upgrade web-1 --version 0.2.0"
    )]
    Upload(UploadArgs),
    /// Delete a file of a package from the server
    ///
    /// Agents that are downloading it fail, and retry. Delete a file to upload it again if the
    /// upload was wrong.
    #[command(after_help = "Examples:\n  muster package delete muster-agent-0.2.0-linux-x86_64.tar.gz --yes")]
    Delete(DeleteArgs),
}

/// Flags of `upload`.
#[derive(Args, Debug)]
pub struct UploadArgs {
    /// The archive and the manifest
    #[arg(required = true, value_name = "FILE")]
    files: Vec<Utf8PathBuf>,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Name of the archive or manifest
    name: String,
    #[command(flatten)]
    care: Care,
}

impl PackageCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::Upload(args) => upload(client, &args.files).await,
            Self::Delete(args) => {
                let question = format!("Delete {}? Agents will no longer be able to download it.", args.name);
                let delete = async |dry_run| client.delete_package(&args.name, dry_run).await;
                args.care.delete(&args.name, &question, delete).await
            }
        }
    }
}

async fn upload(client: &Client, files: &[Utf8PathBuf]) -> Result<(), Failed> {
    // All files are read first, so that a mistyped name does not leave half a package on the server.
    let named = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    for (name, data) in named {
        let stored = client.upload_package(&name, data).await?;
        print_line(format!("{} {}", stored.sha256, stored.name))?;
    }
    Ok(())
}

fn read(file: &Utf8Path) -> Result<(String, Vec<u8>), Failed> {
    let name = file.file_name().filter(|name| is_package_file(name)).ok_or_else(|| {
        Failed::usage(format!("{file}: not a file of a package of muster-agent"))
            .remedy("expected muster-agent-VERSION-OS-ARCH.tar.gz and muster-agent-VERSION-OS-ARCH.manifest.json")
    })?;
    let mut data = Vec::new();
    // One byte more than allowed, to recognize a file that is too large.
    File::open(file)
        .and_then(|opened| opened.take(MAX_BYTES + 1).read_to_end(&mut data))
        .map_err(|error| Failed::usage(format!("{file}: {error}")))?;
    if u64::try_from(data.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(Failed::usage(format!("{file}: larger than {MAX_BYTES} bytes")));
    }
    Ok((name.to_owned(), data))
}
