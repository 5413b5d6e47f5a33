//! Network objects in a compiled policy: `fleet`, `agent.download`, and the proxies of both and of outputs (MG §2.4).

use serde_json::{Map, Value, json};

use super::agent::merge;
use super::{Draft, take_object};
use crate::network_object::{NetworkObject, NetworkObjectKind, Shared};

/// Fields of a Fleet Server host's `ssl` for agents, and what agents call them. The others are for Fleet Server itself.
const HOST_SSL: [(&str, &str); 2] =
    [("agent_certificate_authorities", "certificate_authorities"), ("agent_certificate", "certificate")];

impl<'a> Draft<'a> {
    /// Returns the section `fleet`: URLs of the server, and how to reach them.
    pub(super) fn fleet(&mut self) -> Map<String, Value> {
        let configured = take_object(&mut self.config, "fleet");
        // Looked up even if the configuration has addresses of its own, to report an unknown id.
        let host = self.network_object(NetworkObjectKind::ServerHost);
        if configured.contains_key("hosts") {
            // The proxy of another address would be of no use.
            return configured;
        }
        let mut fleet = match host {
            Some(host) => reached_by(host, self.sources.shared),
            None if self.sources.external_urls.is_empty() => Map::new(),
            None => [("hosts".to_owned(), json!(self.sources.external_urls))].into_iter().collect(),
        };
        merge(&mut fleet, configured);
        fleet
    }

    /// Returns the section `agent.download`: where agents download their binaries. Empty without a download source.
    pub(super) fn download(&mut self) -> Map<String, Value> {
        let source = self.network_object(NetworkObjectKind::DownloadSource);
        let is_configured = self.config.get("agent").is_some_and(|agent| !agent["download"]["sourceURI"].is_null());
        source.filter(|_| !is_configured).map(|source| downloaded_from(source, self.sources.shared)).unwrap_or_default()
    }

    /// Returns the object of a kind that the policy uses: the one that it names, else the default.
    fn network_object(&mut self, kind: NetworkObjectKind) -> Option<&'a NetworkObject> {
        let shared = self.sources.shared;
        let field = kind.policy_field()?;
        let Some(named) = self.field(field).and_then(Value::as_str).map(str::to_owned) else {
            return shared.default_of(kind);
        };
        let found = shared.find(kind, &named);
        if found.is_none() {
            let ids: Vec<&str> = shared.of(kind).map(|object| object.id.as_str()).collect();
            self.problems.unknown(field, &kind.to_string(), &named, &ids);
        }
        found
    }
}

/// Returns `fleet` for a Fleet Server host. Its own TLS settings take precedence over those of its proxy.
pub(crate) fn reached_by(host: &NetworkObject, shared: &Shared) -> Map<String, Value> {
    let mut fleet = proxy_of(host, shared).map(through_with_tls).unwrap_or_default();
    fleet.insert("hosts".into(), host.field("host_urls").cloned().unwrap_or_default());
    let ssl: Map<String, Value> = HOST_SSL
        .iter()
        .filter_map(|(field, name)| Some(((*name).to_owned(), at(host, "ssl", field)?.clone())))
        .collect();
    if !ssl.is_empty() {
        merge(&mut fleet, object(json!({"ssl": ssl})));
    }
    if let Some(key) = host.field("secrets").and_then(|secrets| secrets.pointer("/ssl/agent_key")) {
        merge(&mut fleet, object(json!({"secrets": {"ssl": {"key": key}}})));
    }
    fleet
}

/// Returns `agent.download` for a download source. Its own TLS settings take precedence over those of its proxy.
pub(crate) fn downloaded_from(source: &NetworkObject, shared: &Shared) -> Map<String, Value> {
    let mut download = proxy_of(source, shared).map(through_with_tls).unwrap_or_default();
    download.insert("sourceURI".into(), source.field("host").cloned().unwrap_or_default());
    let given = ["ssl", "auth", "secrets"].iter();
    let given = given.filter_map(|name| Some(((*name).to_owned(), source.field(name)?.clone()))).collect();
    merge(&mut download, given);
    download
}

/// Adds the proxy that an output refers to.
pub(super) fn add_proxy(entry: &mut Map<String, Value>, proxy_id: Option<&str>, shared: &Shared) {
    if let Some(proxy) = proxy_id.and_then(|id| shared.find(NetworkObjectKind::Proxy, id)) {
        merge(entry, through(proxy));
    }
}

fn proxy_of<'a>(object: &NetworkObject, shared: &'a Shared) -> Option<&'a NetworkObject> {
    shared.find(NetworkObjectKind::Proxy, object.field("proxy_id")?.as_str()?)
}

/// Returns the settings of a connection through a proxy.
fn through(proxy: &NetworkObject) -> Map<String, Value> {
    let mut settings = Map::new();
    settings.insert("proxy_url".into(), proxy.field("url").cloned().unwrap_or_default());
    let headers = proxy.field("proxy_headers").and_then(Value::as_object).filter(|headers| !headers.is_empty());
    if let Some(headers) = headers {
        // The API also accepts numbers and booleans. Agents get strings.
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let headers: Map<String, Value> =
            headers.iter().map(|(name, value)| (name.clone(), text(value).into())).collect();
        settings.insert("proxy_headers".into(), headers.into());
    }
    settings
}

/// Returns the same, with the certificates that the proxy requires and has.
pub(crate) fn through_with_tls(proxy: &NetworkObject) -> Map<String, Value> {
    let mut settings = through(proxy);
    let mut ssl = Map::new();
    ssl.extend(proxy.field("certificate_authorities").map(|ca| ("certificate_authorities".to_owned(), json!([ca]))));
    ssl.extend(proxy.field("certificate").map(|certificate| ("certificate".to_owned(), certificate.clone())));
    if !ssl.is_empty() {
        settings.insert("ssl".into(), ssl.into());
    }
    if let Some(key) = at(proxy, "secrets", "certificate_key") {
        settings.insert("secrets".into(), json!({"ssl": {"key": key}}));
    }
    settings
}

/// Returns a field of a nested object; `null` is treated as absent.
fn at<'o>(object: &'o NetworkObject, outer: &str, inner: &str) -> Option<&'o Value> {
    object.field(outer)?.get(inner).filter(|value| !value.is_null())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::compile_with;
    use super::*;
    use crate::policy::compile::CompileError;
    use crate::testing::{network_object, output_of};

    fn with(kind: NetworkObjectKind, id: &str, fields: Value) -> NetworkObject {
        NetworkObject { fields, ..network_object(kind, id) }
    }

    fn default(object: NetworkObject) -> NetworkObject {
        NetworkObject { is_default: true, ..object }
    }

    fn shared() -> Shared {
        let proxy = json!({"url": "http://proxy:3128", "proxy_headers": {"X-N": 1}, "certificate_authorities": "PROXY CA",
            "certificate": "PROXY CERT", "secrets": {"certificate_key": {"id": "pk"}}});
        let main = json!({"host_urls": ["https://main:8220"], "proxy_id": "p", "ssl": {"certificate": "SERVER",
            "agent_certificate": "AGENT"}, "secrets": {"ssl": {"key": {"id": "sk"}, "agent_key": {"id": "ak"}}}});
        let mirror = json!({"host": "https://mirror/", "ssl": {"certificate_authorities": ["CA"]},
            "secrets": {"ssl": {"key": {"id": "mk"}}, "auth": {"password": {"id": "pw"}}}, "auth": {"username": "u"}});
        let through = json!({"host": "https://far/", "proxy_id": "p"});
        let output = json!({"hosts": ["https://es:9200"], "proxy_id": "p"});
        Shared {
            outputs: vec![output_of("o", "elasticsearch", true, output)],
            network: vec![
                with(NetworkObjectKind::Proxy, "p", proxy),
                default(with(NetworkObjectKind::ServerHost, "main", main)),
                with(NetworkObjectKind::ServerHost, "other", json!({"host_urls": ["https://other:8220"]})),
                default(with(NetworkObjectKind::DownloadSource, "mirror", mirror)),
                with(NetworkObjectKind::DownloadSource, "far", through),
            ],
        }
    }

    fn compiled(config: Value, fields: Value) -> Value {
        compile_with(config, fields, &shared()).unwrap().policy
    }

    #[test]
    fn default_objects_are_compiled_with_their_proxies_and_without_plain_secrets() {
        let policy = compiled(json!({}), json!({}));
        let fleet = json!({"hosts": ["https://main:8220"], "proxy_url": "http://proxy:3128",
            "proxy_headers": {"X-N": "1"}, "ssl": {"certificate_authorities": ["PROXY CA"], "certificate": "AGENT"},
            "secrets": {"ssl": {"key": {"id": "ak"}}}});
        assert_eq!(policy["fleet"], fleet);
        let download = json!({"sourceURI": "https://mirror/", "ssl": {"certificate_authorities": ["CA"]},
            "secrets": {"ssl": {"key": {"id": "mk"}}, "auth": {"password": {"id": "pw"}}}, "auth": {"username": "u"}});
        assert_eq!(policy["agent"]["download"], download);
        let output = &policy["outputs"]["default"];
        assert_eq!(
            (&output["proxy_url"], &output["proxy_headers"]),
            (&json!("http://proxy:3128"), &json!({"X-N": "1"}))
        );
        assert!(output.get("proxy_id").is_none() && output.get("ssl").is_none());
    }

    #[test]
    fn a_policy_names_other_objects_by_id_and_its_configuration_wins() {
        let policy = compiled(
            json!({}),
            json!({"fleet_server_host_id": "other", "download_source_id": "far",
            "advanced_settings": {"agent_download_timeout": "3m"}}),
        );
        assert_eq!(policy["fleet"], json!({"hosts": ["https://other:8220"]}));
        let download = &policy["agent"]["download"];
        assert_eq!((&download["sourceURI"], &download["timeout"]), (&json!("https://far/"), &json!("3m")));
        assert_eq!(download["ssl"]["certificate"], "PROXY CERT");
        assert_eq!(download["secrets"], json!({"ssl": {"key": {"id": "pk"}}}));
        let own = json!({"fleet": {"hosts": ["https://own:1"]}, "agent": {"download": {"sourceURI": "https://own/"}}});
        let policy = compiled(own, json!({}));
        assert_eq!(policy["fleet"], json!({"hosts": ["https://own:1"]}));
        assert_eq!(policy["agent"]["download"], json!({"sourceURI": "https://own/"}));
    }

    #[test]
    fn unknown_ids_are_rejected() {
        let fields = json!({"fleet_server_host_id": "mian", "download_source_id": "x"});
        let Err(CompileError::Problems(problems)) = compile_with(json!({}), fields, &shared()) else {
            panic!("it must not compile");
        };
        let found: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        let expected = [
            "download_source_id: unknown download source `x`; known: mirror, far",
            "fleet_server_host_id: unknown Fleet Server host `mian`; did you mean `main`?",
        ];
        assert_eq!(found, expected);
    }
}
