//! The service of alerts: receivers, their tests, and the sending of events to them.

mod draft;
mod run;
pub mod sender;
mod servers;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use muster_core::alert::{Message, Progress, Receiver, Target};
use muster_core::authorization::{AlertsRead, AlertsWrite, Grant, OpContext, Privilege};
use muster_core::connection_test::origin_of;
use muster_core::entropy::random_uuid;
use muster_core::event::{Event, Severity};
use muster_core::id::{AlertReceiverId, SecretId};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{AlertWrite, Precondition, SecretWrite, StoreError, Write};
use serde_json::json;
use zeroize::Zeroizing;

pub use self::draft::{ReceiverDraft, TargetDraft};
use self::sender::{AlertSender, Outgoing, SendError};
use super::audit::{audit_line, with_changes};
use super::authority::{Authorized, System};
use super::secrets::SealedSecrets;
use super::shutdown::Shutdown;
use super::watched_store::WatchedStore;

/// The service of alerts.
pub struct Alerts {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    secrets: Arc<SealedSecrets>,
    sender: Arc<dyn AlertSender>,
    shutdown: Arc<Shutdown>,
    /// Receivers to which this server is sending: a slow one does not delay the others, and gets one message at a time.
    busy: Mutex<HashSet<AlertReceiverId>>,
}

/// Maximum number of events that are read to find the latest warnings.
const MAX_SCANNED: u32 = 2_000;

/// The dependencies of [`Alerts`].
pub(crate) struct AlertParts {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) secrets: Arc<SealedSecrets>,
    pub(crate) sender: Arc<dyn AlertSender>,
    pub(crate) shutdown: Arc<Shutdown>,
}

/// A receiver that was created.
pub struct CreatedReceiver {
    /// The receiver.
    pub receiver: Receiver,
    /// The key of a webhook's signatures, if it was generated. It is not shown again.
    pub secret: Option<Zeroizing<String>>,
}

impl Alerts {
    pub(crate) fn new(parts: AlertParts) -> Self {
        let AlertParts { store, clock, entropy, secrets, sender, shutdown } = parts;
        Self { store, clock, entropy, secrets, sender, shutdown, busy: Mutex::default() }
    }

    /// Returns the receivers of the grant's space by name, with their progress.
    pub async fn list(&self, grant: &Grant<AlertsRead>) -> Result<Vec<(Receiver, Progress)>, Error> {
        let seen = self.store.seen_by(grant);
        let mut listed = Vec::new();
        for receiver in seen.alert_receivers().await? {
            let progress = seen.alert_progress(&receiver).await?;
            listed.push((receiver, progress));
        }
        Ok(listed)
    }

    /// Returns the newest events of the space, and of those that concern every space, newest first, as far as they are `wanted`.
    /// Reads at most [`MAX_SCANNED`] events.
    pub async fn recent(
        &self,
        grant: &Grant<AlertsRead>,
        limit: usize,
        wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Vec<Event>, Error> {
        let mut found = self.store.seen_by(grant).newest_events(MAX_SCANNED).await?;
        found.retain(wanted);
        found.truncate(limit);
        Ok(found)
    }

    /// Returns the latest events of the space that are warnings or errors, newest first.
    pub async fn recent_problems(&self, grant: &Grant<AlertsRead>, limit: usize) -> Result<Vec<Event>, Error> {
        self.recent(grant, limit, |event| matches!(event.kind.severity(), Severity::Error | Severity::Warning)).await
    }

    /// Finds a receiver in the caller's space.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<Receiver, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match AlertReceiverId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).alert_receiver(&id).await?,
            Err(_) => None,
        };
        let receiver = found.ok_or_else(|| Error::not_found("receiver", id))?;
        Ok(Authorized::new(receiver, grant))
    }

    /// Returns how far a receiver is.
    pub async fn progress<P: Privilege>(&self, receiver: &Authorized<Receiver, P>) -> Result<Progress, Error> {
        Ok(self.store.seen_by(receiver.grant()).alert_progress(receiver).await?)
    }

    /// Creates a receiver. It gets the events from now on.
    pub async fn create(&self, grant: &Grant<AlertsWrite>, draft: ReceiverDraft) -> Result<CreatedReceiver, Error> {
        let now = self.clock.now();
        let id = AlertReceiverId::trusted(random_uuid(&*self.entropy));
        let applied = self.apply_draft(None, draft, || draft::blank(id, grant, now))?;
        let receiver = applied.receiver;
        // Also asks the sender, which knows the addresses that this server may connect to.
        self.check(&receiver)?;
        let after = self.store.everywhere(&System).newest_event().await?;
        let detail = json!({"name": receiver.name, "target": told_target(&receiver.target)});
        let mut writes = applied.writes;
        writes.push(AlertWrite::Insert { receiver: Box::new(receiver.clone()), after }.into());
        writes.push(audit_line(grant.origin(), now, "alert_receiver.create", subject(&receiver), detail));
        self.store.commit(grant, writes).await.map_err(refused)?;
        Ok(CreatedReceiver { receiver, secret: applied.generated })
    }

    /// Changes a receiver. Absent fields stay as they are; a change without a difference writes nothing.
    pub async fn update(
        &self,
        receiver: &Authorized<Receiver, AlertsWrite>,
        draft: ReceiverDraft,
    ) -> Result<Receiver, Error> {
        let before: &Receiver = receiver;
        let applied = self.apply_draft(Some(before), draft, || before.clone())?;
        let after = applied.receiver;
        self.check(&after)?;
        // A version that changes nothing would make concurrent editors conflict.
        if after == *before {
            return Ok(after);
        }
        let told = |receiver: &Receiver| {
            json!({
                "name": receiver.name, "enabled": receiver.is_enabled, "target": told_target(&receiver.target),
                "filter": receiver.filter, "digest": receiver.digest,
            })
        };
        let detail = json!({"name": after.name, "target_changed": after.target != before.target});
        let detail = with_changes(detail, &told(before), &told(&after));
        self.save(receiver, after, applied.writes, "alert_receiver.update", detail).await
    }

    /// Sends nothing about what happens before `until`; `None` ends that.
    pub async fn mute(
        &self,
        receiver: &Authorized<Receiver, AlertsWrite>,
        until: Option<Timestamp>,
    ) -> Result<Receiver, Error> {
        let after = Receiver { muted_until: until, ..(**receiver).clone() };
        let detail = json!({"name": after.name, "until": until.map(Timestamp::to_rfc3339_seconds)});
        self.save(receiver, after, Vec::new(), "alert_receiver.mute", detail).await
    }

    async fn save(
        &self,
        receiver: &Authorized<Receiver, AlertsWrite>,
        after: Receiver,
        mut writes: Vec<Write>,
        action: &str,
        detail: serde_json::Value,
    ) -> Result<Receiver, Error> {
        let now = self.clock.now();
        let after = Receiver { version: receiver.version + 1, updated_at: now, ..after };
        let kept = after.target.secret();
        // In the same commit. A secret that no receiver names could never be found and deleted.
        writes.extend(receiver.target.secret().filter(|old| Some(*old) != kept).map(deletion));
        writes.push(AlertWrite::Update(Box::new(after.clone())).into());
        writes.push(audit_line(receiver.grant().origin(), now, action, subject(&after), detail));
        self.store.commit(receiver.grant(), writes).await.map_err(refused)?;
        Ok(after)
    }

    /// Deletes a receiver, and what was not sent to it.
    pub async fn delete(&self, receiver: &Authorized<Receiver, AlertsWrite>) -> Result<(), Error> {
        let (grant, now) = (receiver.grant(), self.clock.now());
        let detail = json!({"name": receiver.name, "target": told_target(&receiver.target)});
        let mut writes = vec![AlertWrite::Delete { id: receiver.id.clone() }.into()];
        writes.extend(receiver.target.secret().map(deletion));
        writes.push(audit_line(grant.origin(), now, "alert_receiver.delete", subject(receiver), detail));
        self.store.commit(grant, writes).await.map(drop).map_err(refused)
    }

    /// Sends a test message now. Returns why it could not be sent.
    pub async fn test(&self, receiver: &Authorized<Receiver, AlertsWrite>) -> Result<Result<(), SendError>, Error> {
        let (grant, now) = (receiver.grant(), self.clock.now());
        let detail = json!({"name": receiver.name, "target": receiver.target.kind()});
        let line = audit_line(grant.origin(), now, "alert_receiver.test", subject(receiver), detail);
        // Recorded before it is sent: an administrator can make this server connect to a host of their choice.
        self.store.commit(grant, vec![line]).await?;
        if grant.is_dry_run() {
            return Ok(Ok(()));
        }
        self.send(receiver, &Message::test(receiver, now)).await
    }

    /// Sends a message. The outer error is one of this server, the inner one concerns the receiver.
    async fn send(&self, receiver: &Receiver, message: &Message) -> Result<Result<(), SendError>, Error> {
        // Opened only for the message, and dropped with it.
        let ids: Vec<SecretId> = receiver.target.secret().cloned().into_iter().collect();
        let opened = self.secrets.open(&ids).await?;
        let secret = ids.first().and_then(|id| opened.get(id)).map(|secret| secret.as_str());
        let now = self.clock.now();
        Ok(self.sender.send(Outgoing { target: &receiver.target, secret, message, now }).await)
    }

    fn check(&self, receiver: &Receiver) -> Result<(), Error> {
        receiver.check()?;
        self.sender.check(&receiver.target).map_err(|error| match error {
            SendError::Unusable { field, reason } => Error::invalid(field, reason),
            SendError::NotPermitted(reason) | SendError::Failed(reason) => Error::invalid("target", reason),
        })
    }
}

/// Where alerts go, for the audit log. Paths and queries of webhooks are left out: many contain a token.
fn told_target(target: &Target) -> serde_json::Value {
    match target {
        Target::Webhook { url, ca, .. } => json!({"type": "webhook", "url": origin_of(url), "own_ca": ca.is_some()}),
        Target::Email { host, port, security, username, from, to, ca, .. } => json!({
            "type": "email", "host": host, "port": port, "security": security, "username": username,
            "from": from, "to": to, "own_ca": ca.is_some(),
        }),
        Target::Syslog { host, port, tls, ca } => {
            json!({"type": "syslog", "host": host, "port": port, "tls": tls, "own_ca": ca.is_some()})
        }
    }
}

fn deletion(id: &SecretId) -> Write {
    Write::Secret(SecretWrite::Delete { id: id.clone() })
}

fn subject(receiver: &Receiver) -> String {
    format!("alert_receiver:{}", receiver.id)
}

fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::NameTaken(name)) => {
            Error::conflict("receiver_name_taken", format!("another receiver is named {name:?}"))
                .remedy("choose another name")
        }
        StoreError::Conflict(Precondition::Changed(_) | Precondition::Missing(_)) => {
            Error::conflict("receiver_changed", "the receiver has changed in the meantime").remedy("retry")
        }
        StoreError::Conflict(Precondition::TooManyReceivers(most)) => {
            Error::new(ErrorKind::Conflict, "too_many_receivers", format!("a space has at most {most} receivers"))
        }
        other => other.into(),
    }
}
