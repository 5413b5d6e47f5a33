//! Conversion of domain records to the API's types.

use muster_core::agent::{AgentDetails, AgentType};
use muster_core::credential::{Credential, CredentialKind};
use muster_core::duplicate_hosts::{self, HostMark, ReenrollmentState};
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::output_key::OutputKey;
use muster_core::reported::shortened_to;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_protocol::management::agent::{
    Agent, AgentCredential, AgentOutput, AgentVersion, Departure, DuplicateHosts, PolicyFailure, Reenrollment,
};
use muster_protocol::management::{AgentStatusResults, Json, enrollment_key};
use serde_json::{Value, json};

use muster_fleet::agent_views::AgentView;

/// Formats a time as RFC 3339 with milliseconds.
pub fn time(at: Timestamp) -> String {
    at.to_rfc3339_millis()
}

/// Formats a time, if there is one.
pub fn times(at: Option<Timestamp>) -> Option<String> {
    at.map(time)
}

/// Parses a document that the server stored. An invalid one, which the store does not accept, becomes `null`.
pub fn document(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

/// Converts a document that an agent reported. It is passed on as text: parsed into a tree, a small document may take
/// gigabytes.
pub fn reported(text: Option<&str>) -> Json {
    text.and_then(Json::parse).unwrap_or_default()
}

/// Maximum length of an agent's message in lists, bytes.
const ROW_MESSAGE_BYTES: usize = 256;
/// Maximum length of metadata in lists, bytes. Longer metadata is reduced to the host name.
const ROW_METADATA_BYTES: usize = 32 << 10;

/// Converts an agent to a row of a list. A page may have thousands of rows, so long texts are shortened; details show
/// them in full.
pub fn agent_row(mut view: AgentView) -> Agent {
    let AgentDetails { record, documents } = &mut view.details;
    record.health.message = shortened_to(&record.health.message, ROW_MESSAGE_BYTES).into_owned();
    if documents.local_metadata.as_ref().is_some_and(|text| text.len() > ROW_METADATA_BYTES) {
        // Tables show the host name from the metadata, so it must survive.
        let name = json!({"host": {"hostname": record.hostname}});
        documents.local_metadata = Some(name.to_string().into());
    }
    agent(view)
}

/// Converts an enrollment key, with its token if the caller may see it.
pub fn key(key: EnrollmentKey, token: Option<String>, now: Timestamp) -> enrollment_key::EnrollmentKey {
    enrollment_key::EnrollmentKey {
        // Evaluated now: a key also becomes inactive by expiring and by being used up, without a write.
        active: key.admits(now).is_ok(),
        id: key.id.to_string(),
        api_key_id: key.key_id.to_string(),
        api_key: token,
        family: key.family.as_str().into(),
        name: key.name,
        policy_id: key.policy_id.map(|id| id.to_string()),
        created_at: time(key.created_at),
        created_by: key.created_by,
        expire_at: times(key.expires_at),
        revoked_at: times(key.revoked_at),
        tags: key.tags,
        max_uses: key.max_uses,
        one_time: key.one_time.map(|one_time| enrollment_key::OneTime {
            hardware_uuid: one_time.uuid,
            serial: one_time.serial,
            orbit_used_at: times(one_time.orbit_used_at),
            osquery_used_at: times(one_time.osquery_used_at),
        }),
        uses: key.uses,
        last_used_at: times(key.last_used_at),
        hidden: key.hidden,
        retrievable: key.sealed_token.is_some(),
        namespaces: vec![key.space.to_string()],
    }
}

/// Converts an agent.
pub fn agent(view: AgentView) -> Agent {
    let AgentView { details, last_checkin, connected, credentials, output_keys } = view;
    let (record, documents) = (details.record, details.documents);
    // Stored as the agent sent it (EA51); the API uses lower case.
    let said = Some(record.health.status).filter(|status| !status.is_empty());
    Agent {
        kind: kind_word(record.kind).into(),
        family: record.family.as_str().into(),
        host_id: record.host_id.map(|id| id.to_string()),
        former_id: record.former_id.map(|id| id.to_string()),
        active: record.active,
        status: record.status.as_str().into(),
        status_since: time(record.status_since),
        connected,
        enrolled_at: time(record.enrolled_at),
        unenrolled_at: times(record.unenrolled_at),
        unenrolled_reason: record.unenrolled_reason,
        unenrollment_started_at: times(record.unenrollment_started_at),
        audit_unenrolled_reason: record.audit.map(|report| report.reason.as_str().into()),
        audit_unenrolled_time: record.audit.map(|report| time(report.at)),
        audit_departure: record.departure.map(|departure| departed(*departure)),
        upgrade_started_at: times(record.upgrade.started_at),
        upgraded_at: times(record.upgrade.upgraded_at),
        upgrade_details: record.upgrade.details.as_deref().map(|text| reported(Some(text))),
        // Wrapped as text too, in the shape that the agent reported.
        upgrade: record.upgrade.rollbacks.as_deref().and_then(|text| Json::parse(format!(r#"{{"rollbacks":{text}}}"#))),
        access_api_key_id: record.credentials.first(CredentialKind::AccessKey).map(|key| key.key_id.to_string()),
        credentials: credentials.map(|all| all.iter().map(credential).collect()),
        outputs: output_keys.filter(|keys| !keys.is_empty()).map(|keys| keys.into_iter().map(output_key).collect()),
        enrollment_key_id: record.enrollment_key_id.map(|id| id.to_string()),
        policy_id: record.policy_id.map(|id| id.to_string()),
        // 0 means that the agent has not confirmed a revision yet.
        policy_revision: Some(record.policy_revision).filter(|revision| *revision > 0),
        target_revision: record.target_revision,
        policy_failure: record
            .policy_failure
            .map(|failed| PolicyFailure { revision: failed.revision, reason: failed.reason }),
        last_checkin: times(last_checkin),
        last_checkin_status: said.map(|status| status.to_lowercase()),
        // The last message of an unenrolled agent, "Running", would contradict its status.
        last_checkin_message: Some(record.health.message).filter(|message| record.active && !message.is_empty()),
        unhealthy_reason: Some(record.health.unhealthy_reason).filter(|reasons| !reasons.is_empty()),
        components: documents.components.as_deref().map(|text| reported(Some(text))),
        local_metadata: reported(documents.local_metadata.as_deref()),
        user_provided_metadata: reported(Some(record.user_metadata.as_deref().unwrap_or("{}"))),
        duplicate_hosts: record.duplicate_hosts.map(|known| duplicate_hosts(*known)),
        tags: record.tags,
        agent: AgentVersion { id: record.id.to_string(), version: record.agent_version },
        newer_than_tested: record.newer_than_tested,
        // Kibana's name for spaces. An object belongs to exactly one here.
        namespaces: vec![record.space.to_string()],
        first_address: record.first_address,
        last_address: record.last_address,
        packages: Vec::new(),
        id: record.id.to_string(),
    }
}

fn departed(departure: muster_core::agent::Departure) -> Departure {
    let muster_core::agent::Departure { user, uid, process, why, new_url } = departure;
    Departure { user, uid, process, why, new_url }
}

fn output_key(key: OutputKey) -> (String, AgentOutput) {
    let output = AgentOutput {
        kind: "elasticsearch".into(),
        api_key_id: key.issued.map(|issued| issued.id.to_string()),
        policy_permissions_hash: key.permissions_hash,
        failure: key.failure.map(|failure| failure.reason),
    };
    (key.output, output)
}

fn credential(credential: &Credential) -> AgentCredential {
    AgentCredential {
        id: credential.key_id.to_string(),
        kind: match credential.kind {
            CredentialKind::AccessKey => "access_key",
            CredentialKind::NodeKey => "node_key",
            CredentialKind::DeviceToken => "device_token",
        }
        .into(),
        created_at: time(credential.created_at),
        last_used_at: times(credential.last_used_at),
        revoked_at: times(credential.revoked_at),
    }
}

fn duplicate_hosts(known: duplicate_hosts::DuplicateHosts) -> DuplicateHosts {
    // Only fingerprints are stored of hosts that are not in the list any more.
    let named = |mark: &HostMark| {
        let host = known.hosts.iter().find(|host| HostMark::of(host) == *mark);
        host.map_or_else(|| mark.as_str().to_owned(), Clone::clone)
    };
    let reenrollment = |one: &duplicate_hosts::Reenrollment| {
        let (state, action) = match &one.state {
            ReenrollmentState::Pending { action, .. } => ("pending", Some(action.to_string())),
            ReenrollmentState::Answered { .. } => ("answered", None),
            ReenrollmentState::ByHand => ("by_hand", None),
            ReenrollmentState::Over => ("over", None),
        };
        Reenrollment { host: named(&one.host), at: time(one.at), state: state.into(), action_id: action }
    };
    DuplicateHosts {
        keeper: named(&known.keeper),
        reenrollments: known.reenrollments.iter().map(reenrollment).collect(),
        since: time(known.since),
        last: time(known.last),
        hosts: known.hosts,
    }
}

fn kind_word(kind: AgentType) -> &'static str {
    match kind {
        AgentType::Permanent => "PERMANENT",
        AgentType::Ephemeral => "EPHEMERAL",
        AgentType::Temporary => "TEMPORARY",
    }
}

/// Groups counts by status as Kibana does (MG §3.6).
pub fn status_results(counts: &[(Status, u64)]) -> AgentStatusResults {
    let of = |wanted: &[Status]| counts.iter().filter(|(status, _)| wanted.contains(status)).map(|(_, n)| n).sum();
    let all = of(&Status::ALL);
    // `active` excludes both; `all` includes them.
    let (inactive, unenrolled): (u64, u64) = (of(&[Status::Inactive]), of(&[Status::Unenrolled]));
    AgentStatusResults {
        online: of(&[Status::Online]),
        error: of(&[Status::Error, Status::Degraded]),
        degraded: of(&[Status::Degraded]),
        offline: of(&[Status::Offline]),
        uninstalled: of(&[Status::Uninstalled]),
        orphaned: of(&[Status::Orphaned]),
        updating: of(&[Status::Updating, Status::Enrolling, Status::Unenrolling]),
        enrolling: of(&[Status::Enrolling]),
        unenrolling: of(&[Status::Unenrolling]),
        inactive,
        unenrolled,
        active: all - unenrolled - inactive,
        all,
        // Always zero in Kibana as well; clients expect the fields.
        other: 0,
        events: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mg55_mg54_statuses_are_counted_by_group() {
        let counts: Vec<(Status, u64)> = Status::ALL.into_iter().zip(1..).collect();
        let found = status_results(&counts);
        assert_eq!(
            (found.unenrolled, found.inactive, found.uninstalled, found.orphaned, found.offline),
            (1, 2, 3, 4, 5)
        );
        assert_eq!((found.updating, found.enrolling, found.unenrolling), (6 + 7 + 8, 7, 8));
        assert_eq!(found.error, 9 + 10);
        assert_eq!((found.online, found.all, found.active), (11, 66, 63));
    }
}
