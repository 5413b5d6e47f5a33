//! Fixtures for the tests of this crate and of those above (feature `testing`): sample records, a manual clock and a
//! deterministic generator.
//!
//! A test states only the fields that it is about: `Action { expiration: Some(at(60)), ..action("a",
//! ActionType::Settings, at(0)) }`.

pub mod family;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::action::{Action, ActionType};
use crate::agent::{AgentRecord, AgentType, Family, ReportedHealth, UpgradeState};
use crate::credential::{ApiKey, CredentialKind, LiveCredential, LiveCredentials, SecretHash};
use crate::enrollment_key::{EnrollmentKey, KeyFamily};
use crate::entropy::Entropy;
use crate::fleetd::packs::Pack;
use crate::id::{ActionId, AgentId, EnrollmentKeyId, KeyId, NetworkObjectId, OutputId, PackId, PolicyId, SpaceId};
use crate::network_object::{NetworkObject, NetworkObjectKind};
use crate::output::Output;
use crate::policy::{Policy, PolicyRevision};
use crate::status::Status;
use crate::time::{Clock, Timestamp};

/// Passphrase of [`ENCRYPTED_KEY`].
pub const PASSPHRASE: &str = "canary-passphrase";
/// A key with [`PASSPHRASE`], as OpenSSL writes it: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes-256-cbc`.
pub const ENCRYPTED_KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n\
    MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAiyFmD5xb6ixAICCAAw\n\
    DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEN39O//yxF0LZ9GikPnB+7sEgZC8\n\
    HWDdIzGBD9zNUAjxWDyS0qHp8RaLyn4fdsuk+LyCVALvdpDpiPei3ht8CAXb+spo\n\
    t8OxahNEyxOpBR6wFnvRxNYGb/x8Fjrk17CHIumvjlfCzGKwudj+9/3fumaNOKGm\n\
    /m2voQyTeptoijC1Zh8mQz/kIsbZwZIzbCbrF0NtRNsu4grS9X4Luiur8OrEJis=\n\
    -----END ENCRYPTED PRIVATE KEY-----\n";

/// Returns a time `seconds` after a fixed start.
pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_767_322_800_000_000).plus(Duration::from_secs(seconds))
}

/// Clock that is advanced by hand.
#[derive(Debug)]
pub struct TestClock {
    micros: AtomicI64,
    /// Total of all adjustments by [`TestClock::set`], in microseconds.
    set: AtomicI64,
}

impl TestClock {
    /// Creates a clock at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { micros: AtomicI64::new(start.as_micros()), set: AtomicI64::new(0) }
    }

    /// Advances the clock: time passes.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.micros.fetch_add(micros, Ordering::SeqCst);
    }

    /// Sets the clock to `time`, possibly in the past. No time passes for [`Clock::steady`].
    pub fn set(&self, time: Timestamp) {
        let before = self.micros.swap(time.as_micros(), Ordering::SeqCst);
        self.set.fetch_add(time.as_micros() - before, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.micros.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Duration {
        let micros = self.micros.load(Ordering::SeqCst) - self.set.load(Ordering::SeqCst);
        Duration::from_micros(micros.unsigned_abs())
    }
}

/// Deterministic generator: bytes differ from call to call and are the same in every run.
#[derive(Debug)]
pub struct Sequence(AtomicU64);

impl Sequence {
    /// Creates a generator at its start.
    pub fn new() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Default for Sequence {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for Sequence {
    fn fill(&self, buffer: &mut [u8]) {
        // An odd increment visits every 64-bit value once. This one (2^64 divided by the golden ratio) changes all
        // eight bytes.
        for chunk in buffer.chunks_mut(8) {
            let next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).to_le_bytes();
            chunk.copy_from_slice(&next[..chunk.len()]);
        }
    }
}

/// Creates an API key.
pub fn api_key() -> ApiKey {
    ApiKey::generate(&Sequence::new())
}

/// Creates an agent with only the required fields, which enrolled `now` and never checked in.
pub fn bare_agent(id: &str, now: Timestamp) -> AgentRecord {
    AgentRecord {
        id: AgentId::trusted(id),
        version: 1,
        family: Family::Elastic,
        host_id: None,
        former_id: None,
        node: None,
        kind: AgentType::Permanent,
        active: true,
        credentials: LiveCredentials::default(),
        enrollment_key_id: None,
        enrollment_id: None,
        replace_token: None,
        enrolled_at: now,
        updated_at: now,
        policy_id: None,
        target_revision: None,
        policy_revision_at: None,
        policy_failure: None,
        duplicate_hosts: None,
        running_policy_id: None,
        policy_revision: 0,
        action_position: -1,
        action_token: None,
        tags: Vec::new(),
        space: SpaceId::default(),
        agent_version: "9.5.2".into(),
        newer_than_tested: false,
        hostname: String::new(),
        os: String::new(),
        hardware: Box::default(),
        last_checkin: None,
        health: ReportedHealth::default(),
        status: Status::Enrolling,
        status_since: now,
        status_deadline: None,
        audit: None,
        departure: None,
        unenrollment_started_at: None,
        unenrolled_at: None,
        unenrolled_reason: None,
        upgrade: UpgradeState::default(),
        user_metadata: None,
        first_address: String::new(),
        last_address: String::new(),
        inactivity_timeout: None,
        contact_interval: 0,
    }
}

/// Creates a healthy agent that enrolled and checked in `now`, and runs revision 1 of `policy`, if any.
pub fn online_agent(id: &str, policy: Option<&str>, now: Timestamp) -> AgentRecord {
    AgentRecord {
        policy_id: policy.map(PolicyId::trusted),
        running_policy_id: policy.map(PolicyId::trusted),
        policy_revision: 1,
        hostname: "host".into(),
        last_checkin: Some(now),
        health: ReportedHealth { status: "online".into(), message: "Running".into(), unhealthy_reason: Vec::new() },
        status: Status::Online,
        first_address: "192.0.2.1".into(),
        last_address: "192.0.2.1".into(),
        inactivity_timeout: Some(Duration::from_secs(1_209_600)),
        ..bare_agent(id, now)
    }
}

/// Creates an online agent that enrolled at the start with key `ek`, and runs policy `p`.
pub fn agent() -> AgentRecord {
    AgentRecord {
        version: 3,
        credentials: LiveCredentials::one(LiveCredential {
            key_id: KeyId::trusted("access"),
            kind: CredentialKind::AccessKey,
            hash: SecretHash([7; 32]),
            issued_at: at(0),
            certificate: None,
        }),
        enrollment_key_id: Some(EnrollmentKeyId::trusted("ek")),
        status_deadline: Some(at(300).plus(Duration::from_micros(1))),
        ..online_agent("agent-1", Some("p"), at(0))
    }
}

/// Creates an enrollment key with this id and name, without policy, tags or limits.
pub fn key_of(id: &str, api_key: &ApiKey, now: Timestamp) -> EnrollmentKey {
    EnrollmentKey {
        id: EnrollmentKeyId::trusted(id),
        family: KeyFamily::Elastic,
        name: id.to_owned(),
        key_id: api_key.id.clone(),
        hash: api_key.hash(),
        sealed_token: None,
        policy_id: None,
        tags: Vec::new(),
        space: SpaceId::default(),
        created_at: now,
        expires_at: None,
        revoked_at: None,
        max_uses: None,
        one_time: None,
        uses: 0,
        last_used_at: None,
        hidden: false,
        created_by: "system".into(),
    }
}

/// Creates an enrollment key for policy `p` with the tag `keyed`.
pub fn enrollment_key() -> EnrollmentKey {
    EnrollmentKey {
        name: "Default".into(),
        key_id: KeyId::trusted("enroll"),
        hash: SecretHash([9; 32]),
        policy_id: Some(PolicyId::trusted("p")),
        tags: vec!["keyed".into()],
        ..key_of("ek", &api_key(), at(0))
    }
}

/// Creates an empty policy at revision 1, with its id as name and no timeouts.
pub fn policy(id: &str, now: Timestamp) -> Policy {
    Policy {
        id: PolicyId::trusted(id),
        space: SpaceId::default(),
        name: id.to_owned(),
        namespace: "default".into(),
        description: String::new(),
        revision: 1,
        is_managed: false,
        is_default: false,
        inactivity_timeout: 0,
        unenroll_timeout: None,
        config: json!({}),
        secrets: Vec::new(),
        fields: json!({}),
        recovery_code_hash: None,
        updated_by: "system".into(),
        created_at: now,
        updated_at: now,
    }
}

/// Creates a network object with the only field that its kind requires. Its name is its id.
pub fn network_object(kind: NetworkObjectKind, id: &str) -> NetworkObject {
    let fields = match kind {
        NetworkObjectKind::ServerHost => json!({"host_urls": ["https://fleet:8220"]}),
        NetworkObjectKind::Proxy => json!({"url": "http://proxy:3128"}),
        NetworkObjectKind::DownloadSource => json!({"host": "https://mirror/"}),
    };
    NetworkObject {
        id: NetworkObjectId::trusted(id),
        kind,
        space: SpaceId::default(),
        name: id.to_owned(),
        is_default: false,
        fields,
        created_at: at(0),
        updated_at: at(0),
    }
}

/// Creates an output, which is the default for both kinds of data if `is_default`.
pub fn output_of(id: &str, kind: &str, is_default: bool, fields: Value) -> Output {
    Output {
        id: OutputId::trusted(id),
        space: SpaceId::default(),
        name: format!("Output {id}"),
        kind: kind.to_owned(),
        is_default,
        is_default_monitoring: is_default,
        fields,
        created_at: at(0),
        updated_at: at(0),
    }
}

/// Creates a compiled revision without inputs and outputs.
pub fn revision(id: &str, revision: i64, now: Timestamp) -> PolicyRevision {
    PolicyRevision {
        policy_id: PolicyId::trusted(id),
        revision,
        created_at: now,
        created_by: "system".into(),
        source: Value::Null,
        compiled: json!({"id": id, "revision": revision, "outputs": {}, "inputs": []}),
    }
}

/// Creates an action for one agent, without data, start time or expiration.
pub fn action(id: &str, kind: ActionType, now: Timestamp) -> Action {
    Action {
        seq: 0,
        id: ActionId::trusted(id),
        space: SpaceId::default(),
        kind,
        created_at: now,
        expiration: None,
        start_time: None,
        rollout_seconds: None,
        timeout: None,
        input_type: String::new(),
        data: None,
        signed: None,
        total: 1,
        created_by: "system".into(),
        cancelled_at: None,
    }
}

/// A pack with one query, which runs every minute on all hosts.
pub fn pack(name: &str, query: &str) -> Pack {
    Pack {
        id: PackId::trusted(name),
        version: 1,
        name: name.into(),
        description: String::new(),
        platforms: Vec::new(),
        labels: Vec::new(),
        document: json!({"queries": {query: {"query": "SELECT 1", "interval": 60}}}),
    }
}
