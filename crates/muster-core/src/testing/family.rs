//! A family of agents that only tests have. Its wire form is a JSON object for each request; these lines are all of its
//! adapter, and what a family needs to speak to the fleet.

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

/// An enrolment.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Enrol {
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

impl Enrol {
    /// Reads one.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).expect("an enrolment of the test family")
    }

    /// As the fleet takes it.
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
        }
    }
}

/// A check-in.
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
    /// Reads one.
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).expect("a check-in of the test family")
    }

    /// As the fleet takes it.
    pub fn report(&self) -> Report<'_> {
        let raw = |document: &'_ Option<Box<RawValue>>| document.as_deref().map(|raw| raw.get().to_owned());
        let upgrade = raw(&self.upgrade_details).map(|details| {
            let details = serde_json::from_str::<UpgradeDetails>(&details).map_err(|error| error.to_string());
            let action_id = details.as_ref().map(|details| details.action_id.clone()).unwrap_or_default();
            ReportedUpgrade { action_id, details }
        });
        let rollbacks = raw(&self.upgrade).unwrap_or_else(|| "{}".into());
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
struct Answer {
    action_id: String,
    agent_id: String,
    error: Option<String>,
    timestamp: Option<String>,
    retries: bool,
    fields: Option<Box<RawValue>>,
}

/// Reads answers to actions: a list of them.
pub fn acks(text: &str) -> Acks<'static> {
    let answers: Vec<Answer> = serde_json::from_str(text).expect("answers of the test family");
    Acks(answers.into_iter().map(ack).collect())
}

fn ack(answer: Answer) -> Ack<'static> {
    let policy = answer.action_id.strip_prefix("policy:");
    let subject = match policy {
        Some(rest) => Subject::Policy(
            rest.split_once(':').and_then(|(policy, revision)| Some((policy.to_owned(), revision.parse().ok()?))),
        ),
        None => Subject::Action(ActionId::parse(&answer.action_id).ok()),
    };
    let fields = answer.fields.map(|raw| Arc::<str>::from(raw.get()));
    Ack {
        subject,
        agent: Some(answer.agent_id.into()),
        error: answer.error.map(Cow::Owned),
        retries: answer.retries,
        at: answer.timestamp.and_then(|at| Timestamp::parse_rfc3339(&at).ok()),
        fields: Some(Box::new(move |_| fields.clone())),
    }
}
