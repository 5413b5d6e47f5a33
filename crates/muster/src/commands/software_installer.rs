//! `muster software installer …`

use std::fs::File;
use std::io::Read as _;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use muster_client::Client;
use muster_protocol::management::install::{CreateInstaller, Installer};

use super::confirm::Care;
use super::failure::Failed;
use super::listing::{Column, OutputArg, column, or_dash, print_list, print_one, wide};
use super::text::print_line;

/// Verbs of `software installer`.
#[derive(Debug, Subcommand)]
pub enum InstallerCommand {
    /// Upload a package (deb, rpm, pkg, msi, exe, tar.gz) that hosts with orbit can install
    ///
    /// Name and version are taken from the name of the file. deb, rpm, pkg
    /// and msi have a default script, which installs the package; deb and
    /// rpm also one that uninstalls it. Scripts find the package at the
    /// path in the variable INSTALLER_PATH.
    #[command(
        after_help = "Examples:\n  muster software installer add zsh_5.9-4_amd64.deb\n  muster software installer add tool-1.2.tar.gz --platform linux --install-script install.sh --uninstall-script remove.sh\n  muster software installer add zsh_5.9-4_amd64.deb --condition 'SELECT 1 FROM os_version WHERE major >= 12' --output json"
    )]
    Add(Box<AddArgs>),
    /// List the installers
    #[command(
        after_help = "Examples:\n  muster software installer list\n  muster software installer list --output json"
    )]
    List(ListArgs),
    /// Show an installer with its scripts
    #[command(visible_alias = "get", after_help = "Examples:\n  muster software installer show zsh")]
    Show(ShowArgs),
    /// Delete an installer; fails while hosts have yet to install or uninstall its software
    ///
    /// Software that is installed stays on the hosts, and the results
    /// of installs are kept.
    #[command(after_help = "Examples:\n  muster software installer delete zsh --yes")]
    Delete(DeleteArgs),
}

/// Flags of `add`.
#[derive(Args, Debug)]
pub struct AddArgs {
    /// The package
    file: Utf8PathBuf,
    /// Name of the software [default: from the name of the file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Version of the software [default: from the name of the file]
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Platform of the hosts; required for archives [possible values: linux, darwin, windows]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Query of osquery that must return rows on a host
    #[arg(long, value_name = "SQL", default_value = "", hide_default_value = true)]
    condition: String,
    /// File with the script that installs; required for exe and archives
    #[arg(long, value_name = "FILE")]
    install_script: Option<Utf8PathBuf>,
    /// File with a script that runs after the installation; if it fails, the software is uninstalled
    #[arg(long, value_name = "FILE")]
    post_install_script: Option<Utf8PathBuf>,
    /// File with the script that uninstalls
    #[arg(long, value_name = "FILE")]
    uninstall_script: Option<Utf8PathBuf>,
    /// SHA-256 that the package must have, in hexadecimal digits
    #[arg(long, value_name = "HASH")]
    sha256: Option<String>,
    /// Validate on the server, without uploading anything
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Installer, by name or id
    installer: String,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Installer, by name or id
    installer: String,
    #[command(flatten)]
    care: Care,
}

const COLUMNS: &[Column<Installer>] = &[
    column("NAME", |one| one.name.clone()),
    column("VERSION", |one| one.version.clone()),
    column("PLATFORM", |one| one.platform.clone()),
    column("FILE", |one| one.file_name.clone()),
    column("SIZE", |one| one.size.to_string()),
    column("STATE", |one| one.state.clone()),
    column("ID", |one| one.id.clone()),
    wide("CREATED", |one| one.created_at.clone()),
    wide("CREATED BY", |one| one.created_by.clone()),
    wide("SHA-256", |one| or_dash(one.sha256.as_deref())),
];

const DETAILS: &[Column<Installer>] = &[
    column("ID", |one| one.id.clone()),
    column("NAME", |one| one.name.clone()),
    column("VERSION", |one| one.version.clone()),
    column("PLATFORM", |one| one.platform.clone()),
    column("FILE", |one| one.file_name.clone()),
    column("SIZE", |one| one.size.to_string()),
    column("SHA-256", |one| or_dash(one.sha256.as_deref())),
    column("STATE", |one| one.state.clone()),
    column("CREATED", |one| one.created_at.clone()),
    column("CREATED BY", |one| one.created_by.clone()),
    column("CONDITION", |one| or_dash(one.condition.as_deref())),
    column("INSTALL SCRIPT", |one| or_dash(one.install_script.as_deref())),
    column("POST-INSTALL SCRIPT", |one| or_dash(one.post_install_script.as_deref())),
    column("UNINSTALL SCRIPT", |one| or_dash(one.uninstall_script.as_deref())),
];

fn id(installer: &Installer) -> String {
    installer.id.clone()
}

impl InstallerCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::Add(args) => args.run(client).await,
            Self::List(args) => print_list(&client.installers().await?, args.output.output, COLUMNS, id),
            Self::Show(args) => print_one(&client.installer(&args.installer).await?, args.output.output, DETAILS, id),
            Self::Delete(args) => {
                let found = client.installer(&args.installer).await?;
                let question = format!("Delete the installer of {} {}?", found.name, found.version);
                let delete = async |dry_run| client.delete_installer(&found.id, dry_run).await;
                args.care.delete(&found.name, &question, delete).await
            }
        }
    }
}

impl AddArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        let (mut file, size) = open(&self.file)?;
        let script = |path: Option<&Utf8PathBuf>| path.map(fs_err::read_to_string).transpose();
        let new = CreateInstaller {
            file_name: self.file.file_name().unwrap_or_default().to_owned(),
            size,
            sha256: self.sha256,
            name: self.name,
            version: self.version,
            platform: self.platform,
            condition: self.condition,
            install_script: script(self.install_script.as_ref())?,
            post_install_script: script(self.post_install_script.as_ref())?.unwrap_or_default(),
            uninstall_script: script(self.uninstall_script.as_ref())?,
        };
        let created = client.create_installer(&new, self.dry_run).await?;
        if self.dry_run {
            return print_line(format!("would upload {} {} ({size} bytes)", created.name, created.version));
        }
        let uploaded = match upload(client, &created, &mut file).await {
            Ok(()) => client.complete_installer(&created.id).await.map_err(Failed::from),
            Err(error) => Err(error),
        };
        if uploaded.is_err() {
            // So that the same command can be repeated. The first error is the one to report.
            drop(client.delete_installer(&created.id, false).await);
        }
        print_one(&uploaded?, self.output.output, DETAILS, id)
    }
}

fn open(path: &Utf8Path) -> Result<(File, u64), Failed> {
    let failed = |error| Failed::usage(format!("{path}: {error}"));
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    Ok((file, size))
}

/// Uploads a package block by block.
async fn upload(client: &Client, installer: &Installer, file: &mut File) -> Result<(), Failed> {
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(installer.size).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut number = 0;
    loop {
        let mut block = Vec::new();
        file.take(installer.block_size).read_to_end(&mut block)?;
        let length = block.len() as u64;
        if length == 0 {
            bar.finish_and_clear();
            return Ok(());
        }
        client.upload_block(&installer.id, number, block).await?;
        bar.inc(length);
        number += 1;
    }
}
