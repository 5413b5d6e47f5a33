//! `POST /api/fleet/agents/{id}/audit/unenroll` (EA §8).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Request. The response has no body.
#[derive(Debug, Deserialize, Serialize)]
pub struct AuditUnenrollRequest<'a> {
    /// `uninstall`, `orphaned`, `key_revoked` or `migrated`; from muster-agent also `refused`, for a command that was
    /// refused because its uninstall token was missing or wrong, and `recovery_code`, for one that was allowed with the
    /// recovery code of the policy.
    #[serde(borrow)]
    // Both fields are required. Strings, so that invalid values get status 400 with the protocol's code (EA139).
    pub reason: Cow<'a, str>,
    /// RFC 3339.
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
    /// Who caused it. Only muster-agent sends this; other servers ignore it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub departure: Option<AuditDeparture<'a>>,
}

/// Who removed an agent, with which program, and why.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct AuditDeparture<'a> {
    /// Name of the user on the host.
    #[serde(borrow, default)]
    pub user: Cow<'a, str>,
    /// Id of the user.
    #[serde(default)]
    pub uid: u32,
    /// The command and its callers.
    #[serde(borrow, default)]
    pub process: Cow<'a, str>,
    /// Reason that the user gave.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Cow<'a, str>>,
    /// URL of the server at which the agent is enrolled now.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub new_url: Option<Cow<'a, str>>,
}
