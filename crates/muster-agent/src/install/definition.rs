//! Definitions of services: units of systemd and scripts of OpenRC.

use camino::Utf8Path;

use super::Manager;
use crate::components::cgroup::SUBGROUP;
use crate::launch::ALLOCATOR;
use crate::paths::{PREVIOUS, PROGRAM};
use crate::state::seal::CREDENTIAL;

/// What a service runs.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'a> {
    /// Description for people.
    pub description: &'a str,
    /// Directory of the link or program `muster-agent`.
    pub directory: &'a Utf8Path,
    /// Arguments of the program.
    pub arguments: &'a str,
    /// User and group; `None` for root.
    pub account: Option<(&'a str, &'a str)>,
    /// Encrypted credential with the key of the agent's files.
    pub credential: Option<&'a Utf8Path>,
    /// Whether the program stays until it is stopped. The notifier ends by itself.
    pub stays: bool,
}

impl Definition<'_> {
    /// Returns the contents of the file for `manager`.
    pub fn text(&self, manager: Manager) -> String {
        match manager {
            Manager::Systemd => self.unit(),
            Manager::OpenRc => self.script(),
            Manager::None => String::new(),
        }
    }

    fn unit(&self) -> String {
        let Self { description, directory, arguments, .. } = self;
        // Without an upgrade in progress, the link does not exist, which systemd ignores because of the hyphen.
        let guard = self.guard().map(|guard| format!("ExecStartPre=-{guard}"));
        let mut lines = vec![
            "[Unit]".to_owned(),
            format!("Description={description}"),
            "Wants=network-online.target".into(),
            "After=network-online.target".into(),
            // A host can be without a network for hours, so that no number of restarts is final.
            "StartLimitIntervalSec=0".into(),
            String::new(),
            "[Service]".into(),
            format!("ExecStart={directory}/{PROGRAM} {arguments}"),
            format!("WorkingDirectory={directory}"),
            "Restart=on-failure".into(),
            "RestartSec=5".into(),
            // Not enrolled: a restart would change nothing.
            "RestartPreventExitStatus=13".into(),
            // The agent stops its components itself. The watcher of an upgrade must survive a crash of the agent.
            "KillMode=process".into(),
            // As in the packages of Elastic Agent: components inherit it.
            "UMask=0027".into(),
            "LimitCORE=0".into(),
            // A component that the kernel ends for its use of memory must not end the agent.
            "OOMPolicy=continue".into(),
            format!("Environment={}={}", ALLOCATOR.0, ALLOCATOR.1),
            "LockPersonality=yes".into(),
            "RestrictRealtime=yes".into(),
        ];
        lines.extend(guard);
        if self.stays {
            // For the limits of components. Versions of systemd before 254 do not know the subgroup, and ignore it.
            lines.extend(["Delegate=yes".into(), format!("DelegateSubgroup={SUBGROUP}")]);
        }
        lines.extend(self.credential.map(|path| format!("LoadCredentialEncrypted={CREDENTIAL}:{path}")));
        if let Some((user, group)) = self.account {
            lines.extend([format!("User={user}"), format!("Group={group}")]);
            lines.extend(UNPRIVILEGED.iter().map(ToString::to_string));
            // ProtectSystem makes some directories read-only.
            lines.push(format!("ReadWritePaths={directory}"));
        }
        lines.extend([String::new(), "[Install]".into(), "WantedBy=multi-user.target".into(), String::new()]);
        lines.join("\n")
    }

    /// Returns the command that counts the starts during an upgrade. A new version that cannot even start is replaced
    /// by the previous one.
    fn guard(&self) -> Option<String> {
        let directory = self.directory;
        self.stays.then(|| format!("{directory}/{PREVIOUS} guard --base-path {directory}"))
    }

    fn script(&self) -> String {
        let Self { description, directory, arguments, .. } = self;
        let user = self.account.map_or_else(String::new, |(user, group)| format!("command_user=\"{user}:{group}\"\n"));
        let guard = self.guard().map_or_else(String::new, |guard| {
            format!("\nstart_pre() {{\n\t! [ -x {directory}/{PREVIOUS} ] || {guard} || true\n}}\n")
        });
        // A program that ends by itself is not started again.
        let supervisor = if self.stays {
            "supervisor=supervise-daemon\nrespawn_delay=5\nrespawn_max=0\n"
        } else {
            "command_background=yes\npidfile=\"/run/${RC_SVCNAME}.pid\"\n"
        };
        format!(
            "#!/sbin/openrc-run\ndescription=\"{description}\"\nexport {}=\"{}\"\ncommand=\"{directory}/{PROGRAM}\"\n\
             command_args=\"{arguments}\"\n{user}{supervisor}umask=027\nrc_ulimit=\"-c 0\"\n\n\
             depend() {{\n\tuse net dns\n\tafter firewall\n}}\n{guard}",
            ALLOCATOR.0, ALLOCATOR.1
        )
    }
}

/// Restrictions of an unprivileged agent. Components of a root agent may need to change the system.
// Not ProtectControlGroups: the agent creates groups for its components, below the one that systemd has given to its user.
const UNPRIVILEGED: [&str; 8] = [
    "CapabilityBoundingSet=",
    "NoNewPrivileges=yes",
    "ProtectSystem=full",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictSUIDSGID=yes",
];

/// Returns whether a path can stand in a definition without quotes. Shells and systemd interpret other characters.
pub fn is_plain(path: &Utf8Path) -> bool {
    path.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"/._+-@".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(account: Option<(&'static str, &'static str)>) -> Definition<'static> {
        Definition {
            description: "Muster endpoint agent",
            directory: Utf8Path::new("/opt/muster-agent"),
            arguments: "run --base-path /opt/muster-agent",
            account,
            credential: Some(Utf8Path::new("/opt/muster-agent/secret.cred")),
            stays: true,
        }
    }

    #[test]
    fn the_unit_starts_the_link_and_loads_the_key() {
        let unit = definition(None).text(Manager::Systemd);
        assert!(
            unit.contains("\nExecStart=/opt/muster-agent/muster-agent run --base-path /opt/muster-agent\n"),
            "{unit}"
        );
        assert!(unit.contains("\nLoadCredentialEncrypted=muster-agent-key:/opt/muster-agent/secret.cred\n"), "{unit}");
        assert!(!unit.contains("User="), "{unit}");
        assert!(unit.contains("\nDelegate=yes\nDelegateSubgroup=agent\n"), "{unit}");
        for text in [unit, definition(None).text(Manager::OpenRc)] {
            assert!(text.contains("GLIBC_TUNABLES=") && text.contains("glibc.malloc.trim_threshold=65536"), "{text}");
        }
    }

    #[test]
    fn services_of_the_agent_count_starts_during_an_upgrade() {
        let guard = "/opt/muster-agent/muster-agent.previous guard --base-path /opt/muster-agent";
        let unit = definition(None).text(Manager::Systemd);
        assert!(unit.contains(&format!("\nExecStartPre=-{guard}\n")), "{unit}");
        assert!(definition(None).text(Manager::OpenRc).contains(guard));
        let notifier = Definition { stays: false, ..definition(None) };
        for manager in [Manager::Systemd, Manager::OpenRc] {
            assert!(!notifier.text(manager).contains("guard"), "the notifier is not upgraded");
        }
    }

    #[test]
    fn an_unprivileged_agent_has_no_capabilities() {
        let unit = definition(Some(("muster-agent", "muster"))).text(Manager::Systemd);
        for line in ["User=muster-agent", "Group=muster", "CapabilityBoundingSet=", "NoNewPrivileges=yes"] {
            assert!(unit.lines().any(|other| other == line), "{line}: {unit}");
        }
        let script = definition(Some(("muster-agent", "muster"))).text(Manager::OpenRc);
        assert!(
            script.contains("command_user=\"muster-agent:muster\"\n") && script.contains("supervise-daemon"),
            "{script}"
        );
        let notifier = Definition { stays: false, ..definition(None) }.text(Manager::OpenRc);
        assert!(!notifier.contains("supervise-daemon"), "{notifier}");
    }

    #[test]
    fn paths_that_a_manager_would_interpret_are_not_plain() {
        assert!(is_plain(Utf8Path::new("/opt/muster-agent_2.0/a+b")));
        for path in ["/opt/a b", "/opt/$HOME", "/opt/%n", "/opt/\"a\"", "/opt/a\nb", "/opt/ä", "/opt/a;b"] {
            assert!(!is_plain(Utf8Path::new(path)), "{path}");
        }
    }
}
