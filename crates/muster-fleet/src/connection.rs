//! Where outputs and network objects connect to: what must not change while their stored secrets stay.

use std::collections::BTreeMap;

use muster_core::yaml;
use serde_json::Value;

/// Fields that say where an object connects to, and how it verifies what it finds there.
const CONNECTION: &[&str] = &[
    // It can redirect the secrets of the output through a proxy of its own.
    "bootstrap",
    "ca_sha256",
    "ca_trusted_fingerprint",
    "certificate_authorities",
    "host",
    "host_urls",
    "hosts",
    "kibana_url",
    "proxy_disable",
    "proxy_id",
    "proxy_url",
    "sasl",
    "ssl",
    "url",
];
/// Fields of `ssl` about the object's own certificate, which it shows to whatever it connects to.
const OWN_CERTIFICATE: &[&str] = &["certificate", "key", "key_passphrase"];

/// Returns the fields of an object, and of its `config_yaml`, that say where it connects to.
pub(crate) fn connection(fields: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let more = fields.get("config_yaml").and_then(Value::as_str).and_then(|text| yaml::parse_value(text).ok());
    for (prefix, fields) in [("", Some(fields)), ("config_yaml.", more.as_ref())] {
        for (name, value) in fields.and_then(Value::as_object).into_iter().flatten() {
            // `ssl.verification_mode` is another way to write a field of `ssl`.
            let first = name.split('.').next().unwrap_or_default();
            if !CONNECTION.contains(&first) {
                continue;
            }
            let mut value = value.clone();
            if let (true, Some(ssl)) = (name == "ssl", value.as_object_mut()) {
                ssl.retain(|name, _| !OWN_CERTIFICATE.contains(&name.as_str()));
            }
            if !is_nothing(&value) {
                found.insert(format!("{prefix}{name}"), value);
            }
        }
    }
    found
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
