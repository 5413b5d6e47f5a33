//! `muster-agent verify-unprotected`: what protects this host's agent against its removal, and what does not.

use std::os::unix::fs::MetadataExt as _;

use camino::Utf8Path;
use clap::ValueEnum;
use muster_core::error_chain::chain;
use nix::unistd::User;
use serde::Serialize;

use super::{inspect, status};
use crate::components::installed_services;
use crate::exit::{self, Failure};
use crate::exposure::{self, Check, Facts, LIMITS};
use crate::install::Installation;
use crate::paths::Layout;
use crate::protection::Protection;
use crate::state::Store as _;
use crate::state::disk::DiskStore;
use crate::state::seal::{KeyPlace, Seal};

/// Permissions that only the owner may have.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Maximum number of files that are named.
const NAMED_MAX: usize = 10;

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

#[derive(Serialize)]
struct Verdict {
    base_path: String,
    /// Whether every check protects the agent.
    protected: bool,
    checks: Vec<Check>,
    /// What no setting prevents.
    limits: [&'static str; 2],
}

/// Prints the checks. The exit code is 10 if one of them does not protect the agent.
pub fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    let checks = exposure::check(&facts(layout)?);
    let protected = checks.iter().all(|check| check.protects);
    let verdict = Verdict { base_path: layout.base().to_string(), protected, checks, limits: LIMITS };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&verdict).unwrap_or_default()),
        Output::Human => print!("{}", human(&verdict)),
    }
    Ok(if protected { exit::DONE } else { exit::DEGRADED })
}

fn facts(layout: &Layout) -> Result<Facts, Failure> {
    let store = DiskStore::new(layout.clone());
    let (installation, enrollment) = (Installation::load(layout)?, store.enrollment()?);
    if installation.is_none() && enrollment.is_none() && !inspect::is_used(layout) {
        return Err(status::no_daemon(layout));
    }
    let account = installation.as_ref().and_then(|found| found.account.as_ref()).map(|account| account.user.clone());
    let key = Seal::place(layout.base());
    Ok(Facts {
        enrolled: enrollment.is_some(),
        token_required: Protection::stored(&store) != Protection::Off,
        signing_key_pinned: enrollment.is_some_and(|found| found.signing_key.is_some()),
        manager: installation.as_ref().map(|found| found.manager),
        service_defined: installation.as_ref().is_some_and(|found| found.service().is_defined()),
        loose_files: loose_files(layout, account.as_deref())?,
        account,
        key: key.as_ref().map(ToString::to_string),
        key_bound: matches!(key, Some(KeyPlace::Credential(_))),
        services: installed_services::all(layout).into_iter().map(|service| service.component).collect(),
    })
}

/// Returns the entries that others can change: the base path, what it contains, and the versions of the program.
fn loose_files(layout: &Layout, account: Option<&str>) -> Result<Vec<String>, Failure> {
    let unreadable = |path: &Utf8Path, error: &std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => exit::PERMISSION,
            _ => exit::FAILED,
        };
        Failure::new(code, format!("{path}: {}", chain(error)))
    };
    let account = account.and_then(|name| User::from_name(name).ok().flatten()).map(|user| user.uid.as_raw());
    let owners = [Some(0), Some(nix::unistd::geteuid().as_raw()), account];
    let mut loose = Vec::new();
    let mut paths = vec![layout.base().to_owned()];
    for directory in [layout.base().to_owned(), layout.homes()] {
        let entries = match directory.read_dir_utf8() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(|error| unreadable(&directory, &error))?,
        };
        paths.extend(entries.flatten().map(camino::Utf8DirEntry::into_path));
    }
    for path in paths {
        // It may have been replaced meanwhile.
        let Ok(found) = path.symlink_metadata() else { continue };
        if !owners.contains(&Some(found.uid())) {
            loose.push(format!("{path} (user id {})", found.uid()));
        } else if !found.is_symlink() && found.mode() & WRITABLE_BY_OTHERS != 0 {
            loose.push(format!("{path} (mode {:o})", found.mode() & 0o7777));
        }
    }
    loose.truncate(NAMED_MAX);
    Ok(loose)
}

fn human(verdict: &Verdict) -> String {
    let mut text = String::new();
    for Check { name, protects, finding, remedy } in &verdict.checks {
        let mark = if *protects { "protects" } else { "does not protect" };
        text.push_str(&format!("{mark:<16}  {name:<15}  {finding}\n"));
        text.extend(remedy.map(|remedy| format!("{:<35}hint: {remedy}\n", "")));
    }
    for limit in verdict.limits {
        text.push_str(&format!("{:<16}  {:<15}  {limit}\n", "not prevented", "-"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn ag48_files_that_others_can_change_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        fs_err::create_dir(layout.homes()).unwrap();
        let home = layout.homes().join("0.1.0-000000000000");
        fs_err::create_dir(&home).unwrap();
        assert_eq!(loose_files(&layout, None).unwrap(), Vec::<String>::new());
        fs_err::set_permissions(&home, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(loose_files(&layout, None).unwrap(), [format!("{home} (mode 777)")]);
    }
}
