//! Records to write, and small helpers around commits.

use std::sync::Arc;
use std::time::Duration;

use muster_core::action::{Action, ActionResult, ActionType, Signed};
use muster_core::agent::{
    AgentDocuments, AgentRecord, AgentType, AuditReason, AuditReport, Departure, DuplicateHosts, Family, PolicyFailure,
    ReportedHealth, UpgradeState,
};
use muster_core::credential::{CredentialKind, LiveCredential, LiveCredentials, SecretHash};
use muster_core::duplicate_hosts::{HostMark, Reenrollment, ReenrollmentState};
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::file::{Artifact, DeliverableFile, FileStatus, Upload};
use muster_core::id::{
    ActionId, AgentId, EnrollmentKeyId, FileId, HostId, KeyId, NodeId, OutputId, PolicyId, SecretId, SpaceId,
};
use muster_core::output::Output;
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::status::Status;
use muster_core::testing;
use muster_core::time::Timestamp;
use muster_core::upgrade::OpenUpgrade;
use muster_store::{
    ActionWrite, AgentWrite, Committed, FileWrite, Precondition, SettingWrite, Store, StoreError, Write,
};
use serde_json::json;

/// A time: `n` microseconds after a fixed one.
pub fn at(n: i64) -> Timestamp {
    Timestamp::from_micros(1_790_000_000_000_000 + n)
}

pub fn agent_id(id: &str) -> AgentId {
    AgentId::trusted(id)
}

pub fn action_id(id: &str) -> ActionId {
    ActionId::trusted(id)
}

/// A record with nothing in it that may be left out.
pub fn bare_agent(id: &str) -> AgentRecord {
    testing::bare_agent(id, at(0))
}

/// A record with something in every field, different from field to field.
pub fn full_agent(id: &str) -> AgentRecord {
    AgentRecord {
        id: agent_id(id),
        version: 1,
        family: Family::Osquery,
        host_id: Some(HostId::trusted("host-1")),
        former_id: Some(AgentId::trusted("former")),
        node: Some(NodeId::trusted("node-1")),
        kind: AgentType::Ephemeral,
        active: false,
        credentials: one_key(&format!("key-of-{id}")),
        enrollment_key_id: Some(EnrollmentKeyId::trusted("ek")),
        enrollment_id: Some("handle".into()),
        replace_token: Some("$pbkdf2-sha512$10000$salt$key".into()),
        enrolled_at: at(1),
        updated_at: at(2),
        policy_id: Some(PolicyId::trusted("policy-assigned")),
        running_policy_id: Some(PolicyId::trusted("policy-running")),
        policy_revision: 7,
        target_revision: Some(6),
        policy_revision_at: Some(at(6)),
        policy_failure: Some(Box::new(PolicyFailure { revision: 7, reason: "no such input".into() })),
        duplicate_hosts: Some(Box::new(DuplicateHosts {
            hosts: vec!["a".into(), "b".into()],
            since: at(31),
            last: at(32),
            keeper: HostMark::of("a"),
            reenrollments: vec![Reenrollment {
                host: HostMark::of("b"),
                at: at(33),
                state: ReenrollmentState::Pending { action: action_id("again"), key: EnrollmentKeyId::trusted("key") },
            }],
        })),
        action_position: 42,
        action_token: Some(action_id("token")),
        tags: vec!["prod".into(), "it's \"quoted\"".into(), "größe".into()],
        space: SpaceId::default(),
        agent_version: "8.18.8".into(),
        newer_than_tested: true,
        hostname: "host.example".into(),
        os: "linux\ndebian\nUbuntu\n24.04\nx86_64".into(),
        hardware: Box::default(),
        last_checkin: Some(at(3)),
        health: ReportedHealth {
            status: "DEGRADED".into(),
            message: "a\nmessage".into(),
            unhealthy_reason: vec!["input".into(), "output".into()],
        },
        status: Status::Degraded,
        status_since: at(4),
        status_deadline: Some(at(5)),
        audit: Some(AuditReport { reason: AuditReason::KeyRevoked, at: at(6) }),
        departure: Some(Box::new(Departure {
            user: "alice".into(),
            uid: 1000,
            process: "uninstall < sudo".into(),
            why: Some("replaced".into()),
            new_url: Some("https://other.example:8220".into()),
        })),
        unenrollment_started_at: Some(at(7)),
        unenrolled_at: Some(at(8)),
        unenrolled_reason: Some("manual".into()),
        upgrade: UpgradeState {
            started_at: Some(at(9)),
            open: Some(Box::new(OpenUpgrade {
                action: action_id("up"),
                version: "9.6.0".into(),
                from: "9.5.2".into(),
                progress_at: Some(at(10)),
                is_snapshot: Some(true),
            })),
            upgraded_at: Some(at(10)),
            details: Some(r#"{"state":"UPG_DOWNLOADING"}"#.into()),
            rollbacks: Some("[]".into()),
        },
        user_metadata: Some(r#"{"owner":"me"}"#.into()),
        first_address: "10.0.0.1".into(),
        last_address: "2001:db8::1".into(),
        inactivity_timeout: Some(Duration::from_secs(1_209_600)),
        contact_interval: 3_600,
    }
}

pub fn credential(id: &str, kind: CredentialKind, issued: i64) -> LiveCredential {
    let (key_id, hash) = (KeyId::trusted(id), SecretHash::of(id.as_bytes()));
    LiveCredential { key_id, kind, hash, issued_at: at(issued), certificate: None }
}

pub fn one_key(id: &str) -> LiveCredentials {
    LiveCredentials::one(credential(id, CredentialKind::AccessKey, 1))
}

pub fn documents(local_metadata: &str, components: &str) -> AgentDocuments {
    AgentDocuments { local_metadata: Some(local_metadata.into()), components: Some(components.into()) }
}

pub fn insert(record: &AgentRecord) -> Write {
    Write::Agent(AgentWrite::Insert {
        record: Box::new(record.clone()),
        documents: documents(r#"{"host":{"hostname":"h"}}"#, r#"[{"id":"c"}]"#),
    })
}

pub fn update(before: &AgentRecord, after: &AgentRecord) -> Write {
    Write::Agent(AgentWrite::Update { before: Arc::new(before.clone()), after: Arc::new(after.clone()) })
}

/// The record's next version, changed by `change`.
pub fn next(record: &AgentRecord, change: impl FnOnce(&mut AgentRecord)) -> AgentRecord {
    let mut after = record.clone();
    after.version += 1;
    change(&mut after);
    after
}

pub fn enrollment_key(id: &str) -> EnrollmentKey {
    EnrollmentKey {
        name: format!("key {id}"),
        key_id: KeyId::trusted(format!("public-{id}")),
        hash: SecretHash::of(id.as_bytes()),
        sealed_token: Some(vec![0, 1, 255]),
        policy_id: Some(PolicyId::trusted("p")),
        tags: vec!["from-key".into()],
        created_by: "local:root".into(),
        ..testing::key_of(id, &testing::api_key(), at(0))
    }
}

pub fn policy(id: &str) -> Policy {
    Policy {
        name: format!("policy {id}"),
        description: "what it is for".into(),
        is_managed: true,
        is_default: true,
        inactivity_timeout: 1_209_600,
        unenroll_timeout: Some(86_400),
        config: json!({"inputs": [{"id": "x", "nested": {"deep": [1, 2.5, null, "ü"]}}]}),
        secrets: vec![("password".into(), SecretId::trusted("s1"))],
        fields: json!({"monitoring_enabled": ["logs"]}),
        recovery_code_hash: Some("$pbkdf2-sha512$1000$salt$key".into()),
        updated_by: "local:root".into(),
        updated_at: at(1),
        ..testing::policy(id, at(0))
    }
}

pub fn revision(policy: &str, number: i64) -> PolicyRevision {
    PolicyRevision {
        created_by: format!("author {number}"),
        source: json!({"name": policy}),
        ..testing::revision(policy, number, at(number))
    }
}

pub fn action(id: &str) -> Action {
    Action { created_by: "local:root".into(), ..testing::action(id, ActionType::Settings, at(0)) }
}

pub fn full_action(id: &str) -> Action {
    Action {
        kind: ActionType::InputAction,
        expiration: Some(at(1_000)),
        start_time: Some(at(10)),
        rollout_seconds: Some(600),
        timeout: Some(300),
        input_type: "osquery".into(),
        data: Some(r#"{"query":"select 1"}"#.into()),
        signed: Some(Signed { data: "ZGF0YQ==".into(), signature: "c2ln".into() }),
        total: 3,
        cancelled_at: Some(at(5)),
        ..action(id)
    }
}

pub fn create(action: &Action, targets: &[&str]) -> Write {
    Write::Action(ActionWrite::Insert {
        action: Box::new(action.clone()),
        targets: targets.iter().map(|target| agent_id(target)).collect(),
    })
}

pub fn result(action: &str, agent: &str, n: i64, error: Option<&str>) -> ActionResult {
    ActionResult {
        action_id: action_id(action),
        agent_id: agent_id(agent),
        at: at(n),
        outcome: error.map(str::to_owned).into(),
        fields: Some(format!(r#"{{"n":{n}}}"#).into()),
    }
}

pub fn answer(result: &ActionResult) -> Write {
    Write::Action(ActionWrite::Result { result: Box::new(result.clone()), addressed: true })
}

pub fn output(id: &str) -> Output {
    Output {
        id: OutputId::trusted(id),
        space: SpaceId::default(),
        name: format!("output {id}"),
        kind: "elasticsearch".into(),
        is_default: false,
        is_default_monitoring: false,
        fields: json!({"hosts": ["https://localhost:9200"]}),
        created_at: at(0),
        updated_at: at(1),
    }
}

pub fn upload(id: &str, action: &str, agent: &str) -> Upload {
    Upload {
        id: FileId::trusted(id),
        action_id: action_id(action),
        agent_id: agent_id(agent),
        source: "agent".into(),
        name: "../../etc/passwd\r\n".into(),
        mime_type: "application/zip".into(),
        size: 9,
        status: FileStatus::AwaitingUpload,
        started_at: at(0),
        transit_hash: None,
    }
}

pub fn chunk(file: &str, number: i64, data: &[u8]) -> Write {
    Write::File(FileWrite::PutChunk {
        file: FileId::trusted(file),
        number,
        sha256: SecretHash::of(data).0,
        data: data.to_vec(),
    })
}

pub fn file(id: &str, agents: &[&str]) -> DeliverableFile {
    DeliverableFile {
        id: FileId::trusted(id),
        name: "payload.bin".into(),
        mime_type: "application/octet-stream".into(),
        size: 5,
        sha256: "ab".repeat(32),
        agents: agents.iter().map(|agent| agent_id(agent)).collect(),
        created_at: at(0),
    }
}

pub fn artifact(identifier: &str, decoded_sha256: &str) -> Artifact {
    Artifact {
        identifier: identifier.into(),
        decoded_sha256: decoded_sha256.into(),
        decoded_size: 14,
        encoded_sha256: "cd".repeat(32),
        compression: "zlib".into(),
        created_at: at(0),
    }
}

pub fn setting(name: &str, value: &str) -> Write {
    Write::Setting(SettingWrite::Put { name: name.into(), value: value.into() })
}

/// Commits what must go through.
pub async fn commit(store: &impl Store, writes: Vec<Write>) -> Committed {
    store.commit(writes).await.unwrap()
}

/// The precondition that refuses a commit.
pub async fn refused(store: &impl Store, writes: Vec<Write>) -> Precondition {
    match store.commit(writes).await {
        Err(StoreError::Conflict(precondition)) => precondition,
        other => panic!("expected a conflict: {other:?}"),
    }
}
