//! Enrollment keys: make, look, reveal, revoke, delete, replace in one step.

use muster_core::change::Change;
use muster_core::context::{OpContext, Privilege};
use muster_core::credential::ApiKey;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::entropy::random_uuid;
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::seal::Place;
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_store::query::{Listed, Page};
use muster_store::{EnrollmentKeyWrite, Precondition, StoreError, Write};
use serde_json::json;

use super::Fleet;
use super::audit::audit_line;
use super::moment::parse_end;
use super::tags::clean_tags;

/// Longest name, bytes.
const MAX_NAME_BYTES: usize = 255;

/// What a new key is to be.
#[derive(Clone, Debug, Default)]
pub struct NewEnrollmentKey {
    /// The policy that agents get.
    pub policy_id: Option<String>,
    /// What people call it; without one, its id.
    pub name: Option<String>,
    /// When it ends: duration or RFC 3339.
    pub expiration: Option<String>,
    /// Tags that agents get.
    pub tags: Vec<String>,
    /// How often it may be used.
    pub max_uses: Option<i64>,
    /// Left out of bulk changes.
    pub hidden: bool,
    /// Whether its token may be shown again.
    pub retrievable: bool,
}

impl Fleet {
    /// Makes a key; answers it with its token.
    pub async fn create_enrollment_key(
        &self,
        context: &OpContext,
        new: &NewEnrollmentKey,
    ) -> Result<(EnrollmentKey, String), Error> {
        context.require(Privilege::KeysWrite)?;
        let now = self.clock.now();
        let policy_id = match &new.policy_id {
            Some(id) => Some(self.policy_for_key(id).await?),
            None => None,
        };
        let id = EnrollmentKeyId::trusted(random_uuid(&*self.entropy));
        let key = ApiKey::generate(&*self.entropy);
        let record = EnrollmentKey {
            name: key_name(new.name.as_deref(), &id)?,
            key_id: key.id.clone(),
            hash: key.hash(),
            sealed_token: if new.retrievable { Some(self.seal_token(&id, &key)?) } else { None },
            policy_id,
            tags: clean_tags("tags", &new.tags)?,
            // Agents inherit it; a key must not let agents into a space that its maker is not in.
            namespaces: vec![context.space.clone()],
            created_at: now,
            expires_at: new.expiration.as_deref().map(|text| parse_end("expiration", text, now)).transpose()?,
            revoked_at: None,
            max_uses: max_uses(new.max_uses)?,
            uses: 0,
            last_used_at: None,
            hidden: new.hidden,
            created_by: context.actor.to_string(),
            id,
        };
        let detail = json!({"name": record.name, "policy_id": record.policy_id});
        let writes = vec![
            Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(record.clone()))),
            changed(&record.id),
            audit_line(context, now, "enrollment_key.create", subject(&record.id), detail),
        ];
        self.store.commit(writes).await.map_err(name_taken)?;
        Ok((record, key.token()))
    }

    /// A page of keys, newest first, of one policy or of all.
    pub async fn enrollment_keys(
        &self,
        context: &OpContext,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, Error> {
        context.require(Privilege::KeysRead)?;
        Ok(self.store.enrollment_keys(policy, page).await?)
    }

    /// One key.
    pub async fn enrollment_key(&self, context: &OpContext, id: &str) -> Result<EnrollmentKey, Error> {
        context.require(Privilege::KeysRead)?;
        let found = match EnrollmentKeyId::parse(id) {
            Ok(id) => self.store.enrollment_key(&id).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| Error::not_found("enrollment key", id))
    }

    /// One key with its token, when that may be shown again; showing it is an audit event (M10).
    pub async fn reveal_enrollment_key(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<(EnrollmentKey, Option<String>), Error> {
        let key = self.enrollment_key(context, id).await?;
        let Some(sealed) = &key.sealed_token else { return Ok((key, None)) };
        let token = self.sealer.open(Place::enrollment_token(&key.id), sealed);
        let token = token.map_err(|error| Error::internal(format!("token of key {}: {error}", key.id)))?;
        let token = String::from_utf8(token.to_vec()).map_err(|_| Error::internal("a sealed token is no text"))?;
        let line = audit_line(context, self.clock.now(), "enrollment_key.reveal", subject(&key.id), json!({}));
        // Before the token is shown: what was shown without a line in the log can't be found out later.
        self.store.commit(vec![line]).await?;
        Ok((key, Some(token)))
    }

    /// Revokes a key: it admits nobody from now on. Agents that came in by it stay.
    pub async fn revoke_enrollment_key(&self, context: &OpContext, id: &str) -> Result<(), Error> {
        context.require(Privilege::KeysWrite)?;
        let key = self.enrollment_key(context, id).await?;
        let now = self.clock.now();
        let line = audit_line(context, now, "enrollment_key.revoke", subject(&key.id), json!({"name": key.name}));
        let writes =
            vec![Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { id: key.id.clone(), now }), changed(&key.id), line];
        self.commit_for(context, writes).await.map_err(|error| gone(error, id))
    }

    /// Revokes a key and removes its record.
    pub async fn delete_enrollment_key(&self, context: &OpContext, id: &str) -> Result<(), Error> {
        context.require(Privilege::KeysWrite)?;
        let key = self.enrollment_key(context, id).await?;
        let line =
            audit_line(context, self.clock.now(), "enrollment_key.delete", subject(&key.id), json!({"name": key.name}));
        let writes =
            vec![Write::EnrollmentKey(EnrollmentKeyWrite::Delete { id: key.id.clone() }), changed(&key.id), line];
        self.commit_for(context, writes).await.map_err(|error| gone(error, id))
    }

    /// Makes a key with this one's properties and revokes this one, together: the name passes on, the count of uses
    /// starts anew, the end stays.
    pub async fn replace_enrollment_key(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<(EnrollmentKey, String), Error> {
        context.require(Privilege::KeysWrite)?;
        let old = self.enrollment_key(context, id).await?;
        let now = self.clock.now();
        // A dead key would come to life again under another token, without anyone having made it.
        if old.revoked_at.is_some() {
            return Err(Error::conflict("key_revoked", format!("the key {id} is revoked and can't be replaced"))
                .remedy("create a new key"));
        }
        if old.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::conflict("key_expired", format!("the key {id} has expired and can't be replaced"))
                .remedy("create a new key"));
        }
        let (record, token) = self.successor(context, &old, now)?;
        let detail = json!({"name": old.name, "by": record.id});
        // Revoked first: a name is taken by live keys only.
        let writes = vec![
            Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { id: old.id.clone(), now }),
            Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(record.clone()))),
            changed(&old.id),
            changed(&record.id),
            audit_line(context, now, "enrollment_key.replace", subject(&old.id), detail),
        ];
        self.commit_for(context, writes).await.map_err(name_taken)?;
        Ok((record, token))
    }

    fn successor(
        &self,
        context: &OpContext,
        old: &EnrollmentKey,
        now: Timestamp,
    ) -> Result<(EnrollmentKey, String), Error> {
        let id = EnrollmentKeyId::trusted(random_uuid(&*self.entropy));
        let key = ApiKey::generate(&*self.entropy);
        let sealed_token = if old.sealed_token.is_some() { Some(self.seal_token(&id, &key)?) } else { None };
        // A key without a name of its own is called by its id.
        let name = if old.name == old.id.as_str() { id.to_string() } else { old.name.clone() };
        let record = EnrollmentKey {
            id,
            name,
            key_id: key.id.clone(),
            hash: key.hash(),
            sealed_token,
            created_at: now,
            uses: 0,
            last_used_at: None,
            created_by: context.actor.to_string(),
            ..old.clone()
        };
        Ok((record, key.token()))
    }

    fn seal_token(&self, id: &EnrollmentKeyId, key: &ApiKey) -> Result<Vec<u8>, Error> {
        let sealed = self.sealer.seal(Place::enrollment_token(id), key.token().as_bytes(), &*self.entropy);
        sealed.map_err(|error| Error::internal(format!("sealing a token: {error}")))
    }

    async fn policy_for_key(&self, id: &str) -> Result<PolicyId, Error> {
        let found = match PolicyId::parse(id) {
            Ok(id) => self.store.policy(&id).await?,
            Err(_) => None,
        };
        let policy = found.ok_or_else(|| Error::not_found("agent policy", id))?;
        if policy.is_managed {
            let message = format!("the policy {:?} is hosted and takes no more enrollment keys", policy.name);
            return Err(Error::new(ErrorKind::Invalid, "hosted_policy", message));
        }
        Ok(policy.id)
    }
}

fn key_name(name: Option<&str>, id: &EnrollmentKeyId) -> Result<String, Error> {
    match name.map(str::trim) {
        None | Some("") => Ok(id.to_string()),
        Some(name) if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) => {
            Err(Error::invalid("name", format!("at most {MAX_NAME_BYTES} bytes, no control characters")))
        }
        Some(name) => Ok(name.to_owned()),
    }
}

fn max_uses(max: Option<i64>) -> Result<Option<i64>, Error> {
    match max {
        Some(max) if max < 1 => Err(Error::invalid("max_uses", "must be at least 1")),
        max => Ok(max),
    }
}

fn subject(id: &EnrollmentKeyId) -> String {
    format!("enrollment_key:{id}")
}

fn changed(id: &EnrollmentKeyId) -> Write {
    Write::Changed(Change::EnrollmentKey(id.clone()))
}

fn name_taken(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::NameTaken(name)) => {
            let message = format!("a live enrollment key of this policy is called {name:?} already");
            Error::conflict("enrollment_key_name_taken", message).remedy("choose another name, or revoke that key")
        }
        other => other.into(),
    }
}

/// Deleted by somebody else between our look and our write.
fn gone(error: StoreError, id: &str) -> Error {
    match error {
        StoreError::Conflict(Precondition::Missing(_)) => Error::not_found("enrollment key", id),
        other => other.into(),
    }
}
