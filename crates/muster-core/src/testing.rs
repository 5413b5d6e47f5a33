//! What the tests of this crate start from.

use std::time::Duration;

use crate::agent::{AccessKey, AgentRecord, AgentType, ReportedHealth, UpgradeState};
use crate::credential::{ApiKey, SecretHash};
use crate::enrollment_key::EnrollmentKey;
use crate::entropy::Entropy;
use crate::id::{AgentId, EnrollmentKeyId, KeyId, PolicyId};
use crate::status::Status;
use crate::time::Timestamp;

/// A time `seconds` after the start of the tests' day.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_767_322_800_000_000).plus(Duration::from_secs(seconds))
}

/// An agent that enrolled at the day's start, checked in at once, runs revision 1 of policy `p` and is well.
pub(crate) fn agent() -> AgentRecord {
    AgentRecord {
        id: AgentId::trusted("agent-1"),
        version: 3,
        kind: AgentType::Permanent,
        active: true,
        access_key: Some(AccessKey { id: KeyId::trusted("access"), hash: SecretHash([7; 32]) }),
        enrollment_key_id: Some(EnrollmentKeyId::trusted("ek")),
        enrollment_id: None,
        replace_token: None,
        enrolled_at: at(0),
        updated_at: at(0),
        policy_id: Some(PolicyId::trusted("p")),
        running_policy_id: Some(PolicyId::trusted("p")),
        policy_revision: 1,
        action_position: -1,
        action_token: None,
        tags: Vec::new(),
        namespaces: vec!["default".into()],
        agent_version: "9.5.2".into(),
        newer_than_tested: false,
        hostname: "host".into(),
        last_checkin: Some(at(0)),
        health: ReportedHealth { status: "online".into(), message: "Running".into(), unhealthy_reason: Vec::new() },
        status: Status::Online,
        status_since: at(0),
        status_deadline: Some(at(300).plus(Duration::from_micros(1))),
        audit: None,
        unenrollment_started_at: None,
        unenrolled_at: None,
        unenrolled_reason: None,
        upgrade: UpgradeState::default(),
        user_metadata: None,
        first_address: "192.0.2.1".into(),
        last_address: "192.0.2.1".into(),
        inactivity_timeout: Some(Duration::from_secs(1_209_600)),
    }
}

/// A key for policy `p` that adds the tag `keyed`.
pub(crate) fn enrollment_key() -> EnrollmentKey {
    EnrollmentKey {
        id: EnrollmentKeyId::trusted("ek"),
        name: "Default".into(),
        key_id: KeyId::trusted("enroll"),
        hash: SecretHash([9; 32]),
        sealed_token: None,
        policy_id: Some(PolicyId::trusted("p")),
        tags: vec!["keyed".into()],
        namespaces: vec!["default".into()],
        created_at: at(0),
        expires_at: None,
        revoked_at: None,
        max_uses: None,
        uses: 0,
        last_used_at: None,
        hidden: false,
        created_by: "system".into(),
    }
}

/// Bytes that differ from call to call and are the same in every run.
pub(crate) struct Sequence(std::sync::atomic::AtomicU8);

impl Sequence {
    pub(crate) fn new() -> Self {
        Self(std::sync::atomic::AtomicU8::new(1))
    }
}

impl Entropy for Sequence {
    fn fill(&self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// A fresh key of the sequence.
pub(crate) fn api_key() -> ApiKey {
    ApiKey::generate(&Sequence::new())
}
