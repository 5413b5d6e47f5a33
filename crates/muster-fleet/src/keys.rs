//! The service of enrollment keys: create, list, reveal, revoke, delete, replace.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use muster_core::Entropy;
use muster_core::authorization::{
    AgentsRead, EnrollmentCreate, EnrollmentRead, EnrollmentReveal, EnrollmentRevoke, Grant, OpContext, Privilege,
    Scope,
};
use muster_core::change::Change;
use muster_core::credential::ApiKey;
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily, MAX_SECRETS, check_secret};
use muster_core::entropy::random_uuid;
use muster_core::event::of_revoked_key;
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::one_time::{DEFAULT_LIFE, OneTime, normalized};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Error, ErrorKind};
use muster_store::query::{Listed, Page, Readable};
use muster_store::{EnrollmentKeyWrite, Precondition, StoreError, Write};
use serde_json::json;

use super::audit::{audit_line, commit_disclosure};
use super::authority::{Authorized, System};
use super::moment::parse_end;
use super::secrets::SealedSecrets;
use super::tags::clean_tags;
use super::watched_store::WatchedStore;
use zeroize::Zeroizing;

/// Maximum length of a name in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Maximum number of ids in one look-up of names.
const MAX_NAMED: usize = 1000;

/// Properties of a new key.
#[derive(Clone, Debug, Default)]
pub struct NewEnrollmentKey {
    /// Agents that it is for.
    pub family: KeyFamily,
    /// The enroll secret; generated if absent. Only of [`KeyFamily::Fleetd`].
    pub secret: Option<Zeroizing<String>>,
    /// The policy of agents that enroll with it.
    pub policy_id: Option<String>,
    /// Display name; defaults to its id.
    pub name: Option<String>,
    /// Expiration: a duration, or a time in RFC 3339.
    pub expiration: Option<String>,
    /// Tags of agents that enroll with it.
    pub tags: Vec<String>,
    /// Maximum number of uses.
    pub max_uses: Option<i64>,
    /// For which host it is, if it is a one-time secret. Only of [`KeyFamily::Fleetd`].
    pub one_time: Option<OneTimeHost>,
    /// Whether bulk changes skip it.
    pub hidden: bool,
    /// Whether its token is stored sealed and can be revealed later.
    pub retrievable: bool,
}

/// The host that a one-time secret is for. Without an identifier, it is for the first one that uses it.
#[derive(Clone, Debug, Default)]
pub struct OneTimeHost {
    /// Hardware UUID.
    pub uuid: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
}

/// The service of enrollment keys.
pub struct EnrollmentKeys {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    secrets: Arc<SealedSecrets>,
}

impl EnrollmentKeys {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        secrets: Arc<SealedSecrets>,
    ) -> Self {
        Self { store, clock, entropy, secrets }
    }

    /// Finds a key in the caller's space.
    pub async fn find<P: Privilege>(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<Authorized<EnrollmentKey, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match EnrollmentKeyId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).enrollment_key(&id).await?,
            Err(_) => None,
        };
        let key = found.ok_or_else(|| Error::not_found("enrollment key", id))?;
        Ok(Authorized::new(key, grant))
    }

    /// Creates a key; returns it with its token.
    pub async fn create(
        &self,
        grant: &Grant<EnrollmentCreate>,
        new: &NewEnrollmentKey,
    ) -> Result<(EnrollmentKey, String), Error> {
        let (record, token, writes) = self.prepared(grant, new).await?;
        self.store.commit(grant, writes).await.map_err(not_created)?;
        Ok((record, token))
    }

    /// Returns a new key, its token, and what creates it.
    async fn prepared(
        &self,
        grant: &Grant<EnrollmentCreate>,
        new: &NewEnrollmentKey,
    ) -> Result<(EnrollmentKey, String, Vec<Write>), Error> {
        let now = self.clock.now();
        let policy_id = match &new.policy_id {
            Some(id) => Some(self.policy_for_key(grant, id).await?),
            // A key without a policy belongs to the space as a whole.
            None if *grant.scope() != Scope::Whole => {
                return Err(Error::new(
                    ErrorKind::Forbidden,
                    "forbidden",
                    "policy_id: your role applies to some policies only",
                )
                .remedy("specify one of these policies"));
            }
            None => None,
        };
        let id = EnrollmentKeyId::trusted(random_uuid(&*self.entropy));
        let key = self.new_key(new)?;
        let former = self.revoked_before(grant, new, &key).await?;
        // The secret is in this response, and sealed in the store only if it must be retrievable.
        let token = new.family.token(&key);
        let record = EnrollmentKey {
            family: new.family,
            name: key_name(new.name.as_deref(), &id)?,
            key_id: key.id.clone(),
            hash: key.hash(),
            // Sealed for this id: a value that is copied to another row cannot be opened.
            sealed_token: if new.retrievable { Some(self.secrets.seal_token(&id, &token)?) } else { None },
            policy_id,
            tags: clean_tags("tags", &new.tags)?,
            // Agents inherit the space from the key. It is the creator's own, so that nobody can enroll agents into a
            // space to which they have no access.
            space: grant.space().clone(),
            created_at: now,
            expires_at: match new.expiration.as_deref() {
                Some(text) => Some(parse_end("expiration", text, now)?),
                None => new.one_time.as_ref().map(|_| now.plus(DEFAULT_LIFE)),
            },
            revoked_at: None,
            max_uses: max_uses(new)?,
            one_time: one_time(new)?,
            uses: 0,
            last_used_at: None,
            hidden: new.hidden,
            created_by: grant.actor().to_string(),
            id,
        };
        let mut detail = json!({
            "name": record.name,
            "family": record.family.as_str(),
            "policy_id": record.policy_id,
            "tags": record.tags,
            "expires_at": record.expires_at.map(Timestamp::to_rfc3339_seconds),
            "max_uses": record.max_uses,
        });
        let mut writes: Vec<Write> = Vec::new();
        if let Some(id) = former {
            detail["formerly"] = json!(id);
            writes.extend([EnrollmentKeyWrite::Release { id: id.clone() }.into(), changed(&id)]);
        }
        writes.extend([
            Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(record.clone()))),
            changed(&record.id),
            audit_line(grant.origin(), now, "enrollment_key.create", subject(&record.id), detail),
        ]);
        Ok((record, token, writes))
    }

    /// Returns the revoked key of the grant's space that had a given secret: whoever still has the value can create it again, as with
    /// FleetDM, since hosts and installers may have it. Of other spaces, nothing is told.
    async fn revoked_before(
        &self,
        grant: &Grant<EnrollmentCreate>,
        new: &NewEnrollmentKey,
        key: &ApiKey,
    ) -> Result<Option<EnrollmentKeyId>, Error> {
        if new.secret.is_none() {
            return Ok(None);
        }
        let found = self.store.everywhere(&System).enrollment_key_by_key_id(&key.id).await?;
        let is_former = |known: &EnrollmentKey| {
            known.space == *grant.space()
                && known.revoked_at.is_some()
                && known.one_time.is_none()
                && key.matches(&known.hash)
        };
        Ok(found.filter(is_former).map(|known| known.id))
    }

    /// Creates enroll secrets and revokes others, all or none.
    pub async fn replace_secrets(
        &self,
        grant: &Grant<EnrollmentCreate>,
        new: Vec<Zeroizing<String>>,
        old: &[Authorized<EnrollmentKey, EnrollmentRevoke>],
    ) -> Result<(), Error> {
        // The revocations first: the new ones may need their room. Hosts see only the state after all of them.
        let mut writes: Vec<Write> = old.iter().flat_map(|key| self.revocation(key)).collect();
        for secret in new {
            let (family, secret) = (KeyFamily::Fleetd, Some(secret));
            let key = NewEnrollmentKey { family, secret, retrievable: true, ..NewEnrollmentKey::default() };
            writes.extend(self.prepared(grant, &key).await?.2);
        }
        self.store.commit(grant, writes).await.map(drop).map_err(not_created)
    }

    /// Returns the key of a new record: generated, or of the given enroll secret.
    fn new_key(&self, new: &NewEnrollmentKey) -> Result<ApiKey, Error> {
        if new.family == KeyFamily::Fleetd && new.policy_id.is_some() {
            return Err(Error::invalid("policy_id", "fleetd's agents have no policy"));
        }
        match &new.secret {
            None => Ok(new.family.generate(&*self.entropy)),
            Some(_) if new.family != KeyFamily::Fleetd => {
                Err(Error::invalid("secret", "only keys of the family fleetd can be created with an existing secret"))
            }
            Some(secret) => {
                check_secret(secret).map_err(|reason| Error::invalid("secret", reason))?;
                Ok(ApiKey::opaque(secret))
            }
        }
    }

    /// Returns a page of keys of one policy or of all, newest first.
    pub async fn list(
        &self,
        grant: &Grant<EnrollmentRead>,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, Error> {
        Ok(self.store.seen_by(grant).enrollment_keys(policy, page).await?)
    }

    /// Returns the names of keys, at most 1,000, for people who may see agents but no keys. Rights that cover agents by their tags
    /// reach no key.
    pub async fn names(
        &self,
        grant: &Grant<AgentsRead>,
        ids: &[EnrollmentKeyId],
    ) -> Result<HashMap<EnrollmentKeyId, String>, Error> {
        let seen = self.store.seen_by(grant);
        let mut names = HashMap::new();
        for id in ids.iter().take(MAX_NAMED) {
            if let Some(key) = seen.enrollment_key(id).await? {
                names.insert(key.id, key.name);
            }
        }
        Ok(names)
    }

    /// Returns a page of the one-time secrets, newest first.
    pub async fn list_one_time(
        &self,
        grant: &Grant<EnrollmentRead>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, Error> {
        Ok(self.store.seen_by(grant).one_time_secrets(page).await?)
    }

    /// Returns the keys after the one with this creation time and id, newest first, of one policy or of all.
    pub async fn list_after(
        &self,
        grant: &Grant<EnrollmentRead>,
        policy: Option<&PolicyId>,
        after: (Timestamp, &EnrollmentKeyId),
        limit: u32,
    ) -> Result<Readable<EnrollmentKey>, Error> {
        Ok(self.store.seen_by(grant).enrollment_keys_after(policy, after, limit).await?)
    }

    /// Returns a key with its token, if the key is retrievable; this is an audit event (M10).
    pub async fn reveal(
        &self,
        key: Authorized<EnrollmentKey, EnrollmentReveal>,
    ) -> Result<(EnrollmentKey, Option<String>), Error> {
        let Some(sealed) = &key.sealed_token else { return Ok((key.into_inner(), None)) };
        let token = self.secrets.open_token(&key.id, sealed)?;
        let line =
            audit_line(key.grant().origin(), self.clock.now(), "enrollment_key.reveal", subject(&key.id), json!({}));
        commit_disclosure(&self.store, key.grant(), vec![line]).await?;
        Ok((key.into_inner(), Some(token)))
    }

    /// Returns the tokens of the retrievable ones among these keys, as far as the grant reaches; an audit event for each.
    pub async fn reveal_listed(
        &self,
        grant: &Grant<EnrollmentReveal>,
        keys: &[EnrollmentKey],
    ) -> Result<BTreeMap<EnrollmentKeyId, String>, Error> {
        // Events for all of them in one commit: either everything is recorded, or nothing is shown.
        let (seen, now) = (self.store.seen_by(grant), self.clock.now());
        let (mut tokens, mut lines) = (BTreeMap::new(), Vec::new());
        for key in keys.iter().filter(|key| seen.has_enrollment_key(key)) {
            let Some(sealed) = &key.sealed_token else { continue };
            tokens.insert(key.id.clone(), self.secrets.open_token(&key.id, sealed)?);
            lines.push(audit_line(grant.origin(), now, "enrollment_key.reveal", subject(&key.id), json!({})));
        }
        commit_disclosure(&self.store, grant, lines).await?;
        Ok(tokens)
    }

    /// Revokes a key: it can't be used from now on. Agents that enrolled with it are not affected.
    pub async fn revoke(&self, key: &Authorized<EnrollmentKey, EnrollmentRevoke>) -> Result<(), Error> {
        self.store.commit(key.grant(), self.revocation(key)).await.map(drop).map_err(|error| gone(error, &key.id))
    }

    fn revocation(&self, key: &Authorized<EnrollmentKey, EnrollmentRevoke>) -> Vec<Write> {
        let now = self.clock.now();
        let (origin, detail) = (key.grant().origin(), json!({"name": key.name}));
        vec![
            Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { id: key.id.clone(), now }),
            changed(&key.id),
            audit_line(origin, now, "enrollment_key.revoke", subject(&key.id), detail),
            revoked(key, now),
        ]
    }

    /// Revokes a key and deletes its record.
    pub async fn delete(&self, key: &Authorized<EnrollmentKey, EnrollmentRevoke>) -> Result<(), Error> {
        let writes = deletion(key, self.clock.now());
        self.store.commit(key.grant(), writes).await.map(drop).map_err(|error| gone(error, &key.id))
    }

    /// Revokes a key and creates one with the same properties, in one commit. The new key has the same name and
    /// expiration; its uses are counted from zero. It returns a token, so it needs the privilege to create keys too.
    pub async fn replace(
        &self,
        old: &Authorized<EnrollmentKey, EnrollmentRevoke>,
        create: &Grant<EnrollmentCreate>,
    ) -> Result<(EnrollmentKey, String), Error> {
        let (grant, id) = (old.grant(), &old.id);
        let now = self.clock.now();
        // Otherwise whoever may replace keys could undo a revocation.
        if old.revoked_at.is_some() {
            return Err(Error::conflict("key_revoked", format!("the key {id} is revoked and cannot be replaced"))
                .remedy("create a new key"));
        }
        if old.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::conflict("key_expired", format!("the key {id} has expired and cannot be replaced"))
                .remedy("create a new key"));
        }
        let (record, token) = self.successor(create, old, now)?;
        let detail = json!({"name": old.name, "by": record.id});
        // Revoked first in the same commit, because a name must be unique among live keys.
        let writes = vec![
            Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { id: old.id.clone(), now }),
            Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(record.clone()))),
            changed(&old.id),
            changed(&record.id),
            audit_line(grant.origin(), now, "enrollment_key.replace", subject(&old.id), detail),
            revoked(old, now),
        ];
        self.store.commit(grant, writes).await.map_err(not_created)?;
        Ok((record, token))
    }

    fn successor(
        &self,
        grant: &Grant<EnrollmentCreate>,
        old: &EnrollmentKey,
        now: Timestamp,
    ) -> Result<(EnrollmentKey, String), Error> {
        let id = EnrollmentKeyId::trusted(random_uuid(&*self.entropy));
        let key = old.family.generate(&*self.entropy);
        let token = old.family.token(&key);
        let sealed_token = if old.sealed_token.is_some() { Some(self.secrets.seal_token(&id, &token)?) } else { None };
        // A key without a name is named by its id, which the new key must not inherit.
        let name = if old.name == old.id.as_str() { id.to_string() } else { old.name.clone() };
        let record = EnrollmentKey {
            id,
            name,
            key_id: key.id.clone(),
            hash: key.hash(),
            sealed_token,
            // A new life: what is counted and when it was used belong to the old key.
            created_at: now,
            uses: 0,
            last_used_at: None,
            one_time: old.one_time.as_ref().map(|old| OneTime {
                orbit_used_at: None,
                osquery_used_at: None,
                ..old.clone()
            }),
            // A one-time secret lives as long as the one that it replaces.
            expires_at: match (&old.one_time, old.expires_at) {
                (Some(_), Some(end)) => Some(now.plus(end.since(old.created_at))),
                (_, end) => end,
            },
            created_by: grant.actor().to_string(),
            ..old.clone()
        };
        Ok((record, token))
    }

    async fn policy_for_key(&self, grant: &Grant<EnrollmentCreate>, id: &str) -> Result<PolicyId, Error> {
        let found = match PolicyId::parse(id) {
            Ok(id) => self.store.seen_by(grant).policy(&id).await?,
            Err(_) => None,
        };
        let policy = found.ok_or_else(|| Error::not_found("agent policy", id))?;
        // Managed policies are changed only by the system that manages them.
        if policy.is_managed {
            let message = format!("the policy {:?} is managed and cannot get more enrollment keys", policy.name);
            return Err(Error::new(ErrorKind::Invalid, "managed_policy", message));
        }
        Ok(policy.id)
    }
}

fn key_name(name: Option<&str>, id: &EnrollmentKeyId) -> Result<String, Error> {
    match name.map(str::trim) {
        None | Some("") => Ok(id.to_string()),
        Some(name) if name.len() > MAX_NAME_BYTES || name.chars().any(muster_core::reported::is_deceptive) => {
            Err(Error::invalid("name", format!("at most {MAX_NAME_BYTES} bytes, no control characters")))
        }
        Some(name) => Ok(name.to_owned()),
    }
}

fn one_time(new: &NewEnrollmentKey) -> Result<Option<OneTime>, Error> {
    let Some(host) = &new.one_time else { return Ok(None) };
    if new.family != KeyFamily::Fleetd || new.secret.is_some() {
        return Err(Error::invalid("one_time", "only for a generated secret of the family fleetd"));
    }
    let identifier = |field: &'static str, text: &Option<String>| {
        let known =
            |text: &String| normalized(text).ok_or_else(|| Error::invalid(field, "at most 256 bytes, not empty"));
        text.as_ref().map(known).transpose()
    };
    let (uuid, serial) = (identifier("hardware_uuid", &host.uuid)?, identifier("serial", &host.serial)?);
    Ok(Some(OneTime { uuid, serial, ..OneTime::default() }))
}

fn max_uses(new: &NewEnrollmentKey) -> Result<Option<i64>, Error> {
    match new.max_uses {
        Some(max) if max < 1 => Err(Error::invalid("max_uses", "must be at least 1")),
        // The orbit of the last host would enroll, and its osqueryd would be rejected for good.
        Some(max) if new.family == KeyFamily::Fleetd && max % 2 != 0 => {
            let error =
                Error::invalid("max_uses", "must be even: orbit and osqueryd of a host count as two enrollments");
            Err(error.remedy(format!("for {} hosts, specify {}", max / 2 + 1, max.saturating_add(1))))
        }
        max => Ok(max),
    }
}

fn subject(id: &EnrollmentKeyId) -> String {
    format!("enrollment_key:{id}")
}

/// The event of a revocation, which the write itself can't be converted to.
fn revoked(key: &EnrollmentKey, now: Timestamp) -> Write {
    Write::Event(Box::new(of_revoked_key(key, now)))
}

fn changed(id: &EnrollmentKeyId) -> Write {
    Write::Changed(Change::EnrollmentKey(id.clone()))
}

fn not_created(error: StoreError) -> Error {
    match error {
        // The id of an enroll secret is derived from it. Whose it is must not be told: the space may be another one.
        StoreError::Conflict(Precondition::Exists(_)) => {
            Error::conflict("secret_taken", "this enroll secret is or was in use").remedy("choose another one")
        }
        StoreError::Conflict(Precondition::TooMany(_)) => {
            let message = format!("the space has {MAX_SECRETS} enroll secrets, the maximum");
            Error::conflict("too_many_secrets", message).remedy("revoke one that is no longer used")
        }
        StoreError::Conflict(Precondition::NameTaken(name)) => {
            let message = format!("this policy already has an active enrollment key named {name:?}");
            Error::conflict("enrollment_key_name_taken", message).remedy("choose another name, or revoke that key")
        }
        other => other.into(),
    }
}

/// Returns the writes that delete a key.
pub(crate) fn deletion(key: &Authorized<EnrollmentKey, EnrollmentRevoke>, now: Timestamp) -> Vec<Write> {
    let (origin, detail) = (key.grant().origin(), json!({"name": key.name}));
    vec![
        Write::EnrollmentKey(EnrollmentKeyWrite::Delete { id: key.id.clone() }),
        Write::Deleted(Change::EnrollmentKey(key.id.clone()), key.space.clone()),
        audit_line(origin, now, "enrollment_key.delete", subject(&key.id), detail),
        revoked(key, now),
    ]
}

/// Maps the conflict of a key that was deleted since it was found to 404.
fn gone(error: StoreError, id: &EnrollmentKeyId) -> Error {
    match error {
        StoreError::Conflict(Precondition::Missing(_)) => Error::not_found("enrollment key", id),
        other => other.into(),
    }
}
