//! Receivers of log lines: NDJSON, or OTLP over HTTP with JSON (OpenTelemetry protocol 1.x, `/v1/logs`).

use std::time::Duration;

use muster_fleet::alerts::sender::SendError;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::{tls, webhook};

/// Maximum time of a request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum length of a response that is read, bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// Format of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// The lines as they are in the files (`application/x-ndjson`).
    #[default]
    Ndjson,
    /// `ExportLogsServiceRequest` in JSON.
    Otlp,
}

/// Why lines were not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAccepted {
    /// A later attempt can succeed.
    Later(String),
    /// The receiver rejects the content, and would do so again.
    Rejected(String),
}

/// A receiver. Connections are kept open between requests.
pub struct LogReceiver {
    client: Client,
    url: Url,
    format: LogFormat,
    authorization: Option<HeaderValue>,
}

impl LogReceiver {
    /// Creates a receiver. `authorization` is the value of the header; `ca` are the CAs to trust, in PEM, instead of the
    /// system's.
    ///
    /// # Errors
    /// If a value cannot be used; the error names it.
    pub fn new(url: &str, format: LogFormat, authorization: Option<&str>, ca: Option<&str>) -> Result<Self, SendError> {
        let authorization = authorization.map(|text| {
            let mut value = HeaderValue::from_str(text.trim()).map_err(|_| SendError::Unusable {
                field: "authorization_file",
                reason: "contains characters that are not allowed in a header".to_owned(),
            })?;
            value.set_sensitive(true);
            Ok(value)
        });
        // Fails only if a provider is installed already.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let client = Client::builder()
            .tls_backend_preconfigured(tls::client_config("ca", ca)?)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| SendError::Failed("the HTTP client could not be set up".to_owned()))?;
        Ok(Self { client, url: parse(url)?, format, authorization: authorization.transpose()? })
    }

    /// Sends lines. Returns the number of those that the receiver says it has rejected.
    pub async fn send(&self, lines: &str) -> Result<u64, NotAccepted> {
        let (kind, body) = match self.format {
            LogFormat::Ndjson => ("application/x-ndjson", lines.to_owned()),
            LogFormat::Otlp => ("application/json", otlp(lines)),
        };
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, kind).body(body);
        let request = match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        };
        let response = request.send().await.map_err(|error| NotAccepted::Later(webhook::reason(&error)))?;
        match response.status() {
            status if status.is_success() && self.format == LogFormat::Otlp => Ok(rejected(&body_of(response).await)),
            status if status.is_success() => Ok(0),
            // Only these are about the content: anything else, such as a wrong token, ends when somebody mends it.
            status @ (StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY) => {
                Err(NotAccepted::Rejected(format!("the receiver responded with {status}")))
            }
            status => Err(NotAccepted::Later(format!("the receiver responded with {status}"))),
        }
    }
}

/// `ExportLogsServiceResponse`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Exported {
    partial_success: Option<PartialSuccess>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PartialSuccess {
    /// An integer, or as JSON of protocol buffers has 64-bit integers, a string.
    rejected_log_records: Value,
}

/// Returns the beginning of a body. The lines are accepted, whatever becomes of the rest of the response.
async fn body_of(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = MAX_RESPONSE - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_RESPONSE {
            break;
        }
    }
    body
}

/// Returns the number of records that a receiver has rejected although it accepted the request: it must not get them again.
fn rejected(body: &[u8]) -> u64 {
    let exported: Exported = serde_json::from_slice(body).unwrap_or_default();
    let count = exported.partial_success.map(|partial| partial.rejected_log_records);
    count.and_then(|count| integer(&count)).and_then(|count| u64::try_from(count).ok()).unwrap_or_default()
}

/// Reads a number that may be a string.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn parse(url: &str) -> Result<Url, SendError> {
    webhook::parse(url).map_err(|error| match error {
        SendError::Unusable { .. } => {
            let reason = "must be an https or http URL without a user name".to_owned();
            SendError::Unusable { field: "url", reason }
        }
        error => error,
    })
}

/// A line of a file, as far as OTLP has attributes for it.
#[derive(Deserialize)]
struct Line<'a> {
    received_at: &'a str,
    space: &'a str,
    host_id: &'a str,
    agent_id: &'a str,
    log_type: &'a str,
    #[serde(borrow)]
    line: &'a RawValue,
}

/// What OTLP has members for in a line of osqueryd. In lines of its status, all values are strings (FL163).
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Told {
    unix_time: Value,
    severity: Value,
    decorations: Map<String, Value>,
}

impl Told {
    /// Returns `timeUnixNano`.
    fn nanos(&self) -> Option<String> {
        integer(&self.unix_time).filter(|seconds| *seconds > 0).map(|seconds| nanos(seconds.into(), 1_000_000_000))
    }

    /// Returns `severityNumber` and `severityText`.
    fn severity(&self) -> Option<(u8, &'static str)> {
        match integer(&self.severity)? {
            0 => Some((9, "INFO")),
            1 => Some((13, "WARN")),
            2 => Some((17, "ERROR")),
            _ => None,
        }
    }
}

fn nanos(count: i128, unit: i128) -> String {
    (count * unit).to_string()
}

/// Creates an `ExportLogsServiceRequest`: a record for each line, whose body is what osqueryd wrote.
fn otlp(lines: &str) -> String {
    let records: Vec<Value> = lines.lines().filter(|line| !line.is_empty()).map(record).collect();
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    json!({"resourceLogs": [{
        "resource": {"attributes": [attribute("service.name", "osquery")]},
        "scopeLogs": [{"scope": {"name": "muster"}, "logRecords": records}],
    }]})
    .to_string()
}

fn record(line: &str) -> Value {
    let Ok(parsed) = serde_json::from_str::<Line<'_>>(line) else {
        return json!({"body": {"stringValue": line}});
    };
    let at = muster_core::time::Timestamp::parse_rfc3339(parsed.received_at).ok();
    let told: Told = serde_json::from_str(parsed.line.get()).unwrap_or_default();
    let hostname = told.decorations.get("hostname").and_then(Value::as_str);
    let attributes: Vec<Value> = [
        ("muster.space", parsed.space),
        ("host.id", parsed.host_id),
        ("muster.agent.id", parsed.agent_id),
        ("osquery.log", parsed.log_type),
    ]
    .into_iter()
    .chain(hostname.map(|name| ("host.name", name)))
    .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
    .collect();
    let mut record = json!({
        "observedTimeUnixNano": at.map(|at| nanos(at.as_micros().into(), 1_000)),
        "attributes": attributes,
        "body": {"stringValue": parsed.line.get()},
    });
    if let Some(nanos) = told.nanos() {
        record["timeUnixNano"] = nanos.into();
    }
    if let Some((number, text)) = told.severity() {
        (record["severityNumber"], record["severityText"]) = (number.into(), text.into());
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_otlp_record_has_the_ids_as_attributes_and_the_line_as_its_body() {
        let line = r#"{"received_at":"2026-09-29T10:00:00.000Z","space":"blue","host_id":"h","agent_id":"a","log_type":"result","line":{"name":"users"}}"#;
        let request: Value = serde_json::from_str(&otlp(&format!("{line}\nnot json\n"))).unwrap();
        let records = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0]["observedTimeUnixNano"], "1790676000000000000");
        assert_eq!(records[0]["body"]["stringValue"], r#"{"name":"users"}"#);
        assert_eq!(records[0]["attributes"][1], json!({"key": "host.id", "value": {"stringValue": "h"}}));
        assert_eq!(records[1]["body"]["stringValue"], "not json");
    }

    #[test]
    fn an_otlp_record_has_the_time_the_severity_and_the_name_of_the_host_that_the_line_has() {
        let of = |line: Value| {
            let line = json!({"received_at": "2026-09-29T10:00:00Z", "space": "s", "host_id": "h", "agent_id": "a",
                "log_type": "status", "line": line});
            record(&line.to_string())
        };
        let status = of(json!({"unixTime": "1790676000", "severity": "2", "decorations": {"hostname": "web-7"}}));
        assert_eq!(status["timeUnixNano"], "1790676000000000000");
        assert_eq!((&status["severityNumber"], &status["severityText"]), (&json!(17), &json!("ERROR")));
        assert_eq!(status["attributes"][4], json!({"key": "host.name", "value": {"stringValue": "web-7"}}));
        let result = of(json!({"unixTime": 1_790_676_000, "name": "users"}));
        assert_eq!(result["timeUnixNano"], "1790676000000000000");
        for line in [json!({"unixTime": "x", "severity": 7}), json!({"unixTime": 0}), json!("text")] {
            let record = of(line);
            assert!(record.get("timeUnixNano").is_none() && record.get("severityNumber").is_none(), "{record}");
        }
    }

    #[test]
    fn records_that_a_receiver_rejects_are_counted() {
        let of = |count: Value| {
            rejected(
                json!({"partialSuccess": {"rejectedLogRecords": count, "errorMessage": "x"}}).to_string().as_bytes(),
            )
        };
        assert_eq!([of(json!("3")), of(json!(1)), of(json!(-1)), of(json!(null))], [3, 1, 0, 0]);
        for none in ["", "{}", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":null}"#, "["] {
            assert_eq!(rejected(none.as_bytes()), 0, "{none}");
        }
    }

    #[test]
    fn unusable_settings_are_rejected() {
        let new = |url: &str, authorization: Option<&str>, ca: Option<&str>| {
            LogReceiver::new(url, LogFormat::Otlp, authorization, ca).map(drop)
        };
        assert!(new("http://127.0.0.1:4318/v1/logs", Some("Bearer x\n"), None).is_ok());
        assert!(matches!(new("nonsense", None, None), Err(SendError::Unusable { .. })));
        assert!(matches!(
            new("http://h/", Some("a\u{1}"), None),
            Err(SendError::Unusable { field: "authorization_file", .. })
        ));
        assert!(matches!(new("https://h/", None, Some("none")), Err(SendError::Unusable { field: "ca", .. })));
    }
}
