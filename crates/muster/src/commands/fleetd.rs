//! `muster fleetd …`: how to bring fleetd to hosts.

use std::io::Write as _;

use camino::Utf8PathBuf;
use clap::{Args, Subcommand, ValueEnum};
use muster_client::Client;
use muster_core::fleetd::mdm::{Enrollment, check_sha256 as sha256, check_url as url, command, profile};
use muster_core::plural::counted;
use muster_protocol::management::enrollment_key::EnrollmentKey;

use super::failure::Failed;
use super::find::find_key;
use super::out_file::OutFile;
use super::text::print_line;

/// Verbs of `fleetd`.
#[derive(Debug, Subcommand)]
pub enum FleetdCommand {
    /// Create the document with which an MDM server delivers fleetd
    ///
    /// For macOS, a configuration profile with the settings of fleetd; build the package with
    /// `--use-system-configuration`. For Windows, the command that installs an MSI package.
    ///
    /// The document contains the enroll secret. The file is readable only by its owner.
    #[command(
        after_help = "Examples:\n  muster fleetd mdm-profile --platform macos --enrollment-key laptops --fleet-url https://fleet.example:8220 --out fleetd.mobileconfig\n  muster fleetd mdm-profile --platform windows --enrollment-key laptops --fleet-url https://fleet.example:8220 --package-url https://cdn.example/fleetd-base.msi --package-sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --out fleetd.xml"
    )]
    MdmProfile(MdmProfileArgs),
}

/// Platforms with an MDM protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Platform {
    /// Configuration profile for macOS
    Macos,
    /// Command of the MDM protocol of Windows
    Windows,
}

/// Flags of `mdm-profile`.
#[derive(Args, Debug)]
pub struct MdmProfileArgs {
    /// Platform of the hosts
    #[arg(long)]
    platform: Platform,
    /// Enroll secret: an enrollment key of the family fleetd, by name or id
    #[arg(long, value_name = "KEY")]
    enrollment_key: String,
    /// URL at which hosts reach the server
    #[arg(long, value_name = "URL", value_parser = url)]
    fleet_url: String,
    /// Let the server run scripts on the hosts
    #[arg(long)]
    enable_scripts: bool,
    /// Windows: URL of the MSI package, from which hosts download it
    #[arg(long, value_name = "URL", value_parser = url, required_if_eq("platform", "windows"))]
    package_url: Option<String>,
    /// Windows: SHA-256 of the MSI package, in hexadecimal
    #[arg(long, value_name = "HEX", value_parser = sha256, required_if_eq("platform", "windows"))]
    package_sha256: Option<String>,
    /// File to write; must not exist
    #[arg(long, value_name = "FILE")]
    out: Utf8PathBuf,
}

impl FleetdCommand {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        match self {
            Self::MdmProfile(args) => args.run(client).await,
        }
    }
}

impl MdmProfileArgs {
    async fn run(self, client: &Client) -> Result<(), Failed> {
        if self.platform == Platform::Macos && (self.package_url.is_some() || self.package_sha256.is_some()) {
            return Err(Failed::usage("--package-url and --package-sha256 are for --platform windows"));
        }
        let secret = self.secret(client).await?;
        let enrollment = Enrollment { url: &self.fleet_url, secret: &secret, scripts: self.enable_scripts };
        let document = match (self.platform, &self.package_url, &self.package_sha256) {
            (Platform::Windows, Some(package), Some(sha256)) => command(&enrollment, package, sha256).into_bytes(),
            _ => profile(&enrollment).map_err(|error| Failed::new(format!("cannot create the profile: {error}")))?,
        };
        let mut out = OutFile::create(&self.out)?;
        let mut file = out.take()?;
        file.write_all(&document).map_err(|error| Failed::new(format!("cannot write {}: {error}", self.out)))?;
        out.finish(&file)?;
        print_line(self.out.as_str())
    }

    async fn secret(&self, client: &Client) -> Result<String, Failed> {
        let key = find_key(client, &self.enrollment_key).await?;
        let name = &self.enrollment_key;
        if key.family != "fleetd" {
            let remedy = "create an enroll secret: muster enrollment-key create --family fleetd";
            return Err(Failed::usage(format!("the enrollment key {name} is not for fleetd")).remedy(remedy));
        }
        if !key.active {
            return Err(Failed::usage(format!("hosts cannot enroll with {name}: it is revoked, expired or used up")));
        }
        if let Some(hosts) = hosts_left(&key) {
            let hosts = counted(hosts, "host");
            eprintln!(
                "muster: warning: the enrollment key {name} admits only {hosts}; the document is for all hosts that get it"
            );
        }
        let hidden = || Failed::new(format!("the server does not return the secret of {name}"));
        client.enrollment_key(&key.id).await?.api_key.ok_or_else(hidden)
    }
}

/// Returns how many hosts can still enroll with a key; `None` if the number is not limited. Orbit and osqueryd of a host are two uses.
fn hosts_left(key: &EnrollmentKey) -> Option<u64> {
    let left = |max: i64| u64::try_from(max - key.uses).unwrap_or_default() / 2;
    key.one_time.as_ref().map(|_| 1).or(key.max_uses.map(left))
}
