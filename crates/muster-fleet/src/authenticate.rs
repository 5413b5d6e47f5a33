//! Authentication of agents by their keys (EA §1.6).
//!
//! Revoked, expired, malformed and unknown keys all get the same error, so that responses don't reveal which keys
//! exist.

use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::agent::{AgentRecord, Family};
use muster_core::audit::AuditEvent;
use muster_core::client_certificate::ClientCertificate;
use muster_core::credential::{ApiKey, CredentialKind, LiveCredential};
use muster_core::denial::Denial;
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily};
use muster_core::error_chain::chain;
use muster_core::fleetd::device_token;
use muster_core::id::AgentId;
use muster_core::time::Clock;
use muster_store::Write;
use serde_json::json;

use super::authority::System;
use super::currency::Currency;
use super::records::Records;
use super::registry::{AgentEntry, Registry};
use super::restoration::Restoration;
use super::throttle::Throttle;
use super::watched_store::WatchedStore;

/// Returns the error for every invalid key.
pub fn unauthorized() -> Error {
    Denial::UnknownKey.into()
}

/// Returns whether a key with an id is one of the agent's. Secrets of fleetd have ids too, which follow from them: they must
/// not be accepted here, least of all the token that each user of a host can read.
fn holds_key(record: &AgentRecord, key: &ApiKey) -> bool {
    let held = record.credentials.matching(key).filter(|held| held.kind != CredentialKind::DeviceToken);
    record.active && !record.family.is_one_per_machine() && held.is_some()
}

/// Returns the node key of an active agent of this family, if the key is its own.
fn held_node_key<'r>(record: &'r AgentRecord, key: &ApiKey, family: Family) -> Option<&'r LiveCredential> {
    let may_hold = record.active && record.family == family;
    let held = if may_hold { record.credentials.matching(key) } else { None };
    held.filter(|held| held.kind == CredentialKind::NodeKey)
}

/// Checks the certificate of a connection against the one that an agent's key is bound to.
fn check_certificate(held: &LiveCredential, certificate: ClientCertificate) -> Result<(), Error> {
    if certificate.permits(held.certificate) { Ok(()) } else { Err(Denial::OtherCertificate.into()) }
}

/// Secrets that an address has guessed in vain.
#[derive(Clone, Copy, Debug)]
pub struct Guesses<'a> {
    /// What it guessed: `device_token` or `enroll_secret`.
    pub secret: &'static str,
    /// The address.
    pub address: &'a str,
    /// Number of guesses in a row.
    pub count: u32,
    /// Time for which the address is refused from now on.
    pub refused_for: Duration,
}

/// The service that authenticates agents.
pub struct Authentication {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
    records: Arc<Records>,
    currency: Arc<Currency>,
    restoration: Arc<Restoration>,
    /// Limits audit events about keys that were presented for another agent.
    mismatches: Throttle,
}

/// What [`Authentication`] uses.
pub(crate) struct AuthenticationParts {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) records: Arc<Records>,
    pub(crate) currency: Arc<Currency>,
    pub(crate) restoration: Arc<Restoration>,
}

impl Authentication {
    pub(crate) fn new(parts: AuthenticationParts) -> Self {
        let AuthenticationParts { store, clock, registry, records, currency, restoration } = parts;
        let mismatches = Throttle::new(Duration::from_secs(60));
        Self { store, clock, registry, records, currency, restoration, mismatches }
    }

    /// Returns the agent with that id, if the key is one of its own. A valid key of another agent gives
    /// [`Denial::ForeignKey`] (EA54) and an audit event, any other key [`Denial::UnknownKey`].
    pub async fn agent(&self, id: &str, key: &ApiKey) -> Result<Arc<AgentEntry>, Error> {
        if let Some(entry) = AgentId::parse(id).ok().and_then(|id| self.registry.get(&id)) {
            // A cached record may be outdated: another server may have revoked the key.
            self.currency.ensure(&self.records, &entry).await?;
            // The usual case, without a read: a check-in of a known agent costs one SHA-256.
            if entry.record().is_some_and(|record| holds_key(&record, key)) {
                entry.credential_used(&key.id, self.clock.now());
                return Ok(entry);
            }
        }
        // Boxed, so that the future of every check-in does not reserve the space of this rare path.
        Box::pin(self.stored_agent(id, key)).await
    }

    /// Authenticates an agent that is not cached, or whose cached record does not have the key: another server may just
    /// have enrolled it again.
    async fn stored_agent(&self, id: &str, key: &ApiKey) -> Result<Arc<AgentEntry>, Error> {
        // The key decides which agent it is; the id in the path is only compared.
        let holder = match self.key_of_agent(key).await? {
            Some(record) if record.id.as_str() == id => {
                let entry = self.registry.admit(record);
                entry.credential_used(&key.id, self.clock.now());
                return Ok(entry);
            }
            Some(record) => format!("agent:{}", record.id),
            None if self.is_enrollment_key(key).await? => format!("enrollment_key:{}", key.id),
            None => return Err(self.unknown(key).await?),
        };
        // A real key with another id is either a cloned installation or an attempt. Both are worth a record.
        self.audit_identity_mismatch(&holder, id).await;
        Err(Denial::ForeignKey.into())
    }

    /// Returns the agent that the key belongs to; [`Denial::NotAnAgent`] for a valid enrollment key.
    pub async fn any_agent(&self, key: &ApiKey) -> Result<Arc<AgentEntry>, Error> {
        if let Some(record) = self.key_of_agent(key).await? {
            let entry = self.registry.admit(record);
            // Noted in memory and written with presence: a write for each request would cost more than the request.
            entry.credential_used(&key.id, self.clock.now());
            return Ok(entry);
        }
        if self.is_enrollment_key(key).await? {
            return Err(Denial::NotAnAgent.into());
        }
        Err(self.unknown(key).await?)
    }

    /// Returns the agent of `family` with this node key. All other keys give [`Denial::UnknownKey`], and a key that is bound to
    /// another certificate [`Denial::OtherCertificate`].
    pub async fn node_key(
        &self,
        secret: &str,
        family: Family,
        certificate: ClientCertificate,
    ) -> Result<Arc<AgentEntry>, Error> {
        // The id is derived from the secret, so the look-up needs no id in the request.
        let key = ApiKey::opaque(secret);
        let cached = self.registry.by_node_key(&key.id);
        self.holder(&key, cached, family, certificate).await
    }

    /// Returns the agent of `family` with this node key, which is `cached` if an agent with the key's id is.
    async fn holder(
        &self,
        key: &ApiKey,
        cached: Option<Arc<AgentEntry>>,
        family: Family,
        certificate: ClientCertificate,
    ) -> Result<Arc<AgentEntry>, Error> {
        if let Some(entry) = cached {
            self.currency.ensure(&self.records, &entry).await?;
            // The usual case, without a read: thousands of hosts ask for queries each second.
            if let Some(record) = entry.record()
                && let Some(held) = held_node_key(&record, key, family)
            {
                check_certificate(held, certificate)?;
                entry.credential_used(&key.id, self.clock.now());
                return Ok(entry);
            }
        }
        // Boxed, so that the future of every request does not reserve the space of this rare path.
        Box::pin(self.stored_holder(key, family, certificate)).await
    }

    async fn stored_holder(
        &self,
        key: &ApiKey,
        family: Family,
        certificate: ClientCertificate,
    ) -> Result<Arc<AgentEntry>, Error> {
        let stored = self.store.everywhere(&System).agent_by_credential(&key.id).await?;
        let record = stored.ok_or_else(unauthorized)?;
        check_certificate(held_node_key(&record, key, family).ok_or_else(unauthorized)?, certificate)?;
        let entry = self.registry.admit(record);
        entry.credential_used(&key.id, self.clock.now());
        Ok(entry)
    }

    /// Returns the osqueryd with this node key, or the one on the host of the orbit with this node key: with push, orbit fetches
    /// the queries (FL54).
    pub async fn osquery_or_orbit_key(
        &self,
        secret: &str,
        certificate: ClientCertificate,
    ) -> Result<Arc<AgentEntry>, Error> {
        let key = ApiKey::opaque(secret);
        let cached = self.registry.by_node_key(&key.id);
        let known = cached.as_ref().and_then(|entry| entry.record());
        // Without the read that would find no osqueryd with the key of a known orbit.
        if known.is_none_or(|record| record.family != Family::Orbit) {
            match self.holder(&key, cached.clone(), Family::Osquery, certificate).await {
                Err(error) if error.denial == Some(Denial::UnknownKey) => {}
                other => return other,
            }
        }
        let orbit = self.holder(&key, cached, Family::Orbit, certificate).await?;
        let osquery = self.records.osquery_beside(&orbit).await?.ok_or_else(unauthorized)?;
        self.currency.ensure(&self.records, &osquery).await?;
        Ok(osquery)
    }

    /// Checks the certificate of a connection that names an agent by something else than its key, such as the session of a carve.
    pub async fn check_connection(&self, agent: &AgentId, certificate: ClientCertificate) -> Result<(), Error> {
        if certificate == ClientCertificate::Irrelevant {
            return Ok(());
        }
        let entry = self.records.loaded(&System, agent).await?.ok_or_else(unauthorized)?;
        self.currency.ensure(&self.records, &entry).await?;
        let record = entry.record().ok_or_else(unauthorized)?;
        record.credentials.iter().try_for_each(|held| check_certificate(held, certificate))
    }

    /// Returns the orbit whose desktop program has this token, if the token has not ended (FL70).
    pub async fn device_token(&self, token: &str) -> Result<Arc<AgentEntry>, Error> {
        let key = ApiKey::opaque(token);
        let fits = |record: &AgentRecord| {
            let held = record.credentials.matching(&key).filter(|held| held.kind == CredentialKind::DeviceToken);
            record.active && held.is_some_and(|held| device_token::is_valid(held.issued_at, self.clock.now()))
        };
        if let Some(entry) = self.registry.by_node_key(&key.id) {
            self.currency.ensure(&self.records, &entry).await?;
            // The time is part of the check, so a cached token expires without a read.
            if entry.record().is_some_and(|record| fits(&record)) {
                return Ok(entry);
            }
        }
        let stored = self.store.everywhere(&System).agent_by_credential(&key.id).await?;
        Ok(self.registry.admit(stored.filter(fits).ok_or_else(unauthorized)?))
    }

    /// Returns true if the key is valid, be it an agent's or an enrollment key.
    pub async fn any_key(&self, key: &ApiKey) -> Result<bool, Error> {
        Ok(self.key_of_agent(key).await?.is_some() || self.is_enrollment_key(key).await?)
    }

    async fn key_of_agent(&self, key: &ApiKey) -> Result<Option<AgentRecord>, Error> {
        Ok(self.store.everywhere(&System).agent_by_credential(&key.id).await?.filter(|record| holds_key(record, key)))
    }

    /// Returns the error for an invalid key. After a restore, a key that the store has never seen may be that of an agent that enrolled
    /// after the backup, which must not give up.
    async fn unknown(&self, key: &ApiKey) -> Result<Error, Error> {
        if !self.restoration.may_lack_agents().await? {
            return Ok(unauthorized());
        }
        let store = self.store.everywhere(&System);
        let is_known = store.is_credential(&key.id).await? || store.enrollment_key_by_key_id(&key.id).await?.is_some();
        Ok(if is_known { unauthorized() } else { Denial::EnrolledAfterBackup.into() })
    }

    async fn is_enrollment_key(&self, key: &ApiKey) -> Result<bool, Error> {
        let now = self.clock.now();
        let found = self.store.everywhere(&System).enrollment_key_by_key_id(&key.id).await?;
        let is_one = |stored: &EnrollmentKey| stored.family == KeyFamily::Elastic && stored.admits(now).is_ok();
        Ok(found.is_some_and(|stored| is_one(&stored) && key.matches(&stored.hash)))
    }

    /// Records that an address is refused because it has guessed secrets. The caller does so once for each refusal.
    pub async fn audit_guesses(&self, guesses: &Guesses<'_>) {
        let Guesses { secret, address, count, refused_for } = *guesses;
        let detail = json!({"secret": secret, "count": count, "refused_for_seconds": refused_for.as_secs()});
        let subject = format!("address:{address}");
        self.audit(AuditEvent {
            address: Some(address.to_owned()),
            reason: None,
            space: None,
            at: self.clock.now(),
            actor: subject.clone(),
            action: "agent.secret_guessing".into(),
            subject,
            detail,
        })
        .await;
    }

    /// Writes at most one audit event a minute for each key holder: a client in a loop must not fill the disk.
    async fn audit_identity_mismatch(&self, holder: &str, path_id: &str) {
        let now = self.clock.now();
        // Per holder, not per path: the path is chosen by the client.
        if !self.mismatches.first_in_a_while(holder, now) {
            return;
        }
        // Unvalidated input: without control characters it can't forge log lines, and it is kept short.
        let shown: String = path_id.chars().filter(|c| !c.is_control()).take(128).collect();
        let event = AuditEvent {
            address: None,
            reason: None,
            space: None,
            at: now,
            actor: holder.to_owned(),
            action: "agent.identity_mismatch".into(),
            subject: format!("agent:{shown}"),
            detail: json!({"reason": "the key belongs to another agent"}),
        };
        self.audit(event).await;
    }

    async fn audit(&self, event: AuditEvent) {
        let action = event.action.clone();
        // The request is rejected in any case. An audit log that can't be written must not turn the 403 into a 503, on
        // which agents retry.
        if let Err(error) = self.store.commit(&System, vec![Write::Audit(event)]).await {
            tracing::warn!(error = %chain(&error), action, "failed to write an event to the audit log");
        }
    }
}
