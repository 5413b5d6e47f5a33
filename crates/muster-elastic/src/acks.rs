//! `POST /api/fleet/agents/{id}/acks` (EA §5). No `User-Agent` check here (EA123).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use muster_core::acknowledge::{Ack, Acks, Subject, Verdict};
use muster_core::action::ActionType;
use muster_core::id::ActionId;
use muster_core::time::Timestamp;
use muster_protocol::elastic::ack::{AckEvent, AckItem, AckRequest, AckResponse, RetryPayload};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::{Call, Inner, authorization, json, respond};
use muster_listen::receive::BodyError;
use muster_listen::reply::Reply;

impl Inner {
    pub(super) async fn acks<B>(&self, id: &str, call: Call<'_, B>) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        // Before the body is read: a request without a valid key must not cost decoding.
        let key = authorization::api_key(call.headers())?;
        let entry = self.fleet.authentication().agent(id, &key).await?;
        let body = call.read().await?;
        let request: AckRequest<'_> = json::parse(&body)?;
        let acks = read(&request.events.unwrap_or_default());
        let verdicts = self.fleet.check_ins().acknowledge(&entry, &acks).await?;
        let items: Vec<AckItem> = verdicts.into_iter().map(item).collect();
        // The status is the largest one of the items, and the body is sent with every status (EA113): agents read the
        // items from it even after an error.
        let status = items.iter().map(|item| item.status).max().unwrap_or(200);
        let errors = items.iter().any(|item| item.status != 200);
        let mut reply = respond::json(&AckResponse { action: "acks".into(), errors, items })?;
        *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Ok(reply)
    }
}

/// Converts a verdict to its item (EA115).
fn item(verdict: Verdict) -> AckItem {
    let (status, message) = match verdict {
        Verdict::Taken => (200, "OK"),
        Verdict::Refused => (400, "Bad Request"),
        Verdict::Unknown => (404, "Not Found"),
    };
    AckItem { status, message: Some(Cow::Borrowed(message)) }
}

/// Reads events. A malformed event affects only its own item, and a field that can't be read counts as missing (EA §5.1): if
/// one bad event failed the request, the acks beside it would be lost.
fn read<'a>(events: &[&'a RawValue]) -> Acks<'a> {
    Acks(events.iter().map(|raw| ack(read_event(raw))).collect())
}

fn ack(event: AckEvent<'_>) -> Ack<'_> {
    Ack {
        subject: subject(event.action_id.as_deref().unwrap_or_default()),
        agent: event.agent_id.clone(),
        error: event.error.clone(),
        retries: event.payload.is_some_and(|payload| payload.retry),
        // A missing or malformed time is replaced by the time of receipt.
        at: event.timestamp.as_deref().and_then(|at| Timestamp::parse_rfc3339(at).ok()),
        // A closure, because the type is known only after the action was looked up.
        fields: Some(Box::new(move |kind| fields(kind, &event))),
    }
}

/// Prefix of an `action_id` that acknowledges a policy revision instead of an action (EA116).
const POLICY_PREFIX: &str = "policy:";

fn subject(id: &str) -> Subject {
    match id.strip_prefix(POLICY_PREFIX) {
        Some(policy) => Subject::Policy(policy_revision(policy)),
        None => Subject::Action(ActionId::parse(id).ok()),
    }
}

/// Parses `<id>:<revision>`, with an optional third part (the coordinator index) that old servers added.
fn policy_revision(text: &str) -> Option<(String, i64)> {
    let mut parts = text.split(':');
    let id = parts.next().filter(|id| !id.is_empty())?;
    let revision = parts.next()?.parse().ok()?;
    // Ids contain no colon, so the parts are unambiguous.
    let legacy = parts.next().is_none_or(|part| part.parse::<i64>().is_ok());
    (legacy && parts.next().is_none()).then(|| (id.to_owned(), revision))
}

/// Returns the fields of an ack that are specific to the action's type (EA120), as JSON text.
fn fields(kind: ActionType, event: &AckEvent<'_>) -> Option<Arc<str>> {
    let kept = match kind {
        ActionType::RequestDiagnostics => Fields { data: event.data, ..Fields::default() },
        ActionType::Upgrade => Fields { payload: event.payload, ..Fields::default() },
        ActionType::InputAction => Fields {
            action_input_type: event.action_input_type.as_deref(),
            action_data: event.action_data,
            action_response: event.action_response,
            started_at: event.started_at.as_deref(),
            completed_at: event.completed_at.as_deref(),
            ..Fields::default()
        },
        // Fields of other types are not stored (EA120).
        _ => return None,
    };
    serde_json::to_string(&kept).ok().filter(|text| text != "{}").map(Into::into)
}

/// Fields that are specific to a type of action. Values are copied as raw text, not decoded.
#[derive(Default, Serialize)]
struct Fields<'e> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<RetryPayload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action_input_type: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action_data: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action_response: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<&'e str>,
}

fn read_event<'a>(raw: &'a RawValue) -> AckEvent<'a> {
    // The strict decoder is faster, and fits almost every event.
    serde_json::from_str(raw.get()).unwrap_or_else(|_| read_leniently(raw))
}

/// Reads an event field by field; a field that can't be read is missing.
fn read_leniently<'a>(raw: &'a RawValue) -> AckEvent<'a> {
    let fields: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
    AckEvent {
        kind: None,
        subtype: None,
        agent_id: text(&fields, "agent_id"),
        action_id: text(&fields, "action_id"),
        message: text(&fields, "message"),
        timestamp: text(&fields, "timestamp"),
        error: error(&fields),
        payload: fields.get("payload").and_then(|raw| serde_json::from_str::<RetryPayload>(raw.get()).ok()),
        data: fields.get("data").copied(),
        action_input_type: text(&fields, "action_input_type"),
        action_data: fields.get("action_data").copied(),
        action_response: fields.get("action_response").copied(),
        started_at: text(&fields, "started_at"),
        completed_at: text(&fields, "completed_at"),
    }
}

/// A string that borrows from the event unless it has escapes. `Cow` alone always copies in serde.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn text<'a>(fields: &BTreeMap<Cow<'a, str>, &'a RawValue>, key: &str) -> Option<Cow<'a, str>> {
    let raw: &'a RawValue = fields.get(key)?;
    serde_json::from_str::<Text<'a>>(raw.get()).ok().map(|text| text.0)
}

/// Returns the `error` of an event. A value that is not a string is still an error: a malformed failure must not be
/// recorded as a success.
fn error<'a>(fields: &BTreeMap<Cow<'a, str>, &'a RawValue>) -> Option<Cow<'a, str>> {
    let raw = fields.get("error").filter(|raw| raw.get() != "null")?;
    Some(text(fields, "error").unwrap_or_else(|| Cow::Borrowed(raw.get())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with_one<T>(event: &Value, look: impl FnOnce(&Ack<'_>) -> T) -> T {
        let raw = RawValue::from_string(event.to_string()).unwrap();
        look(&read(&[&raw]).0[0])
    }

    #[test]
    fn ea116_policy_acks_are_recognized_by_their_prefix() {
        let policy = |id: &str| match subject(id) {
            Subject::Policy(policy) => policy,
            Subject::Action(_) => panic!("{id} is a policy"),
        };
        assert_eq!(policy("policy:p:2"), Some(("p".into(), 2)));
        assert_eq!(policy("policy:p:3:1"), Some(("p".into(), 3)));
        for unread in ["policy:p:x", "policy:p", "policy:p:2:1:1", "policy::2", "policy:p:2:x"] {
            assert_eq!(policy(unread), None, "{unread}");
        }
        assert_eq!(subject("a-1"), Subject::Action(Some(ActionId::trusted("a-1"))));
        assert_eq!(subject(""), Subject::Action(None));
    }

    #[test]
    fn ea112_a_malformed_event_acknowledges_nothing() {
        for malformed in [json!(5), json!({}), json!([1]), json!({"action_id": 7})] {
            with_one(&malformed, |ack| assert_eq!(ack.subject, Subject::Action(None), "{malformed}"));
        }
    }

    #[test]
    fn ea120_unreadable_fields_are_missing_but_a_malformed_error_is_still_an_error() {
        with_one(&json!({"action_id": "out", "timestamp": 5, "error": {"code": 1}}), |ack| {
            assert_eq!((ack.error.as_deref(), ack.at), (Some(r#"{"code":1}"#), None));
            assert_eq!(ack.subject, Subject::Action(Some(ActionId::trusted("out"))));
        });
        with_one(&json!({"action_id": "out", "error": null}), |ack| assert_eq!(ack.error, None));
    }

    #[test]
    fn ea120_results_contain_the_fields_of_the_action_type() {
        let fields = |event: Value, kind| with_one(&event, |ack| ack.fields.as_ref().unwrap()(kind));
        let diagnostics = json!({"data": {"upload_id": "u"}, "action_response": {"x": 1}});
        assert_eq!(
            fields(diagnostics.clone(), ActionType::RequestDiagnostics).as_deref(),
            Some(r#"{"data":{"upload_id":"u"}}"#)
        );
        assert_eq!(fields(diagnostics, ActionType::Settings), None);
        let input = json!({"action_input_type": "osquery", "action_response": {"rows": 1}, "started_at": "s",
            "completed_at": "c", "data": 1});
        assert_eq!(
            fields(input, ActionType::InputAction).as_deref(),
            Some(r#"{"action_input_type":"osquery","action_response":{"rows":1},"completed_at":"c","started_at":"s"}"#)
        );
        let upgrade = json!({"error": "e", "payload": {"retry": true, "retry_attempt": 1}});
        assert_eq!(
            fields(upgrade.clone(), ActionType::Upgrade).as_deref(),
            Some(r#"{"payload":{"retry":true,"retry_attempt":1}}"#)
        );
        assert!(with_one(&upgrade, |ack| ack.retries));
        assert_eq!(fields(json!({}), ActionType::Upgrade), None);
    }
}
