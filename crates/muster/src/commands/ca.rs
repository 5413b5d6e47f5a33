//! `muster ca …`

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args, Subcommand};
use muster_client::Client;
use muster_protocol::management::ca::CaCertificate;

use super::failure::Failed;
use super::listing::{Column, Format, OutputArg, column, print_one};
use super::out_file::OutFile;
use super::text::print_line;

/// Verbs of `ca`.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Export the certificate of the fleet's own CA, which agents trust, in PEM format
    ///
    /// Pass the file to `muster-agent enroll` or `elastic-agent enroll` with `--certificate-authorities`.
    #[command(
        after_help = "Examples:\n  muster ca export --out ca.crt\n  muster ca export > ca.crt\n  muster ca export --output json"
    )]
    Export(ExportArgs),
    /// Print the SHA-256 fingerprint of the CA certificate
    ///
    /// `muster-agent enroll --ca-sha256 FINGERPRINT` trusts the CA without a copy of its certificate.
    #[command(after_help = "Examples:\n  muster ca fingerprint\n  muster ca fingerprint --output json")]
    Fingerprint(FingerprintArgs),
}

/// Flags of `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// New file for the certificate; default: standard output
    #[arg(long, value_name = "FILE")]
    out: Option<Utf8PathBuf>,
    #[command(flatten)]
    output: OutputArg,
}

/// Flags of `fingerprint`.
#[derive(Args, Debug)]
pub struct FingerprintArgs {
    #[command(flatten)]
    output: OutputArg,
}

const COLUMNS: &[Column<CaCertificate>] = &[
    column("SHA256", |ca| ca.sha256.clone()),
    column("EXPIRES", |ca| ca.expires_at.clone()),
    column("CERTIFICATE", |ca| ca.certificate.clone()),
];

impl CaCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::Export(args) => {
                let ca = client.ca().await?;
                let plain = match &args.out {
                    Some(path) => {
                        write(path, &ca.certificate)?;
                        path.as_str()
                    }
                    None => ca.certificate.trim_end(),
                };
                print(&ca, args.output.output, plain)
            }
            Self::Fingerprint(args) => {
                let ca = client.ca().await?;
                print(&ca, args.output.output, &ca.sha256)
            }
        }
    }
}

/// Prints `plain` alone, so that scripts can use it as it is, or the whole object in a structured format.
fn print(ca: &CaCertificate, format: Format, plain: &str) -> Result<(), Failed> {
    match format {
        Format::Table | Format::Wide | Format::Name => print_line(plain),
        Format::Json | Format::Yaml | Format::Csv => print_one(ca, format, COLUMNS, |ca| ca.sha256.clone()),
    }
}

fn write(path: &Utf8Path, pem: &str) -> Result<(), Failed> {
    let failed = |error| Failed::new(format!("cannot write {path}: {error}"));
    let mut out = OutFile::create(path)?;
    let mut file = out.take()?;
    file.write_all(pem.as_bytes()).map_err(failed)?;
    // The certificate is public, and an agent that reads it may run as another user.
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    out.finish(&file)
}
