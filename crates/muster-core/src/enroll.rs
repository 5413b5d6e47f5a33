//! How an agent comes into the fleet, decided purely (EA §3).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use muster_protocol::elastic::enroll::{EnrollRequest, EnrolledItem};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::agent::{AccessKey, AgentDocuments, AgentRecord, AgentType, ReportedHealth, UpgradeState};
use crate::assignment::{AssignmentRules, HostFacts};
use crate::credential::ApiKey;
use crate::documents::metadata;
use crate::enrollment_key::EnrollmentKey;
use crate::error::{Error, ErrorKind};
use crate::id::{AgentId, PolicyId};
use crate::reported;
use crate::status::{self, Status};
use crate::time::Timestamp;

/// Most tags of an agent, and the longest one in bytes.
const MOST_TAGS: usize = 256;
const LONGEST_TAG: usize = 256;
/// Longest replace token and enrollment id, bytes.
const LONGEST_TOKEN: usize = 1024;

/// A request that is one: what the agent asks for.
#[derive(Clone)]
pub struct Applicant {
    /// Permanent, ephemeral or temporary.
    pub kind: AgentType,
    /// The id it wants.
    pub id: Option<AgentId>,
    /// The handle that makes a repeated request the same one.
    pub enrollment_id: Option<String>,
    replace_token: Option<Zeroizing<String>>,
    tags: Vec<String>,
    /// As it was sent: a JSON object, or `null`.
    metadata: Arc<str>,
}

impl fmt::Debug for Applicant {
    /// Leaves the token out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applicant").field("kind", &self.kind).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Which policy and tags the agent gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The policy; `None`: none is assigned.
    pub policy_id: Option<PolicyId>,
    /// Its own tags, the key's and the rule's, each once.
    pub tags: Vec<String>,
    /// That policy's inactivity timeout.
    pub inactivity_timeout: Option<Duration>,
}

/// What stands around an enrolment.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The key that admits.
    pub key: &'a EnrollmentKey,
    /// Version from the User-Agent, normalised (EA33).
    pub agent_version: &'a str,
    /// Above what this server was tested with.
    pub newer_than_tested: bool,
    /// The agent's address.
    pub address: &'a str,
    /// The stored agent of the wanted id.
    pub by_id: Option<&'a AgentRecord>,
    /// The newest stored agent with the same enrollment id.
    pub by_enrollment_id: Option<&'a AgentRecord>,
}

/// What an enrolment is to the stored record of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// There is none.
    First,
    /// The stored life ended, or never began: the record starts anew and inherits no orders (EA42, D14).
    Next,
    /// The replace token opens it: the record goes on under a new key (EA41).
    Continued,
}

/// What the caller made and looked up once the kind of life was known.
#[derive(Clone, Debug)]
pub struct Admitted<'a> {
    /// What the enrolment is to the stored record.
    pub life: Life,
    /// The wanted id, or a new one.
    pub id: AgentId,
    /// The agent's new key.
    pub access_key: &'a ApiKey,
    /// Its policy and tags.
    pub placement: Placement,
    /// Hash of the request's replace token; needed for a first or next life.
    pub token_hash: Option<String>,
}

/// A decided enrolment.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The record to store; its version is 1 for a first life, else one more than the stored one's.
    pub record: AgentRecord,
    /// Its documents.
    pub documents: AgentDocuments,
    /// Whether it is inserted, or takes the stored record's place.
    pub life: Life,
    /// An abandoned agent of the same enrollment id, to be deleted (EA47).
    pub discard: Option<AgentId>,
}

fn bad_request(reason: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, "BadRequest", format!("Bad request: {reason}"))
}

/// All refusals look the same (EA §3.4).
fn not_replaceable(internal: &str) -> Error {
    Error::new(ErrorKind::Forbidden, "AgentNotReplaceable", "existing agent cannot be replaced").for_log(internal)
}

impl Applicant {
    /// Checks a request: 400 `BadRequest` for what can't be one (D1).
    pub fn read(request: &EnrollRequest<'_>) -> Result<Self, Error> {
        Ok(Self {
            kind: agent_type(&request.kind)?,
            id: given(request.id.as_deref()).map(AgentId::parse).transpose().map_err(bad_request)?,
            enrollment_id: given(request.enrollment_id.as_deref()).map(bounded).transpose()?.map(str::to_owned),
            replace_token: given(request.replace_token.as_deref())
                .map(bounded)
                .transpose()?
                .map(|token| Zeroizing::new(token.to_owned())),
            tags: clean_tags(request.metadata.tags.iter().flatten())?,
            metadata: read_metadata(request.metadata.local)?,
        })
    }

    /// The token that lets the record be replaced, now or later.
    pub fn replace_token(&self) -> Option<&str> {
        self.replace_token.as_ref().map(|token| token.as_str())
    }

    /// Which policy and tags it gets: the key's, else those of the first rule that matches. The caller adds what is
    /// known of the policy.
    pub fn placement(&self, key: &EnrollmentKey, rules: &AssignmentRules, address: &str) -> Placement {
        let mut placement =
            Placement { policy_id: key.policy_id.clone(), tags: self.tags.clone(), ..Placement::default() };
        add_tags(&mut placement.tags, &key.tags);
        if placement.policy_id.is_none() {
            let facts = HostFacts::read(&self.metadata, &placement.tags, address);
            if let Some(rule) = rules.first_match(&facts) {
                placement.policy_id.clone_from(&rule.policy_id);
                add_tags(&mut placement.tags, &rule.tags);
            }
        }
        placement
    }

    /// What the enrolment is to the stored record; 403 `AgentNotReplaceable` when that lives (EA40).
    /// `token_fits` is asked, at most once, whether the request's token fits the stored hash: that is slow.
    pub fn life(
        &self,
        circumstances: &Circumstances<'_>,
        token_fits: &mut dyn FnMut(&str, &str) -> bool,
    ) -> Result<Life, Error> {
        let Some(stored) = circumstances.by_id else { return Ok(Life::First) };
        if !stored.active || self.abandoned(circumstances).is_some_and(|abandoned| abandoned.id == stored.id) {
            return Ok(Life::Next);
        }
        let hash = stored.replace_token.as_deref().ok_or_else(|| not_replaceable("no replace token is stored"))?;
        let token = self.replace_token().ok_or_else(|| not_replaceable("no replace token was sent"))?;
        if circumstances.key.policy_id.is_some() && circumstances.key.policy_id != stored.policy_id {
            return Err(not_replaceable("the enrollment key is for another policy"));
        }
        if token_fits(token, hash) { Ok(Life::Continued) } else { Err(not_replaceable("the replace token is wrong")) }
    }

    /// An agent of the same enrollment id that never checked in; one that did is left alone (EA §3.3).
    fn abandoned<'a>(&self, circumstances: &Circumstances<'a>) -> Option<&'a AgentRecord> {
        let same_key = |stored: &&AgentRecord| stored.enrollment_key_id.as_ref() == Some(&circumstances.key.id);
        circumstances.by_enrollment_id.filter(|stored| stored.last_checkin.is_none()).filter(same_key)
    }

    /// Decides the enrolment.
    pub fn enroll(&self, admitted: Admitted<'_>, circumstances: &Circumstances<'_>, now: Timestamp) -> Enrolled {
        let (life, id) = (admitted.life, admitted.id.clone());
        let record = match (life, circumstances.by_id) {
            (Life::Continued, Some(stored)) => self.continued(stored, admitted, circumstances, now),
            (_, stored) => {
                let fresh = self.fresh(admitted, circumstances, now);
                started(fresh, stored.map_or(0, |stored| stored.version), now)
            }
        };
        let local = self.metadata_for(&id);
        let components = (life == Life::Next).then(|| Arc::from("[]"));
        let discard = self.abandoned(circumstances).map(|abandoned| abandoned.id.clone()).filter(|old| *old != id);
        Enrolled { record, documents: AgentDocuments { local_metadata: Some(local), components }, life, discard }
    }

    fn fresh(&self, admitted: Admitted<'_>, circumstances: &Circumstances<'_>, now: Timestamp) -> AgentRecord {
        let Admitted { id, access_key, placement, token_hash, .. } = admitted;
        AgentRecord {
            id,
            version: 0,
            kind: self.kind,
            active: true,
            access_key: Some(stored_key(access_key)),
            enrollment_key_id: Some(circumstances.key.id.clone()),
            enrollment_id: self.enrollment_id.clone(),
            replace_token: token_hash,
            enrolled_at: now,
            updated_at: now,
            policy_id: placement.policy_id,
            running_policy_id: None,
            policy_revision: 0,
            action_position: -1,
            action_token: None,
            tags: placement.tags,
            space: circumstances.key.space.clone(),
            agent_version: circumstances.agent_version.to_owned(),
            newer_than_tested: circumstances.newer_than_tested,
            hostname: self.hostname(),
            last_checkin: None,
            health: ReportedHealth::default(),
            status: Status::Enrolling,
            status_since: now,
            status_deadline: None,
            audit: None,
            unenrollment_started_at: None,
            unenrolled_at: None,
            unenrolled_reason: None,
            upgrade: UpgradeState::default(),
            user_metadata: None,
            first_address: circumstances.address.to_owned(),
            last_address: circumstances.address.to_owned(),
            inactivity_timeout: placement.inactivity_timeout,
        }
    }

    /// What a replacement changes; the rest of the record goes on (EA §3.6).
    fn continued(
        &self,
        stored: &AgentRecord,
        admitted: Admitted<'_>,
        circumstances: &Circumstances<'_>,
        now: Timestamp,
    ) -> AgentRecord {
        let next = AgentRecord {
            access_key: Some(stored_key(admitted.access_key)),
            enrollment_key_id: Some(circumstances.key.id.clone()),
            policy_revision: 0,
            running_policy_id: None,
            tags: admitted.placement.tags,
            space: circumstances.key.space.clone(),
            agent_version: circumstances.agent_version.to_owned(),
            newer_than_tested: circumstances.newer_than_tested,
            hostname: self.hostname(),
            health: ReportedHealth::default(),
            audit: None,
            unenrolled_at: None,
            unenrolled_reason: None,
            upgrade: UpgradeState { upgraded_at: stored.upgrade.upgraded_at, ..UpgradeState::default() },
            last_address: circumstances.address.to_owned(),
            ..stored.clone()
        };
        status::finish(stored, next, Some(now), now)
    }

    fn hostname(&self) -> String {
        metadata::hostname(&self.metadata).unwrap_or_default()
    }

    /// `elastic.agent.id` becomes the assigned id where there is such a key (EA38).
    fn metadata_for(&self, id: &AgentId) -> Arc<str> {
        match metadata::with_agent_id(&self.metadata, id.as_str()) {
            Cow::Borrowed(_) => Arc::clone(&self.metadata),
            Cow::Owned(changed) => changed.into(),
        }
    }
}

fn stored_key(key: &ApiKey) -> AccessKey {
    AccessKey { id: key.id.clone(), hash: key.hash() }
}

/// A record at the beginning of a life.
fn started(mut record: AgentRecord, version_before: i64, now: Timestamp) -> AgentRecord {
    status::transition(&mut record, None, now);
    record.version = version_before + 1;
    record
}

impl Enrolled {
    /// The reply's item. `access_key` holds the secret, told this once.
    pub fn item(&self, access_key: &ApiKey) -> EnrolledItem {
        let mut tags = self.record.tags.clone();
        tags.sort_unstable();
        let local =
            self.documents.local_metadata.as_deref().and_then(|text| RawValue::from_string(text.to_owned()).ok());
        EnrolledItem {
            id: self.record.id.as_str().to_owned(),
            active: true,
            policy_id: self.record.policy_id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            kind: type_word(self.record.kind).to_owned(),
            enrolled_at: self.record.enrolled_at.to_rfc3339_seconds(),
            user_provided_metadata: None,
            local_metadata: local.filter(|raw| raw.get() != "null"),
            access_api_key_id: access_key.id.as_str().to_owned(),
            access_api_key: access_key.token(),
            status: "online".to_owned(),
            tags,
        }
    }
}

fn agent_type(word: &str) -> Result<AgentType, Error> {
    [AgentType::Permanent, AgentType::Ephemeral, AgentType::Temporary]
        .into_iter()
        .find(|kind| type_word(*kind) == word)
        .ok_or_else(|| bad_request("unknown enroll request type"))
}

fn type_word(kind: AgentType) -> &'static str {
    match kind {
        AgentType::Permanent => "PERMANENT",
        AgentType::Ephemeral => "EPHEMERAL",
        AgentType::Temporary => "TEMPORARY",
    }
}

/// An empty text is none (EA27).
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn bounded(text: &str) -> Result<&str, Error> {
    if text.len() <= LONGEST_TOKEN {
        Ok(text)
    } else {
        Err(bad_request(format!("a field is longer than {LONGEST_TOKEN} bytes")))
    }
}

fn read_metadata(local: Option<&RawValue>) -> Result<Arc<str>, Error> {
    let raw = local.map_or("null", RawValue::get);
    if raw != "null" && !raw.starts_with('{') {
        return Err(bad_request("metadata.local is not an object"));
    }
    let within = reported::check(raw, reported::METADATA_BYTES, reported::METADATA_NODES);
    within.map_err(|reason| bad_request(format!("metadata.local: {reason}")))?;
    Ok(raw.into())
}

fn clean_tags<'a>(tags: impl Iterator<Item = &'a String>) -> Result<Vec<String>, Error> {
    let mut clean = Vec::new();
    for tag in tags.filter(|tag| !tag.trim().is_empty()) {
        if tag.len() > LONGEST_TAG || tag.chars().any(char::is_control) {
            return Err(bad_request(format!("a tag has at most {LONGEST_TAG} bytes and no control characters")));
        }
        add_tags(&mut clean, [tag]);
        if clean.len() > MOST_TAGS {
            return Err(bad_request(format!("at most {MOST_TAGS} tags")));
        }
    }
    Ok(clean)
}

/// Adds tags that are not there yet (EA39).
pub(crate) fn add_tags<'a>(tags: &mut Vec<String>, more: impl IntoIterator<Item = &'a String>) {
    for tag in more {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
}

#[cfg(test)]
mod tests;
