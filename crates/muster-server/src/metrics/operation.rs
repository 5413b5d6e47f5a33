//! Operations as labels, told from a request's path alone, as its limits are (§1.12).

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `/api/status`
    Status,
    /// `/api/fleet/agents/enroll`
    Enroll,
    /// `/api/fleet/agents/{id}/checkin`
    CheckIn,
    /// `/api/fleet/agents/{id}/acks`
    Ack,
    /// `/api/fleet/agents/{id}/audit/unenroll`
    AuditUnenroll,
    /// `/api/fleet/artifacts/…`
    Artifact,
    /// `/api/fleet/uploads`
    UploadStart,
    /// `/api/fleet/uploads/{id}/{number}`
    UploadChunk,
    /// `/api/fleet/uploads/{id}`
    UploadEnd,
    /// `/api/fleet/file/{id}`
    FileDelivery,
    /// `/api/agents/upgrades/…`
    PgpRetrieval,
    /// The management API.
    Management,
    /// Anything else.
    Other,
}

impl Operation {
    /// Of a request to an agent listener.
    pub fn of_agent_path(path: &str) -> Self {
        let mut parts = path.trim_end_matches('/').trim_start_matches('/').split('/');
        let mut next = || parts.next().unwrap_or_default();
        match (next(), next(), next(), next(), next(), next()) {
            ("api", "status", "", "", "", "") => Self::Status,
            ("api", "fleet", "agents", _, "", "") => Self::Enroll,
            ("api", "fleet", "agents", _, "checkin", "") => Self::CheckIn,
            ("api", "fleet", "agents", _, "acks", "") => Self::Ack,
            ("api", "fleet", "agents", _, "audit", "unenroll") => Self::AuditUnenroll,
            ("api", "fleet", "artifacts", ..) => Self::Artifact,
            ("api", "fleet", "uploads", "", "", "") => Self::UploadStart,
            ("api", "fleet", "uploads", _, "", "") => Self::UploadEnd,
            ("api", "fleet", "uploads", _, _, "") => Self::UploadChunk,
            ("api", "fleet", "file", ..) => Self::FileDelivery,
            ("api", "agents", "upgrades", ..) => Self::PgpRetrieval,
            _ => Self::Other,
        }
    }

    /// Its name in metrics and in `limits.NAME`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Enroll => "enroll",
            Self::CheckIn => "checkin",
            Self::Ack => "ack",
            Self::AuditUnenroll => "audit_unenroll",
            Self::Artifact => "artifact",
            Self::UploadStart => "upload_start",
            Self::UploadChunk => "upload_chunk",
            Self::UploadEnd => "upload_end",
            Self::FileDelivery => "file_delivery",
            Self::PgpRetrieval => "pgp_retrieval",
            Self::Management => "management",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        for (path, name) in [
            ("/api/status", "status"),
            ("/api/fleet/agents/enroll", "enroll"),
            ("/api/fleet/agents/a/checkin/", "checkin"),
            ("/api/fleet/agents/a/acks", "ack"),
            ("/api/fleet/agents/a/audit/unenroll", "audit_unenroll"),
            ("/api/fleet/artifacts/x/y", "artifact"),
            ("/api/fleet/uploads", "upload_start"),
            ("/api/fleet/uploads/u/0", "upload_chunk"),
            ("/api/fleet/uploads/u", "upload_end"),
            ("/api/fleet/file/f", "file_delivery"),
            ("/api/agents/upgrades/9.0.0/pgp-public-key", "pgp_retrieval"),
            ("/", "other"),
            ("", "other"),
        ] {
            assert_eq!(Operation::of_agent_path(path).name(), name, "{path}");
        }
    }
}
