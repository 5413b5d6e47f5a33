//! Decision on enrollments (EA §3).
//!
//! In order: [`Applicant::read`] validates the request, [`Applicant::life`] decides whether it may use its id, and
//! [`Applicant::enroll`] builds the record. The caller looks up and generates what is needed between these steps.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::agent::{AgentDocuments, AgentRecord, AgentType, Family, ReportedHealth, UpgradeState};
use crate::assignment::{AssignmentRules, HostFacts};
use crate::client_certificate::ClientCertificate;
use crate::credential::{ApiKey, LiveCredential, LiveCredentials};
use crate::denial::Denial;
use crate::documents::metadata;
use crate::enrollment_key::EnrollmentKey;
use crate::error::{Error, ErrorKind};
use crate::fleetd::details;
use crate::host::{self, Host};
use crate::id::{AgentId, HostId, PolicyId, SpaceId};
use crate::one_time::Hardware;
use crate::reported;
use crate::status::{self, Status};
use crate::time::Timestamp;

// Tags are in memory for every agent, and in every list.
/// Maximum number of tags of an agent, and maximum length of a tag, bytes.
const MAX_TAGS: usize = 256;
const MAX_TAG_BYTES: usize = 256;
/// Maximum length of a replace token and of an enrollment id, bytes.
const MAX_TOKEN_BYTES: usize = 1024;

/// Enrollment request, independent of the protocol.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// Family of the agent.
    pub family: Family,
    /// Machine id of the operating system; may be empty.
    pub machine_id: &'a str,
    /// Previous id of the host's agent, at this or another server; may be empty.
    pub former_id: &'a str,
    /// Permanent, ephemeral or temporary.
    pub kind: AgentType,
    /// Requested id; if empty, one is generated.
    pub id: &'a str,
    /// Idempotency handle; may be empty.
    pub enrollment_id: &'a str,
    /// Secret that authorizes replacing the record; may be empty.
    pub replace_token: &'a str,
    /// Tags that the agent requests.
    pub tags: &'a [String],
    /// Facts about the host and the agent, as JSON text: an object or `null`.
    pub metadata: &'a str,
    /// Client certificate of the connection.
    pub certificate: ClientCertificate,
    /// Identifiers of the hardware, which one-time secrets are bound to.
    pub hardware: Hardware<'a>,
}

/// A validated enrollment request.
#[derive(Clone)]
pub struct Applicant {
    /// Family of the agent.
    pub family: Family,
    /// Normalized machine id of the operating system.
    pub machine_id: Option<String>,
    /// Previous id of the host's agent, as reported.
    pub former_id: Option<AgentId>,
    /// Permanent, ephemeral or temporary.
    pub kind: AgentType,
    /// Requested id.
    pub id: Option<AgentId>,
    /// Idempotency handle.
    pub enrollment_id: Option<String>,
    replace_token: Option<Zeroizing<String>>,
    tags: Vec<String>,
    /// As sent: a JSON object or `null`.
    metadata: Arc<str>,
    certificate: ClientCertificate,
}

impl fmt::Debug for Applicant {
    /// Omits the replace token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applicant").field("kind", &self.kind).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Policy and tags of the new agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Assigned policy, if any.
    pub policy_id: Option<PolicyId>,
    /// Tags of the request, the key and the assignment rule, without duplicates.
    pub tags: Vec<String>,
    /// Inactivity timeout of the policy.
    pub inactivity_timeout: Option<Duration>,
}

/// Facts about an enrollment that the request does not contain.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Enrollment key.
    pub key: &'a EnrollmentKey,
    /// Normalized version from the User-Agent (EA33).
    pub agent_version: &'a str,
    /// Whether the version is newer than the newest tested one.
    pub newer_than_tested: bool,
    /// Remote address of the agent.
    pub address: &'a str,
    /// Stored agent with the requested id.
    pub by_id: Option<&'a AgentRecord>,
    /// Newest stored agent with the same enrollment id.
    pub by_enrollment_id: Option<&'a AgentRecord>,
    /// Stored host with the machine id in the key's space; otherwise the host of the former id, if
    /// [`Applicant::is_of_host`] allows it.
    pub host: Option<&'a Host>,
    /// Stored agent with the id [`Applicant::twin`].
    pub twin: Option<&'a AgentRecord>,
}

/// Relation of an enrollment to the stored record with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// There is no such record.
    First,
    /// The stored agent is unenrolled, or never checked in: the record is recreated, and inherits no actions (EA42,
    /// D14).
    Next,
    /// The replace token matches: the record continues with a new key (EA41).
    Continued,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "new",
            Self::Next => "reused",
            Self::Continued => "continued",
        })
    }
}

/// Values that the caller generated or looked up once [`Life`] was known.
#[derive(Clone, Debug)]
pub struct Admitted<'a> {
    /// Relation to the stored record.
    pub life: Life,
    /// Requested or generated id.
    pub id: AgentId,
    /// Generated id for a new host, used only if no host is found.
    pub host_id: HostId,
    /// New access key.
    pub access_key: &'a ApiKey,
    /// Policy and tags.
    pub placement: Placement,
    /// Hash of the replace token; ignored if the record continues, since it then keeps the stored hash.
    pub token_hash: Option<String>,
}

/// Outcome of an enrollment.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Record to store. Its version is 1 for a new record, otherwise the stored version plus 1.
    pub record: AgentRecord,
    /// Documents to store.
    pub documents: AgentDocuments,
    /// Whether to insert the record or replace the stored one.
    pub life: Life,
    /// Abandoned agent with the same enrollment id, which must be deleted (EA47).
    pub discard: Option<AgentId>,
    /// Host to insert if it does not exist; `None` if the agent stays on its host.
    pub host: Option<Host>,
}

fn bad_request(reason: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, "bad_enrollment", reason.to_string())
}

/// All rejections look the same to the agent, so that they reveal nothing about the stored record (EA §3.4). The reason
/// goes to the log only.
fn not_replaceable(internal: &str) -> Error {
    Error::from(Denial::NotReplaceable).caused_by(internal)
}

impl Applicant {
    /// Validates a request (D1).
    pub fn read(request: &Request<'_>) -> Result<Self, Error> {
        let token = non_empty(request.replace_token).map(|token| bounded("replace_token", token)).transpose()?;
        let handle = non_empty(request.enrollment_id).map(|handle| bounded("enrollment_id", handle)).transpose()?;
        Ok(Self {
            family: request.family,
            machine_id: host::machine_id(request.machine_id),
            // An invalid former id is ignored: optional information about the past must not prevent an enrollment.
            former_id: non_empty(request.former_id).and_then(|id| AgentId::parse(id).ok()),
            kind: request.kind,
            id: non_empty(request.id).map(AgentId::propose).transpose().map_err(bad_request)?,
            enrollment_id: handle.map(str::to_owned),
            // Wiped on drop: whoever knows the token can take over the host's record.
            replace_token: token.map(|token| Zeroizing::new(token.to_owned())),
            tags: clean_tags(request.tags.iter())?,
            metadata: read_metadata(request.metadata)?,
            certificate: request.certificate,
        })
    }

    /// Keeps facts that the stored metadata of an orbit have and this enrollment may lack (FL50).
    pub fn keep_facts(&mut self, stored: &str) {
        self.metadata = details::kept(&self.metadata, stored).into();
    }

    /// Returns the client certificate of the connection.
    pub const fn certificate(&self) -> ClientCertificate {
        self.certificate
    }

    /// Returns the secret that authorizes replacing the record, now or later.
    pub fn replace_token(&self) -> Option<&str> {
        self.replace_token.as_ref().map(|token| token.as_str())
    }

    /// Determines the policy and the tags: those of the key, or of the first matching rule if the key has no policy.
    /// The caller adds the inactivity timeout.
    pub fn placement(&self, key: &EnrollmentKey, rules: &AssignmentRules, address: &str) -> Placement {
        let mut placement =
            Placement { policy_id: key.policy_id.clone(), tags: self.tags.clone(), ..Placement::default() };
        add_tags(&mut placement.tags, &key.tags);
        // The rules see the key's tags too, so that a rule can depend on the key.
        if placement.policy_id.is_none() && self.family.runs_policies() {
            let facts = HostFacts::read(&self.metadata, &placement.tags, address);
            if let Some(rule) = rules.first_match(&facts) {
                placement.policy_id.clone_from(&rule.policy_id);
                add_tags(&mut placement.tags, &rule.tags);
            }
        }
        placement
    }

    /// Determines the relation to the stored record; the error is [`Denial::NotReplaceable`] if that agent is active
    /// and may not be replaced (EA40). `token_fits` compares the request's token with the stored hash. It is slow, so
    /// it is called last, and at most once.
    pub fn life(
        &self,
        circumstances: &Circumstances<'_>,
        token_fits: &mut dyn FnMut(&str, &str) -> bool,
    ) -> Result<Life, Error> {
        if circumstances.twin.is_some_and(|twin| self.is_bound_otherwise(twin)) {
            return Err(Denial::OtherCertificate.into());
        }
        // Without a stored record there is nothing to protect.
        let Some(stored) = circumstances.by_id else { return Ok(Life::First) };
        if self.family.is_one_per_machine() {
            return self.life_on_machine(stored, circumstances);
        }
        // An inactive record has no credentials left to protect; an abandoned one was created by the same client, whose
        // response got lost.
        if !stored.active || self.abandoned(circumstances).is_some_and(|abandoned| abandoned.id == stored.id) {
            return Ok(Life::Next);
        }
        let hash = stored.replace_token.as_deref().ok_or_else(|| not_replaceable("no replace token is stored"))?;
        let token = self.replace_token().ok_or_else(|| not_replaceable("no replace token was sent"))?;
        // Otherwise a key for one policy could take over hosts of another one.
        if circumstances.key.policy_id.is_some() && circumstances.key.policy_id != stored.policy_id {
            return Err(not_replaceable("the enrollment key is for another policy"));
        }
        // All cheap checks come before this one, so that a request that fails anyway can't occupy a thread with
        // hashing.
        if token_fits(token, hash) { Ok(Life::Continued) } else { Err(not_replaceable("the replace token is wrong")) }
    }

    /// Determines the life of an agent whose id follows from its machine: whoever may enroll may replace it (FL §2.4), since
    /// its programs have nothing else to prove that they are the same. In another space, it inherits nothing (FL51).
    fn life_on_machine(&self, stored: &AgentRecord, circumstances: &Circumstances<'_>) -> Result<Life, Error> {
        if stored.family != self.family {
            return Err(not_replaceable("the id belongs to an agent of another family"));
        }
        // The enroll secret is on many hosts. A bound key would be worthless if each of them could replace it.
        if self.is_bound_otherwise(stored) {
            return Err(Denial::OtherCertificate.into());
        }
        let is_same = stored.active && stored.space == circumstances.key.space;
        Ok(if is_same { Life::Continued } else { Life::Next })
    }

    /// Returns whether a stored agent is bound to another client certificate.
    fn is_bound_otherwise(&self, stored: &AgentRecord) -> bool {
        stored.active && !stored.credentials.iter().all(|held| self.certificate.permits(held.certificate))
    }

    /// Returns the id of the other program of fleetd on the machine, if certificates count: a host is bound to one, whichever of its programs
    /// enrolls first (FL148).
    pub fn twin(&self) -> Option<AgentId> {
        let other = match self.family {
            Family::Orbit => Family::Osquery,
            Family::Osquery => Family::Orbit,
            _ => return None,
        };
        let machine = self.machine_id.as_deref().filter(|_| self.certificate != ClientCertificate::Irrelevant)?;
        Some(host::agent_id(other, machine))
    }

    /// Returns an agent with the same enrollment id that never checked in. One that did is not touched (EA §3.3).
    fn abandoned<'a>(&self, circumstances: &Circumstances<'a>) -> Option<&'a AgentRecord> {
        // Enrollment ids are not secret: without this check, the holder of any key could delete pending agents.
        let same_key = |stored: &&AgentRecord| stored.enrollment_key_id.as_ref() == Some(&circumstances.key.id);
        circumstances.by_enrollment_id.filter(|stored| stored.last_checkin.is_none()).filter(same_key)
    }

    /// Builds the record.
    pub fn enroll(&self, admitted: Admitted<'_>, circumstances: &Circumstances<'_>, now: Timestamp) -> Enrolled {
        let (life, id) = (admitted.life, admitted.id.clone());
        // Before `admitted` is moved into the record.
        let (host_id, host) = self.host(&admitted.host_id, circumstances, now);
        let mut record = match (life, circumstances.by_id) {
            (Life::Continued, Some(stored)) => self.continued(stored, admitted, circumstances, now),
            (_, stored) => {
                let fresh = self.fresh(admitted, circumstances, now);
                // Versions go on from the stored record, also for a new life.
                started(fresh, stored.map_or(0, |stored| stored.version), now)
            }
        };
        record.host_id = Some(host_id);
        // Only now, because a generated id is part of the metadata (EA38).
        let local = self.metadata_for(&id);
        // Clears the components of the previous enrollment; `None` would keep them.
        let components = (life == Life::Next).then(|| Arc::from("[]"));
        let discard = self.abandoned(circumstances).map(|abandoned| abandoned.id.clone()).filter(|old| *old != id);
        Enrolled { record, documents: AgentDocuments { local_metadata: Some(local), components }, life, discard, host }
    }

    /// Returns whether the agent may join the host of its former id. If both have machine ids and these differ, it may
    /// not: an image with an enrolled agent was cloned.
    pub fn is_of_host(&self, former: &Host, space: &SpaceId) -> bool {
        let differ = self.machine_id.is_some() && former.machine_id.is_some() && self.machine_id != former.machine_id;
        former.space == *space && !differ
    }

    /// Returns the [`host::system_id`] of the machine id with which the agent enrolls; `None` if that is one of the hardware.
    pub fn system_id(&self) -> Option<String> {
        self.machine_id.as_deref().filter(|_| !self.family.is_one_per_machine()).map(host::system_id)
    }

    /// Selects the agent's host: the one with its machine id or of its former id, else the one of its stored record,
    /// else a new one.
    fn host(&self, new: &HostId, circumstances: &Circumstances<'_>, now: Timestamp) -> (HostId, Option<Host>) {
        let before =
            // Only without a machine id: a known machine decides by itself.
            circumstances.by_id.filter(|_| self.machine_id.is_none()).and_then(|stored| stored.host_id.as_ref());
        if let Some(known) = circumstances.host {
            // Insert it even though it was found: the host may be deleted with the discarded agent in the same commit.
            return (known.id.clone(), Some(known.clone()));
        }
        if let Some(before) = before {
            // The request names no machine, so the agent stays on the host of its stored record.
            return (before.clone(), None);
        }
        let host = Host {
            id: new.clone(),
            space: circumstances.key.space.clone(),
            machine_id: self.machine_id.clone(),
            hostname: self.hostname(),
            created_at: now,
            system_id: self.system_id(),
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
            node: None,
            id,
            kind: self.kind,
            active: true,
            credentials: self.credentials(access_key, now),
            enrollment_key_id: Some(circumstances.key.id.clone()),
            enrollment_id: self.enrollment_id.clone(),
            replace_token: token_hash,
            enrolled_at: now,
            updated_at: now,
            policy_id: placement.policy_id,
            target_revision: None,
            running_policy_id: None,
            policy_revision: 0,
            policy_revision_at: None,
            policy_failure: None,
            duplicate_hosts: None,
            action_position: -1,
            action_token: None,
            tags: placement.tags,
            space: circumstances.key.space.clone(),
            agent_version: circumstances.agent_version.to_owned(),
            newer_than_tested: circumstances.newer_than_tested,
            hostname: self.hostname(),
            os: metadata::os(&self.metadata),
            hardware: metadata::hardware(&self.metadata),
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
            first_address: circumstances.address.to_owned(),
            last_address: circumstances.address.to_owned(),
            inactivity_timeout: placement.inactivity_timeout,
            contact_interval: 0,
        }
    }

    /// Builds the record after a replacement; fields that are not listed are kept (EA §3.6).
    fn continued(
        &self,
        stored: &AgentRecord,
        admitted: Admitted<'_>,
        circumstances: &Circumstances<'_>,
        now: Timestamp,
    ) -> AgentRecord {
        let next = AgentRecord {
            family: self.family,
            // Revokes the old credentials: their holder may be another machine than the one that enrolls.
            credentials: self.credentials(admitted.access_key, now),
            enrollment_key_id: Some(circumstances.key.id.clone()),
            policy_revision: 0,
            policy_revision_at: None,
            policy_failure: None,
            // Only this host has the new key.
            duplicate_hosts: None,
            // A reinstalled agent runs no policy yet.
            running_policy_id: None,
            tags: admitted.placement.tags,
            space: circumstances.key.space.clone(),
            agent_version: circumstances.agent_version.to_owned(),
            newer_than_tested: circumstances.newer_than_tested,
            hostname: self.hostname(),
            os: metadata::os(&self.metadata),
            hardware: metadata::hardware(&self.metadata),
            health: ReportedHealth::default(),
            audit: None,
            departure: None,
            // The UNENROLL that may have been on its way is for the former installation.
            unenrollment_started_at: None,
            unenrolled_at: None,
            unenrolled_reason: None,
            // An open upgrade continues: reinstalling may be how it was carried out.
            upgrade: stored.upgrade.reinstalled(),
            last_address: circumstances.address.to_owned(),
            ..stored.clone()
        };
        status::finish(stored, next, Some(now), now)
    }

    /// Returns the former id, unless it is the agent's own id.
    fn former_id_of(&self, id: &AgentId) -> Option<AgentId> {
        self.former_id.clone().filter(|former| former != id)
    }

    fn credentials(&self, key: &ApiKey, now: Timestamp) -> LiveCredentials {
        let certificate = self.certificate.binding();
        LiveCredentials::one(LiveCredential { certificate, ..LiveCredential::of(key, self.family.credential(), now) })
    }

    /// Returns the reported host name; empty if there is none.
    pub fn hostname(&self) -> String {
        metadata::hostname(&self.metadata).unwrap_or_default()
    }

    /// Returns the metadata with the assigned id in `elastic.agent.id`, if it has this key (EA38).
    fn metadata_for(&self, id: &AgentId) -> Arc<str> {
        match metadata::with_agent_id(&self.metadata, id.as_str()) {
            Cow::Borrowed(_) => Arc::clone(&self.metadata),
            Cow::Owned(changed) => changed.into(),
        }
    }
}

/// Finishes a new or recreated record. The version continues even when the record is recreated, so that a stale update
/// of the old record fails its precondition.
fn started(mut record: AgentRecord, version_before: i64, now: Timestamp) -> AgentRecord {
    status::transition(&mut record, None, now);
    record.version = version_before + 1;
    record
}

/// Treats an empty string as absent (EA27).
fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn bounded<'a>(field: &str, text: &'a str) -> Result<&'a str, Error> {
    if text.len() <= MAX_TOKEN_BYTES {
        Ok(text)
    } else {
        Err(bad_request(format!("{field} is {} bytes long; at most {MAX_TOKEN_BYTES}", text.len())))
    }
}

fn read_metadata(raw: &str) -> Result<Arc<str>, Error> {
    // The text is a validated JSON value without surrounding space, so its first byte tells its type.
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
        if tag.len() > MAX_TAG_BYTES || tag.chars().any(char::is_control) {
            return Err(bad_request(format!("a tag has at most {MAX_TAG_BYTES} bytes and no control characters")));
        }
        add_tags(&mut clean, [tag]);
        if clean.len() > MAX_TAGS {
            return Err(bad_request(format!("at most {MAX_TAGS} tags")));
        }
    }
    Ok(clean)
}

/// Adds tags without creating duplicates (EA39).
pub(crate) fn add_tags<'a>(tags: &mut Vec<String>, more: impl IntoIterator<Item = &'a String>) {
    for tag in more {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
}

#[cfg(test)]
mod tests;
