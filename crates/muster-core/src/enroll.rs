//! How an agent comes into the fleet, decided purely (EA §3).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::agent::{AgentDocuments, AgentRecord, AgentType, Family, ReportedHealth, UpgradeState};
use crate::assignment::{AssignmentRules, HostFacts};
use crate::credential::{ApiKey, CredentialKind, LiveCredential, LiveCredentials};
use crate::denial::Denial;
use crate::documents::metadata;
use crate::enrollment_key::EnrollmentKey;
use crate::error::{Error, ErrorKind};
use crate::host::{self, Host};
use crate::id::{AgentId, HostId, PolicyId, SpaceId};
use crate::reported;
use crate::status::{self, Status};
use crate::time::Timestamp;

/// Most tags of an agent, and the longest one in bytes.
const MOST_TAGS: usize = 256;
const LONGEST_TAG: usize = 256;
/// Longest replace token and enrollment id, bytes.
const LONGEST_TOKEN: usize = 1024;

/// What an agent asks for, in the fleet's own terms.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// Which program asks.
    pub family: Family,
    /// What the operating system calls the machine; empty: it does not say.
    pub machine_id: &'a str,
    /// The id that the host's agent had before, here or elsewhere; empty: none.
    pub former_id: &'a str,
    /// Permanent, ephemeral or temporary.
    pub kind: AgentType,
    /// The id that it wants; empty: any.
    pub id: &'a str,
    /// The handle that makes a repeated request the same one; empty: none.
    pub enrollment_id: &'a str,
    /// The secret that lets the record be replaced; empty: none.
    pub replace_token: &'a str,
    /// Its own tags.
    pub tags: &'a [String],
    /// Host and agent facts, JSON text: an object, or `null`.
    pub metadata: &'a str,
}

/// A request that was checked.
#[derive(Clone)]
pub struct Applicant {
    /// Which program it is.
    pub family: Family,
    /// What the operating system calls its machine.
    pub machine_id: Option<String>,
    /// The id that the host's agent had before, as it says.
    pub former_id: Option<AgentId>,
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
    /// The stored host of the agent's machine id, in the key's space; else the one of its former id, as
    /// [`Applicant::is_of_host`] has it.
    pub host: Option<&'a Host>,
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
    /// A new id, for a machine that is not known yet.
    pub host_id: HostId,
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
    /// The agent's machine, to be put where it is not there; `None`: it stays what it was.
    pub host: Option<Host>,
}

fn bad_request(reason: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, "bad_enrolment", reason.to_string())
}

/// All refusals look the same (EA §3.4).
fn not_replaceable(internal: &str) -> Error {
    Error::from(Denial::NotReplaceable).for_log(internal)
}

impl Applicant {
    /// Checks a request (D1).
    pub fn read(request: &Request<'_>) -> Result<Self, Error> {
        let token = given(request.replace_token).map(|token| bounded("replace_token", token)).transpose()?;
        let handle = given(request.enrollment_id).map(|handle| bounded("enrollment_id", handle)).transpose()?;
        Ok(Self {
            family: request.family,
            machine_id: host::machine_id(request.machine_id),
            // One that can't be an id is none: a word about the past must keep nobody out.
            former_id: given(request.former_id).and_then(|id| AgentId::parse(id).ok()),
            kind: request.kind,
            id: given(request.id).map(AgentId::propose).transpose().map_err(bad_request)?,
            enrollment_id: handle.map(str::to_owned),
            replace_token: token.map(|token| Zeroizing::new(token.to_owned())),
            tags: clean_tags(request.tags.iter())?,
            metadata: read_metadata(request.metadata)?,
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
        let (host_id, host) = self.host(&admitted.host_id, circumstances, now);
        let mut record = match (life, circumstances.by_id) {
            (Life::Continued, Some(stored)) => self.continued(stored, admitted, circumstances, now),
            (_, stored) => {
                let fresh = self.fresh(admitted, circumstances, now);
                started(fresh, stored.map_or(0, |stored| stored.version), now)
            }
        };
        record.host_id = Some(host_id);
        let local = self.metadata_for(&id);
        let components = (life == Life::Next).then(|| Arc::from("[]"));
        let discard = self.abandoned(circumstances).map(|abandoned| abandoned.id.clone()).filter(|old| *old != id);
        Enrolled { record, documents: AgentDocuments { local_metadata: Some(local), components }, life, discard, host }
    }

    /// Whether the host of the agent's former id is its own. Machine ids that differ say that it is not: an image with
    /// an agent in it was cloned.
    pub fn is_of_host(&self, former: &Host, space: &SpaceId) -> bool {
        let differ = self.machine_id.is_some() && former.machine_id.is_some() && self.machine_id != former.machine_id;
        former.space == *space && !differ
    }

    /// The machine that the agent belongs to: the one of its machine id or of its former id, else the one that its
    /// record was on before, else a new one.
    fn host(&self, new: &HostId, circumstances: &Circumstances<'_>, now: Timestamp) -> (HostId, Option<Host>) {
        let before =
            circumstances.by_id.filter(|_| self.machine_id.is_none()).and_then(|stored| stored.host_id.as_ref());
        if let Some(known) = circumstances.host {
            // Put again: it may go with an agent that is discarded.
            return (known.id.clone(), Some(known.clone()));
        }
        if let Some(before) = before {
            return (before.clone(), None);
        }
        let host = Host {
            id: new.clone(),
            space: circumstances.key.space.clone(),
            machine_id: self.machine_id.clone(),
            hostname: self.hostname(),
            created_at: now,
        };
        (new.clone(), Some(host))
    }

    fn fresh(&self, admitted: Admitted<'_>, circumstances: &Circumstances<'_>, now: Timestamp) -> AgentRecord {
        let Admitted { id, access_key, placement, token_hash, .. } = admitted;
        AgentRecord {
            version: 0,
            family: self.family,
            host_id: None,
            former_id: self.former_id_of(&id),
            id,
            kind: self.kind,
            active: true,
            credentials: credentials(access_key, now),
            enrollment_key_id: Some(circumstances.key.id.clone()),
            enrollment_id: self.enrollment_id.clone(),
            replace_token: token_hash,
            enrolled_at: now,
            updated_at: now,
            policy_id: placement.policy_id,
            target_revision: None,
            running_policy_id: None,
            policy_revision: 0,
            policy_failure: None,
            duplicate_hosts: None,
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
            family: self.family,
            // The old ones end: whoever replaces the record may not be who holds them.
            credentials: credentials(admitted.access_key, now),
            enrollment_key_id: Some(circumstances.key.id.clone()),
            policy_revision: 0,
            policy_failure: None,
            // The new key is this host's alone.
            duplicate_hosts: None,
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
            upgrade: stored.upgrade.reinstalled(),
            last_address: circumstances.address.to_owned(),
            ..stored.clone()
        };
        status::finish(stored, next, Some(now), now)
    }

    /// The former id, if it is another one than the agent gets now.
    fn former_id_of(&self, id: &AgentId) -> Option<AgentId> {
        self.former_id.clone().filter(|former| former != id)
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

fn credentials(key: &ApiKey, now: Timestamp) -> LiveCredentials {
    LiveCredentials::one(LiveCredential::of(key, CredentialKind::AccessKey, now))
}

/// A record at the beginning of a life.
fn started(mut record: AgentRecord, version_before: i64, now: Timestamp) -> AgentRecord {
    status::transition(&mut record, None, now);
    record.version = version_before + 1;
    record
}

/// An empty text is none (EA27).
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn bounded<'a>(field: &str, text: &'a str) -> Result<&'a str, Error> {
    if text.len() <= LONGEST_TOKEN {
        Ok(text)
    } else {
        Err(bad_request(format!("{field} is {} bytes long; at most {LONGEST_TOKEN}", text.len())))
    }
}

fn read_metadata(raw: &str) -> Result<Arc<str>, Error> {
    let raw = if raw.is_empty() { "null" } else { raw };
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
