//! Outputs of type `otlp`: receivers of OTLP/HTTP, such as an OpenTelemetry Collector.

use serde_json::{Map, Value};

use crate::net::Server;
use crate::policy::connection;
use crate::state::enrollment::{Secret, Trust};

/// Type of these outputs.
pub const OTLP: &str = "otlp";
/// Port of a receiver whose URL has none.
const PORT: u16 = 4318;

/// How to reach a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSpec {
    /// Its addresses, in the order in which they are tried.
    pub servers: Vec<Server>,
    /// How it is verified, proxy and headers.
    pub trust: Trust,
}

/// Reads the configuration of an output. The error is for people, and contains no credentials.
pub(super) fn read(output: &Value) -> Result<OtlpSpec, String> {
    let fields = output.as_object().cloned().unwrap_or_default();
    let hosts = match &output["hosts"] {
        Value::Array(hosts) => hosts.as_slice(),
        one => std::slice::from_ref(one),
    };
    let servers = hosts.iter().map(|host| server(host.as_str().unwrap_or_default())).collect::<Result<_, _>>()?;
    let overrides = connection::read(&fields).map_err(|error| {
        let text = error.to_string();
        // The same settings as in the section `fleet`.
        format!("Failed: output: {}", text.strip_prefix("fleet.").unwrap_or(&text))
    })?;
    let headers = headers(fields.get("headers").and_then(Value::as_object));
    Ok(OtlpSpec { servers, trust: Trust { headers, ..overrides.applied_to(&Trust::default()) } })
}

fn server(host: &str) -> Result<Server, String> {
    // Before it is parsed: the error contains the URL.
    if host.contains('@') {
        return Err("Failed: output: hosts: credentials in a URL are not supported; use headers".into());
    }
    if !host.starts_with("http://") && !host.starts_with("https://") {
        return Err(format!("Failed: output: hosts: {host:?} is not a URL, such as https://collector:{PORT}"));
    }
    Server::parse_with_port(host, PORT).map_err(|error| format!("Failed: output: hosts: {error}"))
}

fn headers(fields: Option<&Map<String, Value>>) -> Vec<(String, Secret)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    fields.into_iter().flatten().map(|(name, value)| (name.clone(), Secret::new(text(value)))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_output_names_receivers_and_how_they_are_verified() {
        let spec = read(&json!({"type": "otlp", "hosts": ["http://127.0.0.1:4000/otlp/", "https://collector"],
            "headers": {"Authorization": "Bearer x"}, "ssl": {"ca_sha256": "11".repeat(32)}}))
        .unwrap();
        let servers: Vec<_> = spec.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["http://127.0.0.1:4000/otlp", "https://collector:4318"]);
        assert_eq!((spec.trust.headers.len(), spec.trust.ca_sha256.len()), (1, 1));
        assert_eq!(read(&json!({"hosts": "http://one"})).unwrap().servers.len(), 1);
    }

    #[test]
    fn an_unusable_output_says_which_setting_and_no_credentials() {
        for (output, reason) in [
            (json!({}), "hosts"),
            (json!({"hosts": ["collector:4318"]}), "is not a URL"),
            (json!({"hosts": ["http://u:canary@c:1"]}), "credentials"),
            (json!({"hosts": ["http://c:0"]}), "port"),
            (json!({"hosts": ["http://c"], "ssl": {"verification_mode": "none"}}), "output: ssl.verification_mode"),
            (json!({"hosts": ["http://c"], "proxy_url": "socks5://u:canary@p"}), "output: proxy_url"),
        ] {
            let error = read(&output).unwrap_err();
            assert!(error.contains(reason) && !error.contains("canary"), "{error}");
        }
    }
}
