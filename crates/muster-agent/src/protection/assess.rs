//! What protects an agent against its removal, and what does not: a pure function of what is stored and of facts about the
//! host (AG142).

use camino::Utf8PathBuf;
use muster_core::hex;
use serde::Serialize;

use super::Protection;
use crate::install::Manager;
use crate::state::seal::KeyPlace;

/// Number of bytes of the token's hash that identify the token.
const HASH_SHOWN: usize = 4;

/// What an assessment needs to know.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether the agent is enrolled.
    pub enrolled: bool,
    /// Whether the stored policy, or without one the enrollment, protects the agent.
    pub protection: Protection,
    /// The stored policy.
    pub policy: Option<Policy>,
    /// Whether a signing key is pinned.
    pub key_pinned: bool,
    /// Where the key of the agent's files is.
    pub key: Option<KeyPlace>,
    /// Service that starts the agent.
    pub service: Option<Service>,
    /// User of an unprivileged agent.
    pub user: Option<String>,
    /// Files and directories whose owner or mode lets other users read or change them, and the reason.
    pub exposed: Vec<(Utf8PathBuf, String)>,
    /// Whether a daemon runs.
    pub running: bool,
    /// Components that are installed as services.
    pub services: Vec<String>,
}

/// The stored policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its id.
    pub id: String,
    /// Its revision.
    pub revision: i64,
    /// Whether it has a signature. The agent has verified it, if a key is pinned.
    pub signed: bool,
}

/// The service of an installation.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its manager.
    pub manager: Manager,
    /// Its name.
    pub name: String,
    /// Whether the manager has its definition.
    pub defined: bool,
}

/// Verdict on one measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It protects the agent.
    Protects,
    /// It is missing, and can be added.
    Gap,
    /// Nothing on this host protects against this.
    Limit,
}

impl Verdict {
    /// Returns the word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protects => "protects",
            Self::Gap => "gap",
            Self::Limit => "limit",
        }
    }
}

/// One measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the measure, for scripts.
    pub check: &'static str,
    /// Whether it protects the agent.
    pub verdict: Verdict,
    /// What it does, or why it does not, for people.
    pub detail: String,
}

/// Returns the findings, in a fixed order.
pub fn assess(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![uninstall_token(facts), signatures(facts), files(facts), key(facts), service(facts)];
    findings.extend([daemon(facts), notice(facts)]);
    findings.extend(components(facts));
    findings.extend(unprivileged(facts));
    let root = "root can stop the agent, delete its files or restore another image of the host without a token; \
                the server then only sees that the agent is offline";
    findings.push(finding("root", Verdict::Limit, root));
    findings
}

fn finding(check: &'static str, verdict: Verdict, detail: impl Into<String>) -> Finding {
    Finding { check, verdict, detail: detail.into() }
}

fn uninstall_token(facts: &Facts) -> Finding {
    let name = "uninstall_token";
    let policy = facts.policy.as_ref().map(|policy| format!("policy {} revision {}", policy.id, policy.revision));
    match (&facts.protection, policy) {
        (Protection::On { hash, recovery }, policy) => {
            let source = policy.unwrap_or_else(|| "the enrollment, because the policy is lost".into());
            let shown = hex::encode(&hash[..hash.len().min(HASH_SHOWN)]);
            let code = if recovery.is_some() { "; the recovery code is accepted, too" } else { "" };
            let detail = format!("required by {source} (SHA-256 of the token: {shown}…){code}");
            finding(name, Verdict::Protects, detail)
        }
        (Protection::Off, Some(policy)) => {
            finding(name, Verdict::Gap, format!("not required: {policy} does not set is_protected"))
        }
        (Protection::Off, None) if facts.enrolled => {
            finding(name, Verdict::Gap, "not required: the agent has no policy yet")
        }
        (Protection::Off, None) => finding(name, Verdict::Gap, "not required: the agent is not enrolled"),
    }
}

fn signatures(facts: &Facts) -> Finding {
    let name = "signatures";
    let signed = facts.policy.as_ref().map(|policy| policy.signed);
    match (facts.key_pinned, signed) {
        (true, Some(false)) => finding(name, Verdict::Gap, "a key is pinned, but the stored policy is not signed"),
        (true, _) => finding(
            name,
            Verdict::Protects,
            "a key is pinned: policies, and actions that remove or upgrade the agent, must be signed with it",
        ),
        (false, _) => finding(name, Verdict::Gap, "no key is pinned: policies and actions are not verified"),
    }
}

fn files(facts: &Facts) -> Finding {
    let name = "files";
    if facts.exposed.is_empty() {
        return finding(name, Verdict::Protects, "only root and the agent's user can change the agent's files");
    }
    let all: Vec<_> = facts.exposed.iter().map(|(path, reason)| format!("{path}: {reason}")).collect();
    finding(name, Verdict::Gap, all.join("; "))
}

fn key(facts: &Facts) -> Finding {
    let name = "encryption_key";
    match &facts.key {
        Some(place @ KeyPlace::Credential(_)) => {
            finding(name, Verdict::Protects, format!("{place}: only this host can decrypt the agent's files"))
        }
        Some(place @ KeyPlace::File(_)) => {
            let detail = format!("{place}: whoever copies the whole directory can decrypt the agent's files");
            finding(name, Verdict::Limit, detail)
        }
        None => finding(name, Verdict::Gap, "there is no key"),
    }
}

fn service(facts: &Facts) -> Finding {
    let name = "service";
    match &facts.service {
        Some(Service { manager: Manager::None, .. }) | None => {
            finding(name, Verdict::Gap, "none: nothing starts the agent after a reboot or a crash")
        }
        Some(Service { manager, name: unit, defined: false }) => {
            let detail = format!("{unit} is not defined in {}: nothing starts the agent", manager.as_str());
            finding(name, Verdict::Gap, detail)
        }
        Some(Service { manager, name: unit, defined: true }) => {
            let detail = format!("{unit} ({}) starts the agent after reboots and crashes", manager.as_str());
            finding(name, Verdict::Protects, detail)
        }
    }
}

fn daemon(facts: &Facts) -> Finding {
    let name = "daemon";
    if facts.running {
        return finding(name, Verdict::Protects, "running");
    }
    finding(name, Verdict::Gap, "not running: the agent applies no policy and reports nothing")
}

fn notice(facts: &Facts) -> Finding {
    let name = "notice";
    let survives = facts.service.as_ref().is_some_and(|service| service.manager != Manager::None);
    match (facts.enrolled, survives) {
        (false, _) => {
            finding(name, Verdict::Gap, "none: without an enrollment, no server learns that the agent is removed")
        }
        (true, true) => {
            let detail = "refused commands and an uninstallation are reported to the server, even after reboots";
            finding(name, Verdict::Protects, detail)
        }
        (true, false) => {
            let detail = "an uninstallation is reported to the server, but a notice that cannot be delivered is lost at a \
                          reboot, because there is no service manager";
            finding(name, Verdict::Limit, detail)
        }
    }
}

fn components(facts: &Facts) -> Option<Finding> {
    if facts.services.is_empty() {
        return None;
    }
    let detail = format!("services that keep running without the agent: {}", facts.services.join(", "));
    Some(finding("component_services", Verdict::Protects, detail))
}

fn unprivileged(facts: &Facts) -> Option<Finding> {
    let user = facts.user.as_ref()?;
    let detail = format!("the user {user} owns the agent's program and files, and can change or delete them");
    Some(finding("agent_user", Verdict::Limit, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protected() -> Facts {
        Facts {
            enrolled: true,
            protection: Protection::On { hash: vec![0xab, 0xcd, 0xef, 0x01, 0x23], recovery: None },
            policy: Some(Policy { id: "p".into(), revision: 3, signed: true }),
            key_pinned: true,
            key: Some(KeyPlace::Credential("/opt/agent/secret.cred".into())),
            service: Some(Service { manager: Manager::Systemd, name: "muster-agent".into(), defined: true }),
            user: None,
            exposed: Vec::new(),
            running: true,
            services: vec!["endpoint-default".into()],
        }
    }

    fn gaps(facts: &Facts) -> Vec<&'static str> {
        assess(facts).iter().filter(|found| found.verdict == Verdict::Gap).map(|found| found.check).collect()
    }

    #[test]
    fn ag142_a_protected_agent_has_no_gap_and_a_limit() {
        let found = assess(&protected());
        assert_eq!(gaps(&protected()), Vec::<&str>::new(), "{found:?}");
        assert!(found[0].detail.contains("policy p revision 3") && found[0].detail.contains("abcdef01…"), "{found:?}");
        let last = found.last().unwrap();
        assert_eq!((last.check, last.verdict), ("root", Verdict::Limit));
    }

    #[test]
    fn ag142_each_missing_measure_is_a_gap_of_its_own() {
        let edit = |change: fn(&mut Facts)| {
            let mut facts = protected();
            change(&mut facts);
            gaps(&facts)
        };
        assert_eq!(edit(|facts| facts.protection = Protection::Off), ["uninstall_token"]);
        assert_eq!(edit(|facts| facts.key_pinned = false), ["signatures"]);
        assert_eq!(edit(|facts| facts.policy.as_mut().unwrap().signed = false), ["signatures"]);
        assert_eq!(edit(|facts| facts.exposed = vec![("/opt/agent".into(), "mode 0777".into())]), ["files"]);
        assert_eq!(edit(|facts| facts.service.as_mut().unwrap().defined = false), ["service"]);
        assert_eq!(edit(|facts| facts.service = None), ["service"], "notices are not lost before a reboot");
        assert_eq!(edit(|facts| facts.running = false), ["daemon"]);
        assert_eq!(edit(|facts| facts.key = Some(KeyPlace::File("/k".into()))), Vec::<&str>::new());
        assert_eq!(edit(|facts| facts.user = Some("muster-agent".into())), Vec::<&str>::new());
        // A lost policy does not end the protection.
        assert_eq!(edit(|facts| facts.policy = None), Vec::<&str>::new());
    }

    #[test]
    fn ag142_an_agent_without_a_fleet_is_not_protected() {
        let facts = Facts {
            enrolled: false,
            protection: Protection::Off,
            policy: None,
            key_pinned: false,
            service: None,
            ..protected()
        };
        assert_eq!(gaps(&facts), ["uninstall_token", "signatures", "service", "notice"]);
    }
}
