//! `cargo xtask deny` checks licenses, sources, bans and known vulnerabilities of all dependencies, without network
//! access.
//!
//! `deny.toml` is the configuration of [cargo-deny], which is also run if it is installed. cargo-deny cannot check
//! advisories without network access, so that this directory contains a dated copy of the version ranges in the RustSec
//! database.
//!
//! [cargo-deny]: https://embarkstudios.github.io/cargo-deny/

mod advisories;
mod license;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;

use crate::shell;
use advisories::Advisories;

/// Arguments of `deny`.
#[derive(Args)]
pub struct DenyArgs {
    /// Rewrite the copy of the advisories from a clone of https://github.com/rustsec/advisory-db.
    #[arg(long, value_name = "DIR")]
    update: Option<PathBuf>,
}

/// A dependency in the output of `cargo metadata`.
#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: semver::Version,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
}

/// The part of `deny.toml` that this command uses.
#[derive(Deserialize)]
struct Config {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// Checks the dependencies, or updates the advisories.
pub fn run(args: &DenyArgs) -> anyhow::Result<()> {
    if let Some(clone) = &args.update {
        return advisories::update(clone);
    }
    // The same file as for cargo-deny, so that both check the same rules.
    let config: Config = toml::from_str(&std::fs::read_to_string(shell::root().join("deny.toml"))?)?;
    let packages = dependencies(&config.graph.targets)?;
    let advisories = Advisories::of_the_repository()?;
    let mut faults = Vec::new();
    for package in &packages {
        faults.extend(config.faults(package));
        faults.extend(advisories.vulnerabilities(&package.name, &package.version));
        // Unmaintained crates are only reported, because there may be no replacement.
        for warning in advisories.warnings(&package.name, &package.version) {
            println!("warning: {warning}");
        }
    }
    for fault in &faults {
        println!("error: {fault}");
    }
    println!("{} dependencies; advisories of {}", packages.len(), advisories.date);
    anyhow::ensure!(faults.is_empty(), "{} errors in the dependencies", faults.len());
    cargo_deny()
}

/// Returns the dependencies of the supported targets, without the crates of the workspace.
fn dependencies(targets: &[String]) -> anyhow::Result<Vec<Package>> {
    // `--filter-platform` omits crates that are only used on other platforms.
    let mut arguments = vec!["metadata", "--format-version", "1", "--locked"];
    targets.iter().for_each(|target| arguments.extend(["--filter-platform", target]));
    let output = shell::cargo(&arguments).output()?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("the output of cargo metadata")?;
    // The list of packages contains all crates of the lock file; only the resolved nodes are part of a build.
    let used: BTreeSet<_> = metadata.resolve.nodes.into_iter().map(|node| node.id).collect();
    Ok(metadata.packages.into_iter().filter(|one| one.source.is_some() && used.contains(&one.id)).collect())
}

impl Config {
    fn faults(&self, package: &Package) -> Vec<String> {
        let mut faults = Vec::new();
        let name = format!("{} {}", package.name, package.version);
        if let Some(ban) = self.bans.deny.iter().find(|ban| ban.name == package.name) {
            faults.push(format!("{name} is banned: {}", ban.reason));
        }
        // Crates from git or from other registries are not covered by advisories.
        if package.source.as_deref() != Some("registry+https://github.com/rust-lang/crates.io-index") {
            let source = package.source.as_deref().unwrap_or_default();
            faults.push(format!("{name} comes from {source}, not from crates.io"));
        }
        let license = package.license.as_deref().unwrap_or("none");
        if !license::is_allowed(license, &self.licenses.allow) {
            faults.push(format!("{name} has the license {license}, which deny.toml does not allow"));
        }
        faults
    }
}

/// Runs the offline checks of cargo-deny, if it is installed.
fn cargo_deny() -> anyhow::Result<()> {
    if !shell::cargo(&["deny", "--version"]).output()?.status.success() {
        println!("cargo-deny is not installed and was not run");
        return Ok(());
    }
    // The check of advisories is not included, because cargo-deny would download the database.
    shell::run(shell::cargo(&["deny", "--offline", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        toml::from_str(
            "[graph]\ntargets = []\n[licenses]\nallow = [\"MIT\"]\n[bans]\ndeny = [{ crate = \"openssl\", reason = \"one TLS\" }]",
        )
        .unwrap()
    }

    fn package(name: &str, license: &str, source: &str) -> Package {
        Package {
            id: String::new(),
            name: name.to_owned(),
            version: semver::Version::new(1, 2, 3),
            license: Some(license.to_owned()),
            source: Some(source.to_owned()),
        }
    }

    #[test]
    fn banned_foreign_and_badly_licensed_crates_are_violations() {
        let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
        assert_eq!(config().faults(&package("a", "MIT OR Apache-2.0", crates_io)), [""; 0]);
        let faults = config().faults(&package("openssl", "GPL-3.0", "git+https://example.org/openssl"));
        assert_eq!(
            faults,
            [
                "openssl 1.2.3 is banned: one TLS",
                "openssl 1.2.3 comes from git+https://example.org/openssl, not from crates.io",
                "openssl 1.2.3 has the license GPL-3.0, which deny.toml does not allow",
            ]
        );
    }
}
