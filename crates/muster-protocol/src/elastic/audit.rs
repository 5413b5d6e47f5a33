//! `POST /api/fleet/agents/{id}/audit/unenroll` (EA §8).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Request. The response has no body.
#[derive(Debug, Deserialize, Serialize)]
pub struct AuditUnenrollRequest<'a> {
    /// `uninstall`, `orphaned`, `key_revoked` or `migrated`.
    #[serde(borrow)]
    // Both fields are required. Strings, so that invalid values get status 400 with the protocol's code (EA139).
    pub reason: Cow<'a, str>,
    /// RFC 3339.
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
}
