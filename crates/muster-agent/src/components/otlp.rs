//! Sends readings of the host to a receiver of OTLP/HTTP, in the JSON encoding.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use muster_core::Timestamp;
use muster_core::error_chain::chain;
use serde_json::{Value, json};

use crate::host::hostname;
use crate::model::otlp::OtlpSpec;
use crate::net::http1::Http1;
use crate::net::proxy::Proxy;
use crate::net::{Reached, Request, Transport, extra_headers, gzip, tls};
use crate::version;

/// Path below the address of a receiver, as the protocol defines it.
const PATH: &str = "/v1/metrics";
/// `aggregationTemporality` of a sum since a start time.
const CUMULATIVE: u8 = 2;

/// A connection to a receiver.
pub(super) struct Exporter {
    spec: OtlpSpec,
    transport: Http1,
    host: String,
}

impl Exporter {
    /// Creates a connection, without connecting yet. The error is for people.
    pub(super) fn new(spec: &OtlpSpec) -> Result<Self, String> {
        let tls = tls::client_config(&spec.trust).map_err(|error| chain(&error).to_string())?;
        let tunnel = spec.trust.proxy.as_ref().map(Proxy::tunnel).transpose();
        let tunnel = tunnel.map_err(|error| format!("the proxy: {error}"))?;
        let headers = extra_headers::parse(&spec.trust.headers).map_err(|error| error.to_string())?;
        let transport = Http1::new(tls).through(tunnel).with_headers(headers);
        Ok(Self { spec: spec.clone(), transport, host: hostname() })
    }

    /// Sends readings to the first receiver that can be reached, within `limit`. What is not accepted is not sent again:
    /// the next readings follow soon.
    pub(super) async fn send(&self, values: &Value, now: Timestamp, limit: Duration) -> Result<(), String> {
        let body = gzip::compress(encode(values, &self.host, now).to_string().as_bytes());
        let body = body.map_err(|error| error.to_string())?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let mut unreachable = String::new();
        for server in &self.spec.servers {
            let request = Request {
                method: http::Method::POST,
                path: PATH.into(),
                headers: headers.clone(),
                body: body.clone().into(),
                timeout: limit,
                reached: Reached::default(),
            };
            match self.transport.send(server, request).await {
                Ok(response) => return accepted(response.status, &response.body),
                Err(error) if error.is_connect() => unreachable = chain(&error).to_string(),
                Err(error) => return Err(chain(&error).to_string()),
            }
        }
        Err(unreachable)
    }
}

/// Reads the response of a receiver.
fn accepted(status: u16, body: &[u8]) -> Result<(), String> {
    if !(200..300).contains(&status) {
        return Err(format!("the receiver responded with status {status}"));
    }
    let response: Value = serde_json::from_slice(body).unwrap_or_default();
    let partial = &response["partialSuccess"];
    // A 64-bit number, which this encoding writes as a string.
    let rejected =
        partial["rejectedDataPoints"].as_u64().or_else(|| partial["rejectedDataPoints"].as_str()?.parse().ok());
    match rejected.unwrap_or(0) {
        0 => Ok(()),
        points => {
            let reason: String = partial["errorMessage"]
                .as_str()
                .unwrap_or_default()
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect();
            Err(format!("the receiver rejected {points} values: {reason}"))
        }
    }
}

/// Returns the `ExportMetricsServiceRequest` for readings, with the names of OpenTelemetry's semantic conventions.
fn encode(values: &Value, host: &str, now: Timestamp) -> Value {
    let points = Points { now, boot: now.minus(Duration::from_secs(values["uptime"].as_u64().unwrap_or(0))) };
    let resource = attributes(&[
        ("host.name", host),
        ("service.name", "muster-agent"),
        ("service.version", version::agent_version()),
    ]);
    let metrics = [points.cpu(&values["cpu"]), points.memory(&values["memory"]), points.disks(&values["disk"])];
    let network = [points.network(&values["network"]), vec![points.gauge("system.uptime", "s", &values["uptime"])]];
    let metrics: Vec<Value> = metrics.into_iter().chain(network).flatten().collect();
    json!({"resourceMetrics": [{
        "resource": {"attributes": resource},
        "scopeMetrics": [{"scope": {"name": "muster-agent/host/metrics"}, "metrics": metrics}],
    }]})
}

/// The times of all values.
struct Points {
    now: Timestamp,
    boot: Timestamp,
}

impl Points {
    fn cpu(&self, cpu: &Value) -> Vec<Value> {
        let load = |name: &str, place: usize| {
            self.gauge(&format!("system.cpu.load_average.{name}"), "{thread}", &cpu["load"][place])
        };
        vec![
            self.gauge("system.cpu.logical.count", "{cpu}", &cpu["count"]),
            self.gauge("system.cpu.utilization", "1", &cpu["usage"]),
            load("1m", 0),
            load("5m", 1),
            load("15m", 2),
        ]
    }

    fn memory(&self, memory: &Value) -> Vec<Value> {
        let state = |value: &Value, state: &str| self.point(value, &[("system.memory.state", state)]);
        let paging = |value: &Value, state: &str| self.point(value, &[("system.paging.state", state)]);
        let swap = &memory["swap"];
        vec![
            self.sum("system.memory.limit", false, &[self.point(&memory["total"], &[])]),
            self.sum("system.memory.usage", false, &[state(&memory["used"], "used")]),
            self.sum("system.linux.memory.available", false, &[self.point(&memory["available"], &[])]),
            self.sum(
                "system.paging.usage",
                false,
                &[paging(&swap["used"], "used"), paging(&rest(&swap["total"], &swap["used"]), "free")],
            ),
        ]
    }

    fn disks(&self, disks: &Value) -> Vec<Value> {
        let of_disk = |(mount, disk): (&String, &Value)| {
            let (total, available) = (&disk["total"], &disk["available"]);
            let state = |value: &Value, state: &str| {
                self.point(value, &[("system.filesystem.mountpoint", mount), ("system.filesystem.state", state)])
            };
            [state(&rest(total, available), "used"), state(available, "free")]
        };
        let points: Vec<_> = disks.as_object().into_iter().flatten().flat_map(of_disk).collect();
        vec![self.sum("system.filesystem.usage", false, &points)]
    }

    fn network(&self, networks: &Value) -> Vec<Value> {
        let of_network = |(name, data): (&String, &Value)| {
            let direction = |value: &Value, direction: &str| {
                self.point(value, &[("network.interface.name", name), ("network.io.direction", direction)])
            };
            [direction(&data["received"], "receive"), direction(&data["sent"], "transmit")]
        };
        let points: Vec<_> = networks.as_object().into_iter().flatten().flat_map(of_network).collect();
        vec![self.sum("system.network.io", true, &points)]
    }

    fn gauge(&self, name: &str, unit: &str, value: &Value) -> Value {
        json!({"name": name, "unit": unit, "gauge": {"dataPoints": [self.point(value, &[])]}})
    }

    /// A sum of bytes: one that only grows is a rate for its readers.
    fn sum(&self, name: &str, is_monotonic: bool, points: &[Value]) -> Value {
        json!({"name": name, "unit": "By",
            "sum": {"dataPoints": points, "isMonotonic": is_monotonic, "aggregationTemporality": CUMULATIVE}})
    }

    fn point(&self, value: &Value, attributes_of: &[(&str, &str)]) -> Value {
        let mut point = json!({"startTimeUnixNano": nanos(self.boot), "timeUnixNano": nanos(self.now)});
        if !attributes_of.is_empty() {
            point["attributes"] = attributes(attributes_of);
        }
        // 64-bit numbers are strings in this encoding.
        match value.as_u64() {
            Some(number) => point["asInt"] = number.to_string().into(),
            None => point["asDouble"] = value.as_f64().unwrap_or(0.0).into(),
        }
        point
    }
}

fn rest(total: &Value, part: &Value) -> Value {
    total.as_u64().unwrap_or(0).saturating_sub(part.as_u64().unwrap_or(0)).into()
}

fn attributes(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect()
}

fn nanos(time: Timestamp) -> String {
    (i128::from(time.as_micros()) * 1000).max(0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_have_the_names_and_types_of_the_semantic_conventions() {
        let values = json!({
            "cpu": {"count": 4, "usage": 0.25, "load": [1.0, 0.5, 0.1]},
            "memory": {"total": 100, "used": 60, "available": 40, "swap": {"total": 10, "used": 4}},
            "disk": {"/": {"total": 1000, "available": 300}},
            "network": {"eth0": {"received": 7, "sent": 9}},
            "uptime": 10,
        });
        let now = Timestamp::from_micros(20_000_000);
        let whole = encode(&values, "web-1", now);
        let resource = &whole["resourceMetrics"][0];
        assert_eq!(
            resource["resource"]["attributes"][0],
            json!({"key": "host.name", "value": {"stringValue": "web-1"}})
        );
        let metrics = resource["scopeMetrics"][0]["metrics"].as_array().unwrap();
        let of = |name: &str| metrics.iter().find(|metric| metric["name"] == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(
            of("system.cpu.utilization")["gauge"]["dataPoints"][0],
            json!({"startTimeUnixNano": "10000000000", "timeUnixNano": "20000000000", "asDouble": 0.25})
        );
        assert_eq!(of("system.paging.usage")["sum"]["dataPoints"][1]["asInt"], "6");
        let disk = &of("system.filesystem.usage")["sum"];
        assert_eq!((&disk["dataPoints"][0]["asInt"], &disk["isMonotonic"]), (&json!("700"), &json!(false)));
        let network = &of("system.network.io")["sum"];
        assert_eq!((&network["isMonotonic"], &network["aggregationTemporality"]), (&json!(true), &json!(2)));
        assert_eq!(network["dataPoints"][1]["attributes"][1]["value"]["stringValue"], "transmit");
        assert_eq!(of("system.uptime")["unit"], "s");
    }

    #[test]
    fn a_receiver_that_rejects_readings_is_a_fault() {
        assert_eq!(accepted(200, b"{}"), Ok(()));
        assert_eq!(accepted(202, b""), Ok(()));
        assert!(accepted(503, b"").unwrap_err().contains("503"));
        let partial = br#"{"partialSuccess": {"rejectedDataPoints": "3", "errorMessage": "too\u001b[31m old"}}"#;
        assert_eq!(accepted(200, partial).unwrap_err(), "the receiver rejected 3 values: too[31m old");
    }
}
