//! `muster-agent verify-unprotected`: what protects the agent against its removal, and what does not.

use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::status;
use crate::base_dir;
use crate::components::installed_services;
use crate::exit::{self, Failure};
use crate::install::{Installation, removal};
use crate::paths::Layout;
use crate::protection::Protection;
use crate::protection::assess::{Facts, Finding, Policy, Service, Verdict, assess};
use crate::state::disk::DiskStore;
use crate::state::seal::{KeyPlace, Seal};
use crate::state::{Store, StoredPolicy};

/// Mode bits of a file that somebody else than its owner may change.
const WRITABLE: u32 = 0o022;
/// Mode bits of a file that somebody else than its owner may read or change.
const SHARED: u32 = 0o077;

/// Arguments of `verify-unprotected`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output format
    #[arg(long, short, value_enum, default_value_t = Output::Human)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Human,
    Json,
}

/// The result, without secrets.
#[derive(Debug, Serialize)]
struct Assessment {
    base_path: String,
    /// Whether there is no gap.
    protected: bool,
    findings: Vec<Finding>,
}

/// Prints the findings, also while the daemon is stopped. The exit code is 0 only if there is no gap.
pub fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    let findings = assess(&facts(layout)?);
    let protected = findings.iter().all(|finding| finding.verdict != Verdict::Gap);
    let assessment = Assessment { base_path: layout.base().to_string(), protected, findings };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&assessment).unwrap_or_default()),
        Output::Human => print!("{}", human(&assessment)),
    }
    Ok(if protected { exit::DONE } else { exit::UNPROTECTED })
}

fn human(assessment: &Assessment) -> String {
    let verdict = if assessment.protected { "protected" } else { "NOT protected" };
    let mut text = format!("{}: {verdict}\n", assessment.base_path);
    for Finding { check, verdict, detail } in &assessment.findings {
        let _ = writeln!(text, "{:<9} {check}: {detail}", verdict.as_str());
    }
    text
}

fn facts(layout: &Layout) -> Result<Facts, Failure> {
    let store = DiskStore::new(layout.clone());
    let (installation, enrollment) = (Installation::load(layout)?, store.enrollment()?);
    let stored = store.state()?.policy;
    if installation.is_none() && enrollment.is_none() && layout.state().symlink_metadata().is_err() {
        return Err(status::no_daemon(layout));
    }
    let account = installation.as_ref().and_then(|found| found.account.as_ref());
    let key = Seal::place(layout.base());
    Ok(Facts {
        enrolled: enrollment.is_some(),
        protection: Protection::stored(&store),
        policy: stored.as_ref().map(policy),
        key_pinned: enrollment.is_some_and(|found| found.signing_key.is_some()),
        service: installation.as_ref().map(|found| Service {
            manager: found.manager,
            name: found.service.clone(),
            defined: found.service().is_defined(),
        }),
        user: account.map(|account| account.user.clone()),
        exposed: exposed(layout, key.as_ref()),
        key,
        running: removal::is_running(layout),
        services: installed_services::all(layout).into_iter().map(|service| service.component).collect(),
    })
}

fn policy(stored: &StoredPolicy) -> Policy {
    let signed = |policy: &RawValue| {
        serde_json::from_str::<Value>(policy.get()).is_ok_and(|policy| policy["signed"]["signature"].is_string())
    };
    Policy { id: stored.id.clone(), revision: stored.revision, signed: signed(&stored.policy) }
}

/// Returns the paths that other users can read or change although they must not (AG38, AG39).
fn exposed(layout: &Layout, key: Option<&KeyPlace>) -> Vec<(Utf8PathBuf, String)> {
    let mut exposed = Vec::new();
    if let Err(reason) = base_dir::check_ancestors(layout.base()) {
        exposed.push((layout.base().to_owned(), reason.to_string()));
    }
    let Ok(owner) = layout.base().symlink_metadata().map(|metadata| metadata.uid()) else { return exposed };
    // Programs and settings, which the agent or root executes or trusts.
    let trusted =
        [layout.base().to_owned(), layout.homes(), layout.components(), layout.settings(), layout.installation()];
    let versions = layout.homes().read_dir_utf8().into_iter().flatten().flatten().map(camino::Utf8DirEntry::into_path);
    let trusted = trusted.into_iter().chain(versions);
    // Secrets. A group may use the base path of an unprivileged agent, but not read these.
    let file = key.map(|(KeyPlace::File(path) | KeyPlace::Credential(path))| path.clone());
    let secret = [layout.fleet(), layout.state()].into_iter().chain(file);
    let all = trusted.map(|path| (path, WRITABLE)).chain(secret.map(|path| (path, SHARED)));
    exposed.extend(all.filter_map(|(path, forbidden)| Some((path.clone(), fault(&path, owner, forbidden)?))));
    exposed
}

/// Returns what is wrong with the owner or the mode of a file; `None` if it does not exist.
fn fault(path: &Utf8Path, owner: u32, forbidden: u32) -> Option<String> {
    let metadata = path.symlink_metadata().ok()?;
    if ![0, owner].contains(&metadata.uid()) {
        return Some(format!("owned by user id {}", metadata.uid()));
    }
    (metadata.mode() & forbidden != 0).then(|| format!("mode {:04o}", metadata.mode() & 0o7777))
}
