//! What protects the agent of a host against its removal, and what does not: a pure function of what is stored (M21).

use serde::Serialize;

use crate::install::Manager;

/// What the checks depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether the agent is enrolled.
    pub enrolled: bool,
    /// Whether the policy demands an uninstall token.
    pub token_required: bool,
    /// Whether a key that signs policies and actions is pinned.
    pub signing_key_pinned: bool,
    /// The service manager; `None` if the agent was not installed.
    pub manager: Option<Manager>,
    /// Whether the service manager has a definition of the service.
    pub service_defined: bool,
    /// User of an unprivileged agent.
    pub account: Option<String>,
    /// Where the key of the agent's files is; `None` if there is none.
    pub key: Option<String>,
    /// Whether other hosts, and backups, cannot decrypt this key.
    pub key_bound: bool,
    /// Entries of the base path that others than root and the agent can change, with the reason.
    pub loose_files: Vec<String>,
    /// Components whose services run on without the agent.
    pub services: Vec<String>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name.
    pub name: &'static str,
    /// Whether it protects the agent.
    pub protects: bool,
    /// What was found.
    pub finding: String,
    /// How to change it, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// What no setting prevents.
pub const LIMITS: [&str; 2] = [
    "root can stop the service, kill the agent, and delete its files",
    "an agent whose files are deleted sends no notice; the server reports it as offline",
];

/// Carries out all checks.
pub fn check(facts: &Facts) -> Vec<Check> {
    vec![token(facts), signatures(facts), service(facts), user(facts), files(facts), key(facts), departure(facts)]
}

fn judged(name: &'static str, good: Option<String>, bad: impl Into<String>, remedy: &'static str) -> Check {
    match good {
        Some(finding) => Check { name, protects: true, finding, remedy: None },
        None => Check { name, protects: false, finding: bad.into(), remedy: Some(remedy) },
    }
}

fn token(facts: &Facts) -> Check {
    let good = facts.token_required.then(|| "commands that remove the agent need the policy's uninstall token".into());
    judged("uninstall_token", good, "whoever may run commands as root can uninstall the agent", "protect the policy")
}

fn signatures(facts: &Facts) -> Check {
    let good = facts.signing_key_pinned.then(|| "policies and actions are verified with a pinned key".into());
    let bad = "policies and actions are not verified, because no signed policy was received yet";
    judged("signatures", good, bad, "enroll the agent in a fleet that signs its policies")
}

fn service(facts: &Facts) -> Check {
    let managed = facts.manager.filter(|manager| *manager != Manager::None);
    let good = managed.filter(|_| facts.service_defined);
    let good = good.map(|manager| format!("{} starts the agent at boot and after a crash", manager.as_str()));
    let bad = match managed {
        Some(_) => "the definition of the service is missing",
        None => "no service manager starts the agent at boot or after a crash",
    };
    judged("service", good, bad, "install the agent again: muster-agent install --force")
}

fn user(facts: &Facts) -> Check {
    let good = facts.account.is_none().then(|| "the agent runs as the owner of its files".into());
    let account = facts.account.as_deref().unwrap_or_default();
    let bad = format!("the programs of the policy run as user {account}, who can stop the agent and delete its state");
    judged("user", good, bad, "run the agent as root: muster-agent privileged")
}

fn files(facts: &Facts) -> Check {
    let good = facts.loose_files.is_empty().then(|| "only root and the agent can change its files".into());
    let bad = format!("others can change files: {}", facts.loose_files.join(", "));
    judged("files", good, bad, "correct their owner and mode, and find out who has changed them")
}

fn key(facts: &Facts) -> Check {
    let place = facts.key.as_deref().unwrap_or("none");
    let good = facts.key_bound.then(|| format!("a copy of the files cannot be decrypted elsewhere ({place})"));
    let bad = format!("who copies all files can decrypt them (key: {place})");
    judged("key", good, bad, "install the agent as a service of systemd 250 or later")
}

fn departure(facts: &Facts) -> Check {
    let good = facts.enrolled.then(|| match facts.services.as_slice() {
        [] => "an uninstallation is reported to the server".to_owned(),
        services => {
            format!("an uninstallation is reported to the server; services that run on: {}", services.join(", "))
        }
    });
    judged("departure", good, "there is no server that would notice a removal", "enroll the agent in a fleet")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protected() -> Facts {
        Facts {
            enrolled: true,
            token_required: true,
            signing_key_pinned: true,
            manager: Some(Manager::Systemd),
            service_defined: true,
            key: Some("systemd credential".into()),
            key_bound: true,
            ..Facts::default()
        }
    }

    #[test]
    fn ag142_whatever_does_not_protect_the_agent_is_named_with_a_remedy() {
        assert!(check(&protected()).iter().all(|check| check.protects && check.remedy.is_none()));
        let weak = [
            ("uninstall_token", Facts { token_required: false, ..protected() }),
            ("signatures", Facts { signing_key_pinned: false, ..protected() }),
            ("service", Facts { manager: Some(Manager::None), ..protected() }),
            ("service", Facts { manager: None, ..protected() }),
            ("service", Facts { service_defined: false, ..protected() }),
            ("user", Facts { account: Some("muster-agent".into()), ..protected() }),
            ("files", Facts { loose_files: vec!["versions (mode 777)".into()], ..protected() }),
            ("key", Facts { key_bound: false, ..protected() }),
            ("departure", Facts { enrolled: false, ..protected() }),
        ];
        for (name, facts) in weak {
            let failing: Vec<Check> = check(&facts).into_iter().filter(|check| !check.protects).collect();
            assert_eq!(failing.iter().map(|check| check.name).collect::<Vec<_>>(), [name]);
            assert!(failing[0].remedy.is_some(), "{failing:?}");
        }
        let services = check(&Facts { services: vec!["endpoint".into()], ..protected() });
        assert!(services.iter().any(|check| check.finding.ends_with("services that run on: endpoint")));
    }
}
