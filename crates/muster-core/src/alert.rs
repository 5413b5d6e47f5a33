//! Alerts: events that are sent to receivers.
//!
//! A [`Receiver`] is a webhook, a mailbox or a syslog server, with a filter. It has a [`Progress`] in the log of events: a
//! cursor, and the events after it that are done with. What to send next is a pure function of both, of the events that
//! follow, and of the time ([`Receiver::next`]). Progress is stored after each message, so that a restart repeats one message
//! at most, and loses none.

mod check;
mod message;
mod plan;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::check::{MAX_ITEMS, MAX_NAME, MAX_WINDOW};
pub use self::message::{Digested, Message};
pub use self::plan::{Around, Next, Read, Skipped};
use crate::event::{Event, EventKind};
use crate::id::{AlertReceiverId, PolicyId, SecretId, SpaceId};
use crate::time::Timestamp;

/// Time for which an event that could not be sent is retried.
pub const RETRIED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Pause after the first failure. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// A receiver of alerts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// Id.
    pub id: AlertReceiverId,
    /// The space whose events it gets.
    pub space: SpaceId,
    /// Its name, unique in the space.
    pub name: String,
    /// Where messages are sent.
    pub target: Target,
    /// Which events are sent.
    pub filter: Filter,
    /// When events are combined.
    pub digest: Digest,
    /// Whether anything is sent. Events of the time in which it was disabled are not sent later.
    pub is_enabled: bool,
    /// Events before this time are not sent.
    pub muted_until: Option<Timestamp>,
    /// Number of changes, for preconditions.
    pub version: i64,
    /// Creation time.
    pub created_at: Timestamp,
    /// The actor that created it.
    pub created_by: String,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// Where messages are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Target {
    /// An HTTP endpoint.
    Webhook {
        /// Its URL.
        url: String,
        /// The key of the signatures.
        secret: SecretId,
        /// PEM certificates of CAs, instead of the system's.
        ca: Option<String>,
    },
    /// Mailboxes.
    Email {
        /// Host of the mail server.
        host: String,
        /// Port of the mail server.
        port: u16,
        /// How the connection is encrypted.
        security: MailSecurity,
        /// User name; `None` sends without authentication.
        username: Option<String>,
        /// Password of the user.
        password: Option<SecretId>,
        /// Sender.
        from: String,
        /// Recipients.
        to: Vec<String>,
        /// PEM certificates of CAs, instead of the system's.
        ca: Option<String>,
    },
    /// A syslog server (RFC 5424 over TCP).
    Syslog {
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// Whether the connection uses TLS (RFC 5425).
        tls: bool,
        /// PEM certificates of CAs, instead of the system's.
        ca: Option<String>,
    },
}

impl Target {
    /// Returns its type as a word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Email { .. } => "email",
            Self::Syslog { .. } => "syslog",
        }
    }

    /// Returns the id of its secret.
    pub fn secret(&self) -> Option<&SecretId> {
        match self {
            Self::Webhook { secret, .. } => Some(secret),
            Self::Email { password, .. } => password.as_ref(),
            Self::Syslog { .. } => None,
        }
    }

    /// Returns the field by which `self` sends the secret of `before` to another place, or over another connection.
    pub fn moved_from(&self, before: &Self) -> Option<&'static str> {
        let changes: &[(&'static str, bool)] = match (self, before) {
            (Self::Webhook { url, ca, .. }, Self::Webhook { url: old_url, ca: old_ca, .. }) => {
                &[("webhook.url", url != old_url), ("webhook.ca", ca != old_ca)]
            }
            (
                Self::Email { host, port, security, ca, .. },
                Self::Email { host: old_host, port: old_port, security: old_security, ca: old_ca, .. },
            ) => &[
                ("email.host", host != old_host),
                ("email.port", port != old_port),
                ("email.security", security != old_security),
                ("email.ca", ca != old_ca),
            ],
            // Syslog has no secret, and a target of another type gets a new one.
            _ => &[],
        };
        changes.iter().find(|(_, differs)| *differs).map(|(field, _)| *field)
    }
}

/// How a connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailSecurity {
    /// TLS from the first byte (RFC 8314).
    #[default]
    Tls,
    /// STARTTLS, which is required.
    Starttls,
    /// Not at all.
    None,
}

/// Which events are sent. Conditions on policies and tags concern agents; other events pass them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Kinds of events; empty means all.
    pub events: Vec<EventKind>,
    /// Policies of agents; empty means all.
    pub policies: Vec<PolicyId>,
    /// Tags, at least one of which an agent must have; empty means all agents.
    pub tags: Vec<String>,
    /// Tags of which an agent must have none, such as `maintenance`.
    pub except_tags: Vec<String>,
}

impl Filter {
    /// Returns whether an event passes.
    pub fn passes(&self, event: &Event) -> bool {
        if !self.events.is_empty() && !self.events.contains(&event.kind) {
            return false;
        }
        if event.subject.kind != "agent" {
            return true;
        }
        let subject = &event.subject;
        let has = |tags: &[String]| subject.tags.iter().any(|tag| tags.contains(tag));
        let of_policy = || subject.policy_id.as_ref().is_some_and(|policy| self.policies.contains(policy));
        (self.policies.is_empty() || of_policy())
            && (self.tags.is_empty() || has(&self.tags))
            && !has(&self.except_tags)
    }
}

/// When events of one kind are combined to one message (MG167).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Number of events from which they are combined.
    pub threshold: u32,
    /// Time for which events are held that may be many.
    pub window: Duration,
}

impl Default for Digest {
    fn default() -> Self {
        Self { threshold: 20, window: Duration::from_secs(60) }
    }
}

/// How far a receiver is in the log of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// All events up to this number are done with.
    pub cursor: i64,
    /// Events after the cursor that are done with.
    pub done: BTreeSet<i64>,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
    /// Number of messages that were sent.
    pub delivered: u64,
    /// Number of events that were given up.
    pub dropped: u64,
    /// Number of events that were not sent, because a server was lost (MG168).
    pub suppressed: u64,
    /// Time of the last message.
    pub last_delivered_at: Option<Timestamp>,
}

/// Why a receiver fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Time of the first failed attempt.
    pub since: Timestamp,
    /// Number of failed attempts.
    pub attempts: u32,
    /// Reason of the last one.
    pub reason: String,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

impl Progress {
    /// Starts after the newest event.
    pub fn from(newest: i64) -> Self {
        Self { cursor: newest, ..Self::default() }
    }

    /// Records that a message was sent.
    pub fn delivered(&mut self, message: &Message, read: &[(i64, Event)], now: Timestamp) {
        self.failure = None;
        self.delivered += 1;
        self.last_delivered_at = Some(now);
        self.finish(&message.covers, read);
    }

    /// Records that events are not sent.
    pub fn skipped(&mut self, skipped: &Skipped, read: &[(i64, Event)]) {
        self.dropped += skipped.dropped;
        self.suppressed += skipped.suppressed;
        self.finish(&skipped.covers, read);
    }

    /// Records a failed attempt. Each pause is twice as long as the one before.
    pub fn failed(&mut self, reason: String, now: Timestamp) {
        let (since, before) = self.failure.as_ref().map_or((now, 0), |known| (known.since, known.attempts));
        // The limit keeps the shift in range. The longest pause is reached before.
        let pause = FIRST_PAUSE.saturating_mul(1 << before.min(10)).min(LONGEST_PAUSE);
        self.failure = Some(Failure { since, attempts: before.saturating_add(1), reason, retry_at: now.plus(pause) });
    }

    /// Advances the cursor over the events of `read` that are done with, from its beginning.
    fn finish(&mut self, covers: &[i64], read: &[(i64, Event)]) {
        self.done.extend(covers);
        let mut cursor = self.cursor;
        // Up to the first open event. What is done after it stays in `done`.
        for (seq, _) in read {
            if self.is_open(*seq) {
                break;
            }
            cursor = cursor.max(*seq);
        }
        self.cursor = cursor;
        self.done.retain(|seq| *seq > cursor);
    }

    /// Returns whether an event is yet to be sent or skipped.
    pub fn is_open(&self, seq: i64) -> bool {
        seq > self.cursor && !self.done.contains(&seq)
    }
}
