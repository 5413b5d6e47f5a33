//! Receivers of log lines: NDJSON, or OTLP over HTTP with JSON (OpenTelemetry protocol 1.x, `/v1/logs`).

use std::time::Duration;

use muster_fleet::alerts::sender::SendError;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::{tls, webhook};

/// Maximum time of a request.
const TIMEOUT: Duration = Duration::from_secs(30);

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

    /// Sends lines.
    pub async fn send(&self, lines: &str) -> Result<(), NotAccepted> {
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
            status if status.is_success() => Ok(()),
            // Only these are about the content: anything else, such as a wrong token, ends when somebody mends it.
            status @ (StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY) => {
                Err(NotAccepted::Rejected(format!("the receiver responded with {status}")))
            }
            status => Err(NotAccepted::Later(format!("the receiver responded with {status}"))),
        }
    }
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
    let nanos = at.map(|at| (i128::from(at.as_micros()) * 1_000).to_string());
    let attributes: Vec<Value> = [
        ("muster.space", parsed.space),
        ("host.id", parsed.host_id),
        ("muster.agent.id", parsed.agent_id),
        ("osquery.log", parsed.log_type),
    ]
    .into_iter()
    .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
    .collect();
    json!({"observedTimeUnixNano": nanos, "attributes": attributes, "body": {"stringValue": parsed.line.get()}})
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
