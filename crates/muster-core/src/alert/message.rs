//! What is sent: an event, or a digest of many.

use serde_json::{Map, Value, json};

use super::Receiver;
use crate::event::{Event, EventKind, Subject};
use crate::id::SpaceId;
use crate::time::Timestamp;

/// Maximum number of subjects that a digest lists.
const MOST_SUBJECTS: usize = 100;
/// Maximum length of a message as JSON, bytes.
const MAX_BODY: usize = 64 << 10;
/// Maximum length of a text of the detail, bytes.
const TEXT_BYTES: usize = 2_000;
/// Maximum number of items of a list of the detail.
const MOST_ITEMS: usize = 100;

/// A message to a receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Id. The same at each attempt, unless a digest grows between two.
    pub id: String,
    /// Kind of its events.
    pub kind: EventKind,
    /// Time of the event; of a digest, of its last one.
    pub at: Timestamp,
    /// The space.
    pub space: SpaceId,
    /// What it happened to; `None` for a digest.
    pub subject: Option<Subject>,
    /// The state before.
    pub before: Option<String>,
    /// The state after.
    pub after: Option<String>,
    /// What else is known.
    pub detail: Value,
    /// The events that were combined.
    pub digest: Option<Digested>,
    /// Numbers of its events.
    pub covers: Vec<i64>,
}

/// Events of one kind that were combined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digested {
    /// Their number.
    pub count: usize,
    /// Time of the first one.
    pub first_at: Timestamp,
    /// Id and name of the first hundred subjects.
    pub subjects: Vec<(String, String)>,
}

fn id(seq: i64, at: Timestamp) -> String {
    // With the time: after a restore from a backup, numbers are used again.
    format!("evt_{:x}_{seq}", at.as_micros())
}

impl Message {
    /// Creates the message of one event.
    pub(super) fn of(receiver: &Receiver, (seq, event): &(i64, Event)) -> Self {
        Self {
            id: id(*seq, event.at),
            kind: event.kind,
            at: event.at,
            space: receiver.space.clone(),
            subject: Some(event.subject.clone()),
            before: event.before.clone(),
            after: event.after.clone(),
            detail: bounded(&event.detail),
            digest: None,
            covers: vec![*seq],
        }
    }

    /// Creates the digest of events of one kind, of which there is at least one.
    pub(super) fn digest(receiver: &Receiver, events: &[&(i64, Event)]) -> Option<Self> {
        let ((seq, first), (_, last)) = (*events.first()?, *events.last()?);
        let subject = |(_, event): &&(i64, Event)| (event.subject.id.clone(), event.subject.name.clone());
        let digest = Digested {
            count: events.len(),
            first_at: first.at,
            subjects: events.iter().take(MOST_SUBJECTS).map(subject).collect(),
        };
        Some(Self {
            id: format!("{}_{}", id(*seq, first.at), events.len()),
            kind: first.kind,
            at: last.at,
            space: receiver.space.clone(),
            subject: None,
            before: None,
            after: first.after.clone(),
            detail: json!({}),
            digest: Some(digest),
            covers: events.iter().map(|(seq, _)| *seq).collect(),
        })
    }

    /// Creates the message of a test.
    pub fn test(receiver: &Receiver, now: Timestamp) -> Self {
        Self {
            id: format!("test_{:x}", now.as_micros()),
            kind: EventKind::Test,
            at: now,
            space: receiver.space.clone(),
            subject: None,
            before: None,
            after: None,
            detail: json!({"receiver": receiver.name}),
            digest: None,
            covers: Vec::new(),
        }
    }

    /// Returns the message as JSON, as webhooks get it.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("id".into(), self.id.clone().into());
        fields.insert("type".into(), self.kind.as_str().into());
        fields.insert("time".into(), self.at.to_rfc3339_millis().into());
        fields.insert("space".into(), self.space.as_str().into());
        if let Some(subject) = &self.subject {
            fields.insert("subject".into(), subject_json(subject));
        }
        fields.extend(self.before.clone().map(|before| ("before".to_owned(), before.into())));
        fields.extend(self.after.clone().map(|after| ("after".to_owned(), after.into())));
        fields.insert("detail".into(), self.detail.clone());
        if let Some(digest) = &self.digest {
            let subjects: Vec<Value> =
                digest.subjects.iter().map(|(id, name)| json!({"id": id, "name": name})).collect();
            let json =
                json!({"count": digest.count, "from": digest.first_at.to_rfc3339_millis(), "subjects": subjects});
            fields.insert("digest".into(), json);
        }
        Value::Object(fields)
    }

    /// Returns the JSON text, at most 64 KiB.
    pub fn body(&self) -> String {
        let text = self.to_json().to_string();
        if text.len() <= MAX_BODY {
            return text;
        }
        // Only lists that agents report are that long.
        Self { detail: json!({"truncated": true}), ..self.clone() }.to_json().to_string()
    }

    /// Returns a line for people, at most a few hundred characters.
    pub fn summary(&self) -> String {
        let state = match (&self.before, &self.after) {
            (Some(before), Some(after)) => format!(" ({before} → {after})"),
            (None, Some(after)) => format!(" ({after})"),
            _ => String::new(),
        };
        let text = match (&self.digest, &self.subject) {
            (Some(digest), _) => format!("{}: {} events since {}", self.kind, digest.count, digest.first_at),
            (None, Some(subject)) => format!("{}: {} {}{state}", self.kind, subject.kind, subject.name),
            (None, None) => format!("{}: test message of Muster", self.kind),
        };
        // Names come from agents: a line break would begin another line of a log, or another header of a mail.
        let plain: String = text.chars().map(|c| if crate::reported::is_deceptive(c) { ' ' } else { c }).collect();
        crate::reported::shortened_to(&plain, 400).into_owned()
    }
}

fn subject_json(subject: &Subject) -> Value {
    let mut json = json!({"type": subject.kind, "id": subject.id, "name": subject.name});
    if let Some(policy) = &subject.policy_id {
        json["policy_id"] = policy.as_str().into();
    }
    if !subject.tags.is_empty() {
        json["tags"] = subject.tags.iter().take(MOST_ITEMS).cloned().collect();
    }
    json
}

/// Shortens texts and lists: what agents report is not trusted.
fn bounded(value: &Value) -> Value {
    match value {
        Value::String(text) => crate::reported::shortened_to(text, TEXT_BYTES).into(),
        Value::Array(items) => items.iter().take(MOST_ITEMS).map(bounded).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), bounded(value))).collect(),
        other => other.clone(),
    }
}
