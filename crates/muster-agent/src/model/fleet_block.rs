//! The section `fleet` that the agent adds to inputs whose components talk to the server themselves (AG §4.3), for example to
//! report that the agent is gone.

use std::fmt;

use serde_json::{Value, json};

use crate::state::Enrollment;
use crate::state::enrollment::Trust;

/// Types of inputs that get the section. No other component ever sees the access key.
const TYPES: [&str; 2] = ["apm", "endpoint"];

/// The section. It contains the access key.
#[derive(Clone, PartialEq)]
pub struct FleetBlock(Value);

impl fmt::Debug for FleetBlock {
    /// Omits the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetBlock")
    }
}

impl FleetBlock {
    /// Creates the section; `None` without a server. `level` is the log level of the agent, `host_id` the id of the host.
    pub fn new(enrollment: &Enrollment, level: &str, host_id: &Value) -> Option<Self> {
        if enrollment.servers.is_empty() {
            return None;
        }
        let trust = enrollment.trust_in_effect();
        let mut block = json!({
            "access_api_key": enrollment.access_api_key.expose(),
            "hosts": enrollment.servers,
            "agent": {"id": enrollment.agent_id, "logging": {"level": level}},
            "host": {"id": host_id},
            "ssl": ssl(&trust),
        });
        if let Some(proxy) = &trust.proxy {
            let headers = proxy.headers.iter().map(|(name, value)| (name.clone(), value.expose().into()));
            block["proxy_url"] = proxy.url.expose().into();
            block["proxy_headers"] = Value::Object(headers.collect());
        }
        Some(Self(block))
    }

    /// Returns the section for an input of this type, if it gets one.
    pub fn of_input(&self, kind: &str) -> Option<&Value> {
        TYPES.contains(&kind).then_some(&self.0)
    }
}

fn ssl(trust: &Trust) -> Value {
    let mut ssl = json!({"verification_mode": "full"});
    if !trust.certificate_authorities.is_empty() {
        ssl["certificate_authorities"] = json!(trust.certificate_authorities);
    }
    // Components know fingerprints of certificates only, not pins of public keys, which are in base64.
    let is_fingerprint = |pin: &&String| pin.len() == 64 && pin.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(pin) = trust.ca_sha256.iter().find(is_fingerprint) {
        ssl["ca_trusted_fingerprint"] = pin.as_str().into();
    }
    if let Some(client) = &trust.client {
        ssl["certificate"] = client.certificate.as_str().into();
        ssl["key"] = client.key.expose().into();
    }
    ssl
}
