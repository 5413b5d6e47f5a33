//! A family of agents for tests. Each request is a JSON object. This is the whole adapter, which shows what a family
//! needs in order to use the services.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::acknowledge::{Ack, Acks, Subject};
use crate::agent::{AgentType, Family};
use crate::check_in::{Report, ReportedUpgrade};
use crate::enroll::Request;
use crate::id::ActionId;
use crate::poll::GoDuration;
use crate::raw_json::at;
use crate::time::Timestamp;
use crate::upgrade_details::UpgradeDetails;

/// Enrollment request of the test family.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Enrollment {
    // Field names follow Elastic's protocol where there is no reason for others, so that samples can be reused.
    #[serde(rename = "type")]
    kind: AgentType,
    id: String,
    enrollment_id: String,
    replace_token: String,
    machine_id: String,
    former_id: String,
    metadata: Facts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Facts {
    local: Option<Box<RawValue>>,
    tags: Vec<String>,
}

impl Enrollment {
    /// Parses a request.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).expect("an enrollment request of the test family")
    }

    /// Converts it to the core's request.
    pub fn request(&self) -> Request<'_> {
        Request {
            family: Family::Opamp,
            machine_id: &self.machine_id,
            former_id: &self.former_id,
            kind: self.kind,
            id: &self.id,
            enrollment_id: &self.enrollment_id,
            replace_token: &self.replace_token,
            tags: &self.metadata.tags,
            metadata: self.metadata.local.as_deref().map_or("null", RawValue::get),
            ..Request::default()
        }
    }
}

/// Check-in request of the test family.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct CheckIn {
    status: String,
    message: String,
    ack_token: String,
    local_metadata: Option<Box<RawValue>>,
    components: Option<Box<RawValue>>,
    upgrade_details: Option<Box<RawValue>>,
    upgrade: Option<Box<RawValue>>,
    agent_policy_id: Option<String>,
    policy_revision_idx: Option<i64>,
    poll_timeout: Option<String>,
}

impl CheckIn {
    /// Parses a request.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).expect("a check-in of the test family")
    }

    /// Converts it to the core's report.
    pub fn report(&self) -> Report<'_> {
        let raw = |document: &'_ Option<Box<RawValue>>| document.as_deref().map(|raw| raw.get().to_owned());
        let upgrade = raw(&self.upgrade_details).map(|details| {
            let details = serde_json::from_str::<UpgradeDetails>(&details).map_err(|error| error.to_string());
            let action_id = details.as_ref().map(|details| details.action_id.clone()).unwrap_or_default();
            ReportedUpgrade { action_id, details }
        });
        let rollbacks = raw(&self.upgrade).unwrap_or_else(|| "{}".into());
        // Absent clears the stored rollbacks; anything but an array is unreadable and keeps them (EA66).
        let rollbacks = match at(&rollbacks, &["rollbacks"]) {
            Some(list) => list.starts_with('[').then(|| Some(list.into())),
            None => Some(None),
        };
        Report {
            status: &self.status,
            message: &self.message,
            metadata: self.local_metadata.as_deref().map(RawValue::get),
            components: self.components.as_deref().map(RawValue::get),
            upgrade,
            rollbacks,
            running: self.agent_policy_id.as_deref().zip(self.policy_revision_idx),
            confirmed: &self.ack_token,
            poll_timeout: self.poll_timeout.as_deref().and_then(|text| GoDuration::parse(text).ok()),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AckEvent {
    action_id: String,
    agent_id: String,
    error: Option<String>,
    timestamp: Option<String>,
    retries: bool,
    fields: Option<Box<RawValue>>,
}

/// Parses a list of acks.
pub fn acks(text: &str) -> Acks<'static> {
    let events: Vec<AckEvent> = serde_json::from_str(text).expect("events of the test family");
    Acks(events.into_iter().map(ack).collect())
}

fn ack(event: AckEvent) -> Ack<'static> {
    let policy = event.action_id.strip_prefix("policy:");
    let subject = match policy {
        Some(rest) => Subject::Policy(
            rest.split_once(':').and_then(|(policy, revision)| Some((policy.to_owned(), revision.parse().ok()?))),
        ),
        None => Subject::Action(ActionId::parse(&event.action_id).ok()),
    };
    let fields = event.fields.map(|raw| Arc::<str>::from(raw.get()));
    Ack {
        subject,
        agent: Some(event.agent_id.into()),
        error: event.error.map(Cow::Owned),
        retries: event.retries,
        at: event.timestamp.and_then(|at| Timestamp::parse_rfc3339(&at).ok()),
        fields: Some(Box::new(move |_| fields.clone())),
    }
}
