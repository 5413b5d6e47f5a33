//! Roles: named sets of privileges (MG §8.2).

use super::privilege::{PrivilegeName, PrivilegeSet};
use crate::id::RoleId;
use crate::time::Timestamp;

use PrivilegeName as P;

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Id.
    pub id: RoleId,
    /// Name, unique.
    pub name: String,
    /// Description.
    pub description: String,
    /// Its privileges.
    pub privileges: PrivilegeSet,
    /// Whether it is one of the [`BuiltIn`] roles, which cannot be changed or deleted.
    pub is_built_in: bool,
    /// Number of changes, for preconditions.
    pub version: i64,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// A role that every installation has. Its id is its name in lower case with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// Everything.
    Administrator,
    /// Runs a fleet: everything with agents but what cannot be undone.
    FleetOperator,
    /// Writes policies.
    PolicyAuthor,
    /// Upgrades agents.
    UpgradeOperator,
    /// Looks at agents, tags them and requests diagnostics.
    Helpdesk,
    /// Reads everything but secrets.
    Auditor,
    /// Creates enrollment keys and hands out their tokens.
    TokenIssuer,
    /// Applies policies and outputs from a repository.
    Pipeline,
    /// Looks up what is needed to enroll agents.
    Gateway,
}

impl BuiltIn {
    /// All built-in roles.
    pub const ALL: [Self; 9] = [
        Self::Administrator,
        Self::FleetOperator,
        Self::PolicyAuthor,
        Self::UpgradeOperator,
        Self::Helpdesk,
        Self::Auditor,
        Self::TokenIssuer,
        Self::Pipeline,
        Self::Gateway,
    ];

    /// Returns the built-in role with this id.
    pub fn of(id: &RoleId) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.id() == *id)
    }

    /// Returns the role as a record.
    pub fn record(self) -> Role {
        let (name, description) = self.texts();
        Role {
            id: self.id(),
            name: name.to_owned(),
            description: description.to_owned(),
            privileges: self.privileges(),
            is_built_in: true,
            version: 0,
            updated_at: Timestamp::from_micros(0),
        }
    }

    /// Returns the id of the role.
    pub fn id(self) -> RoleId {
        RoleId::trusted(match self {
            Self::Administrator => "administrator",
            Self::FleetOperator => "fleet-operator",
            Self::PolicyAuthor => "policy-author",
            Self::UpgradeOperator => "upgrade-operator",
            Self::Helpdesk => "helpdesk",
            Self::Auditor => "auditor",
            Self::TokenIssuer => "token-issuer",
            Self::Pipeline => "pipeline",
            Self::Gateway => "gateway",
        })
    }

    /// Returns the name and the description for people.
    pub fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Administrator => ("Administrator", "Everything."),
            Self::FleetOperator => (
                "Fleet operator",
                "Manages agents, except for forced unenrollment and purging; reads policies; creates and revokes enrollment keys.",
            ),
            Self::PolicyAuthor => {
                ("Policy author", "Reads and writes policies, fleetd options and host checks; reads outputs.")
            }
            Self::UpgradeOperator => ("Upgrade operator", "Reads and upgrades agents; cancels upgrades."),
            Self::Helpdesk => ("Helpdesk", "Reads and tags agents; requests diagnostics."),
            Self::Auditor => ("Auditor", "Reads everything except secrets; exports the audit log."),
            Self::TokenIssuer => ("Token issuer", "Creates enrollment keys and reads their tokens."),
            Self::Pipeline => ("Pipeline", "Applies policies and outputs; for service accounts."),
            Self::Gateway => {
                ("Gateway", "Reads policies and the tokens of enrollment keys, to enroll agents; for service accounts.")
            }
        }
    }

    /// Returns the privileges of the role.
    pub fn privileges(self) -> PrivilegeSet {
        match self {
            Self::Administrator => PrivilegeSet::all(),
            Self::FleetOperator => fleet_operator(),
            Self::PolicyAuthor => set(&[
                P::PoliciesRead,
                P::PoliciesCreate,
                P::PoliciesUpdate,
                P::PoliciesDelete,
                P::PoliciesRollout,
                P::OutputsRead,
                P::ServerHostsRead,
                P::ProxiesRead,
                P::DownloadSourcesRead,
                P::OsqueryRead,
                P::OsqueryWrite,
                P::AgentsRead,
            ]),
            Self::UpgradeOperator => set(&[P::AgentsRead, P::AgentsUpgrade]),
            Self::Helpdesk => set(&[P::AgentsRead, P::AgentsTag, P::DiagnosticsRequest]),
            Self::Auditor => auditor(),
            Self::TokenIssuer => set(&[P::EnrollmentRead, P::EnrollmentCreate, P::EnrollmentReveal, P::PoliciesRead]),
            Self::Pipeline => set(&[
                P::PoliciesRead,
                P::PoliciesCreate,
                P::PoliciesUpdate,
                P::PoliciesDelete,
                P::OutputsRead,
                P::OutputsWrite,
            ]),
            Self::Gateway => set(&[P::PoliciesRead, P::EnrollmentRead, P::EnrollmentReveal]),
        }
    }
}

fn set(names: &[PrivilegeName]) -> PrivilegeSet {
    names.iter().copied().collect()
}

fn fleet_operator() -> PrivilegeSet {
    set(&[
        P::AgentsRead,
        P::AgentsTag,
        P::AgentsReassign,
        P::AgentsUpgrade,
        P::AgentsRollout,
        P::DiagnosticsRequest,
        P::DiagnosticsDownload,
        P::CarvesDownload,
        P::AgentsSettings,
        P::AgentsActions,
        P::AgentsUnenroll,
        P::AgentsMigrate,
        P::QueriesRun,
        P::QueriesRunSaved,
        P::PoliciesRead,
        P::PoliciesRollout,
        P::EnrollmentRead,
        P::EnrollmentCreate,
        P::EnrollmentRevoke,
        P::OutputsRead,
        P::OsqueryRead,
        P::AlertsRead,
    ])
}

fn auditor() -> PrivilegeSet {
    set(&[
        P::AgentsRead,
        P::PoliciesRead,
        P::EnrollmentRead,
        P::UninstallRead,
        P::OutputsRead,
        P::ServerHostsRead,
        P::ProxiesRead,
        P::DownloadSourcesRead,
        P::SettingsRead,
        P::OsqueryRead,
        P::ScriptsRead,
        P::RefusalsRead,
        P::UsersRead,
        P::RolesRead,
        P::SpacesRead,
        P::AuditRead,
        P::AlertsRead,
        P::NodesRead,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auditor_reads_no_secret_and_changes_nothing() {
        let reads = BuiltIn::Auditor.privileges();
        assert!(reads.iter().all(|name| name.as_str().ends_with(".read")), "{reads:?}");
        // Whatever can be read without revealing a secret, an auditor can read.
        let missing: Vec<_> =
            PrivilegeSet::all().without(reads).iter().filter(|name| name.as_str().ends_with(".read")).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn operators_cannot_force_or_purge() {
        let operator = BuiltIn::FleetOperator.privileges();
        assert!(!operator.contains(P::AgentsForceUnenroll) && !operator.contains(P::AgentsPurge));
        assert!(BuiltIn::ALL.iter().all(|role| !role.privileges().is_empty()));
    }
}
