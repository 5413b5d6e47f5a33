//! Makes and signs packages of muster-agent. `cargo xtask release` runs it.

use muster_core::error_chain::chain;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand};
use muster_agent::upgrade::pack::{SigningKey, pack};
use muster_agent::upgrade::package::{archive_name, manifest_name};

/// Make and sign packages of muster-agent
#[derive(Debug, Parser)]
#[command(name = "muster-agent-pack", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate a release key, unless the file exists, and print its public half
    Key {
        /// File of the key (PKCS#8)
        file: Utf8PathBuf,
    },
    /// Make a package, and print the paths of its files
    Pack {
        /// File of the release key
        #[arg(long, value_name = "FILE")]
        key: Utf8PathBuf,
        /// Version of the program
        #[arg(long)]
        version: String,
        /// The program
        #[arg(long, value_name = "FILE")]
        program: Utf8PathBuf,
        /// Directory for the package
        #[arg(long, value_name = "DIR")]
        out: Utf8PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Key { file } => key(&file).map(|key| println!("{}", key.public_text())),
        Command::Pack { key, version, program, out } => make(&key, &version, &program, &out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Loads a key, or generates it.
fn key(file: &Utf8Path) -> Result<SigningKey, String> {
    match fs_err::read(file) {
        Ok(pkcs8) => return SigningKey::from_pkcs8(&pkcs8).map_err(|error| format!("{file}: {error}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(chain(&error).to_string()),
    }
    let key = SigningKey::generate()?;
    let mut options = std::fs::OpenOptions::new();
    // Never replaced, and only for its owner.
    let created = options.write(true).create_new(true).mode(0o600).open(file);
    let written = created.and_then(|mut created| created.write_all(key.to_pkcs8()).and_then(|()| created.sync_all()));
    written.map_err(|error| format!("{file}: {error}"))?;
    eprintln!("Generated the release key {file}; keep it: agents accept only packages that are signed with it");
    Ok(key)
}

fn make(file: &Utf8Path, version: &str, program: &Utf8Path, out: &Utf8Path) -> Result<(), String> {
    let version = muster_core::canonical::version(version)?;
    let program = fs_err::read(program).map_err(|error| chain(&error).to_string())?;
    let packed = pack(&version, &program, &[], &key(file)?)?;
    fs_err::create_dir_all(out).map_err(|error| chain(&error).to_string())?;
    for (name, content) in [(archive_name(&version), &packed.archive), (manifest_name(&version), &packed.manifest)] {
        let path = out.join(name);
        fs_err::write(&path, content).map_err(|error| chain(&error).to_string())?;
        println!("{path}");
    }
    Ok(())
}
