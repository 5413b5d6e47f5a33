//! `muster-agent inspect`.

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use super::status;
use crate::clock::SystemClock;
use crate::diagnostics;
use crate::enroll::delayed;
use crate::exit::{self, Failure};
use crate::homes::{self, HomeName};
use crate::install::Installation;
use crate::paths::Layout;
use crate::protection::Protection;
use crate::standalone::file::PolicyFile;
use crate::standalone::is_standalone;
use crate::state::disk::DiskStore;
use crate::state::enrollment::ProxyChoice;
use crate::state::seal::Seal;
use crate::state::{Enrollment, Phase, Store};
use crate::upgrade::disk::HostDisk;
use crate::upgrade::switch;
use muster_core::time::Clock as _;

/// Arguments of `inspect`.
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

/// What is stored, from an allow list: no field can contain a secret (AG23).
#[derive(Debug, Serialize)]
struct Inspection {
    base_path: String,
    installed: bool,
    version: Option<String>,
    /// Versions that `upgrade --rollback` can return to, with the end of this time.
    previous_versions: Vec<String>,
    service: Option<String>,
    user: Option<String>,
    /// Where the key of the sealed files is.
    key: Option<String>,
    agent_id: Option<String>,
    servers: Vec<String>,
    /// Address of the proxy, and where it comes from.
    proxy: Option<String>,
    /// `None` before a delayed enrollment.
    phase: Option<Phase>,
    policy: Option<String>,
    /// The policy file of a standalone agent.
    policy_file: Option<String>,
    /// Why it cannot be read.
    policy_file_error: Option<String>,
    protected: bool,
    signing_key_pinned: bool,
    enrollment_delayed: bool,
    /// The policy of the file, with the inputs of all files and expanded keys. The values of secrets are redacted.
    resolved_policy: Option<Value>,
}

/// Prints the stored configuration, also while the daemon is stopped.
pub fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    let inspection = inspect(layout)?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&inspection).unwrap_or_default()),
        Output::Human => print!("{}", human(&inspection)),
    }
    Ok(exit::DONE)
}

fn inspect(layout: &Layout) -> Result<Inspection, Failure> {
    let store = DiskStore::new(layout.clone());
    let (installation, enrollment) = (Installation::load(layout)?, store.enrollment()?);
    let state = store.state()?;
    let local = enrollment.is_none() && is_standalone(layout, &store);
    let policy_file = local.then(|| PolicyFile::new(layout));
    let (resolved, unusable) = match policy_file.as_ref().map(PolicyFile::read) {
        Some(Ok(policy)) => (Some(diagnostics::redacted(policy.into())), None),
        Some(Err(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    if installation.is_none() && enrollment.is_none() && !local && !is_used(layout) {
        return Err(status::no_daemon(layout));
    }
    let active = homes::active(layout).ok().flatten();
    let delayed = delayed::pending(layout)?;
    // Where it will enroll, if it has not.
    let servers = enrollment.as_ref().map(|found| found.servers.clone());
    let servers = servers.or_else(|| delayed.as_ref().map(|plan| plan.servers.clone())).unwrap_or_default();
    let account = installation.as_ref().and_then(|found| found.account.as_ref()).map(|account| account.user.clone());
    let service = installation.as_ref().map(|found| format!("{} ({})", found.service, found.manager.as_str()));
    Ok(Inspection {
        base_path: layout.base().to_string(),
        installed: installation.is_some(),
        previous_versions: active.as_ref().map(|active| previous_versions(layout, active)).unwrap_or_default(),
        version: active.map(|name| name.version().to_owned()),
        service,
        user: account,
        key: Seal::place(layout.base()).map(|place| place.described()),
        agent_id: enrollment.as_ref().map(|found| found.agent_id.clone()).or(state.standalone_id),
        servers,
        proxy: enrollment.as_ref().and_then(proxy),
        phase: delayed.is_none().then_some(state.phase),
        policy: state.policy.as_ref().map(|policy| format!("{} revision {}", policy.id, policy.revision)),
        policy_file: policy_file.map(|file| file.path().to_string()),
        policy_file_error: unusable,
        protected: Protection::stored(&store) != Protection::Off,
        signing_key_pinned: enrollment.is_some_and(|found| found.signing_key.is_some()),
        enrollment_delayed: delayed.is_some(),
        resolved_policy: resolved,
    })
}

fn previous_versions(layout: &Layout, active: &HomeName) -> Vec<String> {
    let kept = switch::kept(&HostDisk, layout, active, SystemClock.now());
    kept.into_iter().map(|(_, kept)| format!("{} (until {})", kept.version, kept.valid_until)).collect()
}

/// Returns whether an agent has left something here, or will enroll here.
pub(super) fn is_used(layout: &Layout) -> bool {
    let kept = [layout.state(), layout.delayed_enrollment(), layout.local_server()];
    kept.iter().any(|path| path.symlink_metadata().is_ok())
}

/// Returns the proxy in effect, without credentials. That of the policy precedes that of the enrollment.
fn proxy(enrollment: &Enrollment) -> Option<String> {
    let address = enrollment.trust_in_effect().proxy?.tunnel().ok()?.address();
    let of_policy = enrollment.overrides.as_ref().is_some_and(|overrides| overrides.proxy != ProxyChoice::AsEnrolled);
    Some(format!("{address} (of the {})", if of_policy { "policy" } else { "enrollment" }))
}

fn human(inspection: &Inspection) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(inspection) else { return String::new() };
    let line = |(name, value): (String, Value)| match value {
        Value::Object(_) => format!("{name}: {}\n", serde_json::to_string_pretty(&value).unwrap_or_default()),
        Value::Null => String::new(),
        Value::String(text) => format!("{name}: {text}\n"),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(|item| item.as_str()).collect();
            format!("{name}: {}\n", items.join(", "))
        }
        other => format!("{name}: {other}\n"),
    };
    fields.into_iter().map(line).collect()
}
