//! `/api/fleet/alerts`: receivers of alerts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Receiver of alerts. Exactly one of `webhook`, `email` and `syslog` is present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AlertReceiver {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Whether anything is sent.
    pub enabled: bool,
    /// HTTP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Mailboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// Syslog server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syslog: Option<Syslog>,
    /// Kinds of events that are sent; empty means all.
    #[serde(default)]
    pub events: Vec<String>,
    /// Policies whose agents are concerned; empty means all.
    #[serde(default)]
    pub policy_ids: Vec<String>,
    /// Tags, at least one of which an agent must have; empty means all agents.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Tags, none of which an agent may have.
    #[serde(default)]
    pub except_tags: Vec<String>,
    /// When events are combined.
    #[serde(default)]
    pub digest: AlertDigest,
    /// Events before this time are not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<String>,
    /// Creation time.
    #[serde(default)]
    pub created_at: String,
    /// Who created it.
    #[serde(default)]
    pub created_by: String,
    /// Time of the last change.
    #[serde(default)]
    pub updated_at: String,
    /// What was sent.
    #[serde(default)]
    pub delivery: Delivery,
}

/// HTTP endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// URL: https, or http on the server's own host.
    pub url: String,
    /// Signing key. In a request, absent keeps the key, or generates one for a new webhook. In a response, only
    /// after it was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// PEM certificates of CAs, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Mailboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// Host of the mail server.
    pub host: String,
    /// Port; by default 465, 587 for `starttls` and 25 for `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tls` (default), `starttls` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<String>,
    /// User name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password, only in requests; absent keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Sender.
    pub from: String,
    /// Recipients.
    pub to: Vec<String>,
    /// PEM certificates of CAs, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Syslog server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    /// Host.
    pub host: String,
    /// Port; by default 6514, and 601 without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether the connection uses TLS; default `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// PEM certificates of CAs, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// When events of one kind are combined to one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertDigest {
    /// Number of events from which they are combined; default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
    /// Seconds for which frequent events are held; default 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u64>,
}

/// What was sent to a receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct Delivery {
    /// Number of messages that were sent.
    pub delivered: u64,
    /// Number of events that were dropped after a day.
    pub dropped: u64,
    /// Number of events that were not sent, because a server was lost.
    pub suppressed: u64,
    /// Time of the last message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivered_at: Option<String>,
    /// Time since when it has been failing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<String>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time of the next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
}

/// `POST /alerts` and `PUT /alerts/{id}`. In an update, absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaveAlertReceiver {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether anything is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// HTTP endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Mailboxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// Syslog server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog: Option<Syslog>,
    /// Kinds of events; empty means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
    /// Policies of agents; empty means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_ids: Option<Vec<String>>,
    /// Tags, at least one of which an agent must have; empty means all agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Tags, none of which an agent may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub except_tags: Option<Vec<String>>,
    /// When events are combined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<AlertDigest>,
}

/// `POST /alerts/{id}/mute`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuteAlertReceiver {
    /// Seconds for which nothing is sent; if absent, the receiver is unmuted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u64>,
}

/// Outcome of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AlertTest {
    /// Whether the receiver accepted the message.
    pub accepted: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
