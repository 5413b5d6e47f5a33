//! Who removes the agent, with which program, and why.

use muster_protocol::elastic::audit::AuditDeparture;
use nix::unistd::{Uid, User, getppid, getuid};
use serde::{Deserialize, Serialize};

/// Maximum length of each part, in bytes. Together, they fit into the default limit of the request, 1 KiB.
const PART_MAX: usize = 120;
/// Maximum number of processes in the chain of callers.
const CALLERS_MAX: usize = 6;

/// Who removes the agent, with which program, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// Name of the user who logged in, also behind `sudo`.
    #[serde(default)]
    pub user: String,
    /// Id of this user.
    #[serde(default)]
    pub uid: u32,
    /// The command and its callers, by name and without arguments: `uninstall < sudo < bash < sshd`.
    #[serde(default)]
    pub process: String,
    /// Reason that the user gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// URL of the server at which the agent is enrolled now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_url: Option<String>,
}

impl Departure {
    /// Describes this process as the cause; `command` is its subcommand.
    pub fn by_this_process(command: &str, why: Option<&str>, new_url: Option<&str>) -> Self {
        let uid = login_uid().unwrap_or_else(|| getuid().as_raw());
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(String::new, |user| user.name);
        Self {
            user: part(&user),
            uid,
            process: part(&callers(command)),
            why: why.map(part),
            new_url: new_url.map(part),
        }
    }
}

impl<'a> From<&'a Departure> for AuditDeparture<'a> {
    fn from(departure: &'a Departure) -> Self {
        Self {
            user: departure.user.as_str().into(),
            uid: departure.uid,
            process: departure.process.as_str().into(),
            why: departure.why.as_deref().map(Into::into),
            new_url: departure.new_url.as_deref().map(Into::into),
        }
    }
}

/// Returns the user who logged in. `sudo` and `su` do not change it.
fn login_uid() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/self/loginuid").ok()?;
    // The maximum means that nobody has logged in: the process belongs to a service.
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// Returns the names of the callers. Their arguments are left out, because they can contain an uninstall token.
fn callers(command: &str) -> String {
    let mut chain = vec![command.to_owned()];
    let mut pid = getppid().as_raw();
    while pid > 1 && chain.len() < CALLERS_MAX {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { break };
        // The name is in parentheses, and can contain spaces and parentheses itself.
        let Some((name, rest)) = stat.rsplit_once(") ") else { break };
        chain.extend(name.split_once('(').map(|(_, name)| name.to_owned()));
        pid = rest.split(' ').nth(1).and_then(|parent| parent.parse().ok()).unwrap_or(0);
    }
    chain.join(" < ")
}

/// Limits a part, and removes what could not be printed safely.
fn part(text: &str) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    while text.len() > PART_MAX {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_departure_names_this_user_and_its_callers_without_arguments() {
        let departure = Departure::by_this_process("uninstall", Some("replaced\u{1b}[31m"), None);
        let uid = login_uid().unwrap_or_else(|| getuid().as_raw());
        assert_eq!(departure.uid, uid);
        assert_eq!(departure.why.as_deref(), Some("replaced[31m"));
        assert!(departure.process.starts_with("uninstall < "), "{}", departure.process);
        assert!(!departure.process.contains("--"), "{}", departure.process);
    }

    #[test]
    fn every_part_is_limited() {
        let long = "ü".repeat(1000);
        let departure = Departure::by_this_process(&long, Some(&long), Some(&long));
        let request = serde_json::to_vec(&AuditDeparture::from(&departure)).unwrap();
        assert!(request.len() < 900, "{}", request.len());
    }
}
