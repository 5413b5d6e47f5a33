//! Privileges, each for a kind of operation on a kind of object (MG §8.2).

use std::fmt;
use std::str::FromStr;

/// A privilege as a type; implemented by the types below, which have no values.
pub trait Privilege: Send + Sync + 'static {
    /// The privilege as a value.
    const NAME: PrivilegeName;
}

impl Reach {
    /// Returns the narrowest binding that gives such a privilege, for people.
    pub const fn narrowest(self) -> &'static str {
        match self {
            Self::Agents => "policies, or agents with a tag",
            Self::Policies => "policies",
            Self::Space => "a space",
            Self::System => "everywhere",
        }
    }
}

/// The widest restriction that a binding may have and still give a privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    // In ascending order of what the binding must cover.
    /// The object is an agent: any selector of agents will do.
    Agents,
    /// The object is a policy or belongs to one: a list of policies will do.
    Policies,
    /// The object belongs to the space as a whole: the binding must cover the whole space.
    Space,
    /// The object belongs to all spaces: the binding must cover the whole installation.
    System,
}

macro_rules! privileges {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $reach:ident;)+) => {
        /// The name of a privilege, as roles list it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum PrivilegeName {
            $(#[doc = $doc] $name,)+
        }

        impl PrivilegeName {
            /// All privileges.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Returns the name, for example `agents.read`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// Returns what it permits.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$name => $doc.trim_ascii(),)+
                }
            }

            /// Returns how much of the installation a binding must cover to give this privilege.
            pub const fn reach(self) -> Reach {
                match self {
                    $(Self::$name => Reach::$reach,)+
                }
            }
        }

        $(
            #[doc = $doc]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            // Uninhabited, because it exists as a type parameter only.
            pub enum $name {}

            impl Privilege for $name {
                const NAME: PrivilegeName = PrivilegeName::$name;
            }
        )+
    };
}

privileges! {
    /// Read agents, their documents and their actions.
    AgentsRead = "agents.read", Agents;
    /// Change the tags and the user-provided metadata of agents.
    AgentsTag = "agents.tag", Agents;
    /// Assign agents to another policy.
    AgentsReassign = "agents.reassign", Agents;
    /// Upgrade agents, roll upgrades back, and cancel actions.
    AgentsUpgrade = "agents.upgrade", Agents;
    /// Start, pause, resume and roll back staged rollouts of upgrades.
    AgentsRollout = "agents.rollout", Space;
    /// Request diagnostics.
    DiagnosticsRequest = "agents.diagnostics.request", Agents;
    /// Read and delete diagnostics and other uploads.
    DiagnosticsDownload = "agents.diagnostics.download", Agents;
    /// Change settings of agents, such as the log level.
    AgentsSettings = "agents.settings", Agents;
    /// Create actions of any type, cancel them, and send files to agents.
    AgentsActions = "agents.actions", Agents;
    /// Unenroll agents.
    AgentsUnenroll = "agents.unenroll", Agents;
    /// Unenroll agents without waiting for their ack.
    AgentsForceUnenroll = "agents.unenroll.force", Agents;
    /// Move agents to another server, and change the privilege level at which they run.
    AgentsMigrate = "agents.migrate", Agents;
    /// Delete agents with all their data.
    AgentsPurge = "agents.purge", Agents;
    /// Run live queries on hosts with osquery, read their results and stop them.
    QueriesRun = "queries.run", Agents;
    /// Run saved queries on hosts with osquery, read their results and stop them; part of `queries.run`.
    QueriesRunSaved = "queries.run_saved", Agents;
    /// Run scripts on hosts, see the results of one's own runs and stop them.
    ScriptsRun = "scripts.run", Agents;
    /// Read saved scripts, and the runs of everybody with their scripts and outputs.
    ScriptsRead = "scripts.read", Space;
    /// Save and delete scripts, and enable or disable scripts.
    ScriptsWrite = "scripts.write", Space;
    /// Install and uninstall software on hosts, see the results of one's own runs and stop them.
    SoftwareInstall = "software.install", Agents;
    /// Upload and delete installers: packages, and scripts that hosts run with full privileges.
    InstallersWrite = "installers.write", Space;
    /// Reveal the recovery keys of encrypted disks, and make hosts report them.
    DiskKeysReveal = "disk_keys.reveal", Agents;
    /// Read, download and delete carves: files of hosts.
    CarvesDownload = "carves.download", Space;
    /// Read policies.
    PoliciesRead = "policies.read", Policies;
    /// Create policies.
    PoliciesCreate = "policies.create", Space;
    /// Change policies.
    PoliciesUpdate = "policies.update", Policies;
    /// Delete policies.
    PoliciesDelete = "policies.delete", Policies;
    /// Switch the tamper protection of policies on and off.
    PoliciesProtect = "policies.protect", Policies;
    /// Start, pause, resume and roll back staged rollouts of policies.
    PoliciesRollout = "policies.rollout", Policies;
    /// Read enrollment keys without their tokens.
    EnrollmentRead = "enrollment.read", Policies;
    /// Create enrollment keys.
    EnrollmentCreate = "enrollment.create", Policies;
    /// Revoke and replace enrollment keys.
    EnrollmentRevoke = "enrollment.revoke", Policies;
    /// Read the tokens of enrollment keys.
    EnrollmentReveal = "enrollment.reveal", Policies;
    /// Read the list of uninstall tokens without the tokens.
    UninstallRead = "uninstall.read", Policies;
    /// Read uninstall tokens; with `uninstall.rotate`, create recovery codes.
    UninstallReveal = "uninstall.reveal", Policies;
    /// Replace uninstall tokens; remove recovery codes.
    UninstallRotate = "uninstall.rotate", Policies;
    /// Read outputs and their health.
    OutputsRead = "outputs.read", Space;
    /// Create, change and delete outputs.
    OutputsWrite = "outputs.write", Space;
    /// Read Fleet Server hosts.
    ServerHostsRead = "hosts.read", Space;
    /// Create, change and delete Fleet Server hosts.
    ServerHostsWrite = "hosts.write", Space;
    /// Read proxies.
    ProxiesRead = "proxies.read", Space;
    /// Create, change and delete proxies.
    ProxiesWrite = "proxies.write", Space;
    /// Read download sources.
    DownloadSourcesRead = "downloads.read", Space;
    /// Create, change and delete download sources.
    DownloadSourcesWrite = "downloads.write", Space;
    /// Upload artifacts, which agents of the space may fetch.
    ArtifactsWrite = "artifacts.write", Space;
    /// Upload and delete packages of muster-agent, which agents of all spaces may fetch.
    PackagesWrite = "packages.write", System;
    /// Replace the key that signs policies and actions.
    SigningRotate = "signing.rotate", System;
    /// Read the settings of a space.
    SettingsRead = "settings.read", Space;
    /// Change the settings of a space.
    SettingsWrite = "settings.write", Space;
    /// Read the fleetd options, the saved queries, the host checks and their results, labels, packs, the software of hosts, installers and their runs.
    OsqueryRead = "osquery.read", Space;
    /// Change the fleetd options, the saved queries, the host checks, labels and packs: SQL that hosts run with full privileges.
    OsqueryWrite = "osquery.write", Space;
    /// Read rejected requests.
    RefusalsRead = "refusals.read", System;
    /// Read users, service accounts, their tokens and their bindings.
    UsersRead = "users.read", System;
    /// Create, change, lock and delete users and service accounts, and bind roles.
    UsersWrite = "users.write", System;
    /// Read roles.
    RolesRead = "roles.read", System;
    /// Create, change and delete roles.
    RolesWrite = "roles.write", System;
    /// Read spaces.
    SpacesRead = "spaces.read", System;
    /// Create, change and delete spaces.
    SpacesWrite = "spaces.write", System;
    /// Read and export the audit events of a space; everywhere, those of the whole installation.
    AuditRead = "audit.read", Space;
    /// Read webhooks and other receivers of alerts.
    AlertsRead = "alerts.read", Space;
    /// Create, change, test and delete receivers of alerts.
    AlertsWrite = "alerts.write", Space;
    /// Read the servers of the fleet, which serve every space.
    NodesRead = "nodes.read", System;
    /// Drain servers.
    NodesWrite = "nodes.write", System;
    /// Create backups.
    BackupCreate = "backup.create", System;
}

/// Error for a name that is no privilege.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no privilege `{0}`")]
pub struct UnknownPrivilege(pub String);

impl FromStr for PrivilegeName {
    type Err = UnknownPrivilege;

    fn from_str(text: &str) -> Result<Self, UnknownPrivilege> {
        let found = Self::ALL.iter().find(|name| name.as_str() == text);
        found.copied().ok_or_else(|| UnknownPrivilege(text.to_owned()))
    }
}

impl fmt::Display for PrivilegeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of privileges.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PrivilegeSet(u64);

// A set is one word, because it is tested on each request. More than 64 privileges need a wider one.
const _: () = assert!(PrivilegeName::ALL.len() <= 64);

impl PrivilegeSet {
    /// Returns the set of all privileges.
    pub fn all() -> Self {
        PrivilegeName::ALL.iter().copied().collect()
    }

    /// Returns whether the set contains a privilege.
    pub fn contains(self, name: PrivilegeName) -> bool {
        self.0 & bit(name) != 0
    }

    /// Returns whether this set grants a privilege: people who may run any SQL may also run saved queries.
    pub fn gives(self, name: PrivilegeName) -> bool {
        self.contains(name) || (name == PrivilegeName::QueriesRunSaved && self.contains(PrivilegeName::QueriesRun))
    }

    /// Returns the privileges that are in both sets.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the privileges that are in either set.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the privileges that are in this set, but not in the other one.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Iterates over the privileges in the order of their definition.
    pub fn iter(self) -> impl Iterator<Item = PrivilegeName> {
        PrivilegeName::ALL.iter().copied().filter(move |name| self.contains(*name))
    }
}

fn bit(name: PrivilegeName) -> u64 {
    1 << (name as u32)
}

impl FromIterator<PrivilegeName> for PrivilegeSet {
    fn from_iter<I: IntoIterator<Item = PrivilegeName>>(names: I) -> Self {
        Self(names.into_iter().fold(0, |set, name| set | bit(name)))
    }
}

impl fmt::Debug for PrivilegeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_are_read_back() {
        for name in PrivilegeName::ALL {
            assert_eq!(name.as_str().parse(), Ok(*name));
        }
        assert_eq!("agents.rule".parse::<PrivilegeName>(), Err(UnknownPrivilege("agents.rule".into())));
    }

    #[test]
    fn sets_are_compared_privilege_by_privilege() {
        let some: PrivilegeSet = [PrivilegeName::AgentsRead, PrivilegeName::BackupCreate].into_iter().collect();
        assert!(some.contains(PrivilegeName::BackupCreate) && !some.contains(PrivilegeName::AgentsTag));
        assert_eq!(some.both(PrivilegeSet::all()), some);
        assert!(some.without(PrivilegeSet::all()).is_empty());
        assert_eq!(PrivilegeSet::all().iter().count(), PrivilegeName::ALL.len());
    }
}
