//! Enrollment keys: make, look, reveal, revoke, delete, replace in one step.

use std::sync::Arc;

use muster_core::Entropy;
use muster_core::authorization::{Grant, KeysRead, KeysWrite, OpContext, Privilege};
use muster_core::change::Change;
use muster_core::credential::ApiKey;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::entropy::random_uuid;
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Error, ErrorKind};
use muster_store::query::{Listed, Page, Readable};
use muster_store::{EnrollmentKeyWrite, Precondition, StoreError, Write};
use serde_json::json;

use super::audit::audit_line;
use super::authority::Authorized;
use super::moment::parse_end;
use super::secrets::SealedSecrets;
use super::tags::clean_tags;
use super::watched_store::WatchedStore;

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

    /// Makes a key; returns it with its token.
    pub async fn create(
        &self,
        grant: &Grant<KeysWrite>,
        new: &NewEnrollmentKey,
    ) -> Result<(EnrollmentKey, String), Error> {
        let now = self.clock.now();
        let policy_id = match &new.policy_id {
            Some(id) => Some(self.policy_for_key(grant, id).await?),
            None => None,
        };
        let id = EnrollmentKeyId::trusted(random_uuid(&*self.entropy));
        let key = ApiKey::generate(&*self.entropy);
        let record = EnrollmentKey {
            name: key_name(new.name.as_deref(), &id)?,
            key_id: key.id.clone(),
            hash: key.hash(),
            sealed_token: if new.retrievable { Some(self.secrets.seal_token(&id, &key)?) } else { None },
            policy_id,
            tags: clean_tags("tags", &new.tags)?,
            // Agents inherit it; a key must not let agents into a space that its maker is not in.
            space: grant.space().clone(),
            created_at: now,
            expires_at: new.expiration.as_deref().map(|text| parse_end("expiration", text, now)).transpose()?,
            revoked_at: None,
            max_uses: max_uses(new.max_uses)?,
            uses: 0,
            last_used_at: None,
            hidden: new.hidden,
            created_by: grant.actor().to_string(),
            id,
        };
        let detail = json!({"name": record.name, "policy_id": record.policy_id});
        let writes = vec![
            Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(record.clone()))),
            changed(&record.id),
            audit_line(grant.actor(), now, "enrollment_key.create", subject(&record.id), detail),
        ];
        self.store.commit(grant, writes).await.map_err(name_taken)?;
        Ok((record, key.token()))
    }

    /// A page of keys, newest first, of one policy or of all.
    pub async fn list(
        &self,
        grant: &Grant<KeysRead>,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, Error> {
        Ok(self.store.seen_by(grant).enrollment_keys(policy, page).await?)
    }

    /// Keys behind the one of this time of creation and id, newest first, of one policy or of all.
    pub async fn list_after(
        &self,
        grant: &Grant<KeysRead>,
        policy: Option<&PolicyId>,
        after: (Timestamp, &EnrollmentKeyId),
        limit: u32,
    ) -> Result<Readable<EnrollmentKey>, Error> {
        Ok(self.store.seen_by(grant).enrollment_keys_after(policy, after, limit).await?)
    }

    /// One key with its token, when that may be shown again; showing it is an audit event (M10).
    pub async fn reveal(
        &self,
        key: Authorized<EnrollmentKey, KeysRead>,
    ) -> Result<(EnrollmentKey, Option<String>), Error> {
        // What a dry run would show would not be in the audit log.
        let Some(sealed) = key.sealed_token.as_ref().filter(|_| !key.grant().is_dry_run()) else {
            return Ok((key.into_inner(), None));
        };
        let token = self.secrets.open_token(&key.id, sealed)?;
        let line =
            audit_line(key.grant().actor(), self.clock.now(), "enrollment_key.reveal", subject(&key.id), json!({}));
        // Before the token is shown: what was shown without a line in the log can't be found out later.
        self.store.commit(key.grant(), vec![line]).await?;
        Ok((key.into_inner(), Some(token)))
    }

    /// Revokes a key: it admits nobody from now on. Agents that came in by it stay.
    pub async fn revoke(&self, key: &Authorized<EnrollmentKey, KeysWrite>) -> Result<(), Error> {
        let grant = key.grant();
        let now = self.clock.now();
        let line = audit_line(grant.actor(), now, "enrollment_key.revoke", subject(&key.id), json!({"name": key.name}));
        let writes =
            vec![Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { id: key.id.clone(), now }), changed(&key.id), line];
        self.store.commit(grant, writes).await.map(drop).map_err(|error| gone(error, &key.id))
    }

    /// Revokes a key and removes its record.
    pub async fn delete(&self, key: &Authorized<EnrollmentKey, KeysWrite>) -> Result<(), Error> {
        let grant = key.grant();
        let line = audit_line(
            grant.actor(),
            self.clock.now(),
            "enrollment_key.delete",
            subject(&key.id),
            json!({"name": key.name}),
        );
        let writes =
            vec![Write::EnrollmentKey(EnrollmentKeyWrite::Delete { id: key.id.clone() }), changed(&key.id), line];
        self.store.commit(grant, writes).await.map(drop).map_err(|error| gone(error, &key.id))
    }

    /// Makes a key with this one's properties and revokes this one, together: the name passes on, the count of uses
    /// starts anew, the end stays.
    pub async fn replace(&self, old: &Authorized<EnrollmentKey, KeysWrite>) -> Result<(EnrollmentKey, String), Error> {
        let (grant, id) = (old.grant(), &old.id);
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
        let (record, token) = self.successor(grant, old, now)?;
        let detail = json!({"name": old.name, "by": record.id});
        // Revoked first: a name is taken by live keys only.
        let writes = vec![
            Write::EnrollmentKey(EnrollmentKeyWrite::Revoke { id: old.id.clone(), now }),
            Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(record.clone()))),
            changed(&old.id),
            changed(&record.id),
            audit_line(grant.actor(), now, "enrollment_key.replace", subject(&old.id), detail),
        ];
        self.store.commit(grant, writes).await.map_err(name_taken)?;
        Ok((record, token))
    }

    fn successor(
        &self,
        grant: &Grant<KeysWrite>,
        old: &EnrollmentKey,
        now: Timestamp,
    ) -> Result<(EnrollmentKey, String), Error> {
        let id = EnrollmentKeyId::trusted(random_uuid(&*self.entropy));
        let key = ApiKey::generate(&*self.entropy);
        let sealed_token = if old.sealed_token.is_some() { Some(self.secrets.seal_token(&id, &key)?) } else { None };
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
            created_by: grant.actor().to_string(),
            ..old.clone()
        };
        Ok((record, key.token()))
    }

    async fn policy_for_key(&self, grant: &Grant<KeysWrite>, id: &str) -> Result<PolicyId, Error> {
        let found = match PolicyId::parse(id) {
            Ok(id) => self.store.seen_by(grant).policy(&id).await?,
            Err(_) => None,
        };
        let policy = found.ok_or_else(|| Error::not_found("agent policy", id))?;
        if policy.is_managed {
            let message = format!("the policy {:?} is managed and cannot get more enrollment keys", policy.name);
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
            let message = format!("this policy already has an active enrollment key named {name:?}");
            Error::conflict("enrollment_key_name_taken", message).remedy("choose another name, or revoke that key")
        }
        other => other.into(),
    }
}

/// Deleted by somebody else between our look and our write.
fn gone(error: StoreError, id: &EnrollmentKeyId) -> Error {
    match error {
        StoreError::Conflict(Precondition::Missing(_)) => Error::not_found("enrollment key", id),
        other => other.into(),
    }
}
