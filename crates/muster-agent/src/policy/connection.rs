//! How the section `fleet` of a policy changes the connection to the servers.

use serde_json::{Map, Value};

use crate::net::pem;
use crate::net::proxy::{BadProxy, Proxy};
use crate::net::tls::fingerprint;
use crate::state::enrollment::{ClientCertificate, Overrides, ProxyChoice, Secret};

/// Modes of verification that verify the certificate and its name, as this agent always does.
const VERIFICATION_MODES: [&str; 2] = ["full", "strict"];

/// Why the connection settings of a policy cannot be used. The texts contain no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConnection {
    /// The proxy cannot be used.
    #[error("fleet.proxy_url: {0}")]
    Proxy(#[from] BadProxy),
    /// A setting has an unusable value.
    #[error("fleet.{setting}: {reason}")]
    Setting {
        /// Path of the setting below `fleet`.
        setting: &'static str,
        /// The reason.
        reason: String,
    },
}

/// Reads the settings. What the section does not contain stays as it was when the agent enrolled.
pub fn read(fleet: &Map<String, Value>) -> Result<Overrides, BadConnection> {
    let mut overrides = Overrides { proxy: proxy(fleet)?, ..Overrides::default() };
    let Some(ssl) = fleet.get("ssl").filter(|ssl| ssl["enabled"] != Value::Bool(false)) else { return Ok(overrides) };
    if let Some(mode) = ssl["verification_mode"].as_str().filter(|mode| !VERIFICATION_MODES.contains(mode)) {
        // Anybody on the way could pose as the server.
        let reason =
            format!("{mode:?} is not supported: the certificate of the server and its name are always verified");
        return Err(setting("ssl.verification_mode", reason));
    }
    let authorities = texts(&ssl["certificate_authorities"]).map(pem::authority).collect::<Result<_, _>>();
    overrides.certificate_authorities = authorities.map_err(|reason| setting("ssl.certificate_authorities", reason))?;
    for pin in texts(&ssl["ca_trusted_fingerprint"]).chain(texts(&ssl["ca_sha256"])) {
        fingerprint(pin).map_err(|error| setting("ssl.ca_trusted_fingerprint", error.to_string()))?;
        overrides.ca_sha256.push(pin.to_owned());
    }
    overrides.client = client(fleet, ssl)?;
    Ok(overrides)
}

fn proxy(fleet: &Map<String, Value>) -> Result<ProxyChoice, BadConnection> {
    if fleet.get("proxy_disable") == Some(&Value::Bool(true)) {
        return Ok(ProxyChoice::None);
    }
    let url = match fleet.get("proxy_url") {
        None | Some(Value::Null) => return Ok(ProxyChoice::AsEnrolled),
        Some(url) => url.as_str().ok_or(BadProxy::NotUrl)?,
    };
    // An empty URL removes the proxy of the enrollment.
    if url.is_empty() {
        return Ok(ProxyChoice::None);
    }
    let headers = fleet.get("proxy_headers").and_then(Value::as_object).into_iter().flatten();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let headers = headers.map(|(name, value)| (name.clone(), Secret::new(text(value)))).collect();
    let proxy = Proxy { url: Secret::new(url), headers };
    proxy.tunnel()?;
    Ok(ProxyChoice::Through(proxy))
}

/// Reads the certificate of the agent. Its key can be in `ssl`, or be a secret of the server beside it.
fn client(fleet: &Map<String, Value>, ssl: &Value) -> Result<Option<ClientCertificate>, BadConnection> {
    let Some(certificate) = ssl["certificate"].as_str().filter(|text| !text.is_empty()) else { return Ok(None) };
    let secret = fleet.get("secrets").and_then(|secrets| secrets.pointer("/ssl/key"));
    let key = ssl["key"].as_str().or_else(|| secret.and_then(Value::as_str)).filter(|text| !text.is_empty());
    let key = key.ok_or_else(|| setting("ssl.key", "the certificate of the agent has no key".into()))?;
    if !ssl["key_passphrase"].is_null() || !ssl["key_passphrase_path"].is_null() {
        return Err(setting("ssl.key_passphrase", "encrypted keys are not supported".into()));
    }
    let certificate = pem::text(certificate).map_err(|reason| setting("ssl.certificate", reason))?;
    // Without the reason: a key that is not PEM would be quoted as the path of a file.
    let key = pem::text(key).map_err(|_| setting("ssl.key", "neither a key in PEM nor a readable file".into()))?;
    Ok(Some(ClientCertificate { certificate, key: Secret::new(key) }))
}

/// Returns the strings of a list, or a single one.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(Value::as_str).filter(|text| !text.is_empty())
}

fn setting(setting: &'static str, reason: String) -> BadConnection {
    BadConnection::Setting { setting, reason }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::enrollment::Trust;

    fn overrides(fleet: &Value) -> Result<Overrides, BadConnection> {
        read(fleet.as_object().unwrap())
    }

    #[test]
    fn a_policy_sets_removes_or_keeps_the_proxy_of_the_enrollment() {
        let enrolled = Trust {
            proxy: Some(Proxy { url: Secret::new("http://enrolled:1"), headers: Vec::new() }),
            ..Trust::default()
        };
        let proxy = |fleet: Value| {
            let trust = overrides(&fleet).unwrap().applied_to(&enrolled);
            trust.proxy.map(|proxy| (proxy.url.expose().to_owned(), proxy.headers.len()))
        };
        assert_eq!(proxy(json!({})), Some(("http://enrolled:1".into(), 0)));
        assert_eq!(proxy(json!({"proxy_url": null})), Some(("http://enrolled:1".into(), 0)));
        let set = json!({"proxy_url": "http://p:3128", "proxy_headers": {"X-Site": "a", "X-Number": 1}});
        assert_eq!(proxy(set), Some(("http://p:3128".into(), 2)));
        assert_eq!(proxy(json!({"proxy_url": ""})), None);
        assert_eq!(proxy(json!({"proxy_url": "http://p:3128", "proxy_disable": true})), None);
    }

    #[test]
    fn unusable_settings_are_named_without_their_secrets() {
        let key = "-----BEGIN CERTIFICATE-----\nx";
        for (fleet, expected) in [
            (json!({"proxy_url": "socks5://u:canary@p:1"}), "fleet.proxy_url: the scheme must be http"),
            (json!({"proxy_url": 1}), "fleet.proxy_url: not a URL"),
            (json!({"proxy_url": "http://p:1", "proxy_headers": {"a b": "canary"}}), "fleet.proxy_url: the header"),
            (json!({"ssl": {"verification_mode": "none"}}), "fleet.ssl.verification_mode: \"none\" is not supported"),
            (json!({"ssl": {"certificate_authorities": ["/no/such/file"]}}), "fleet.ssl.certificate_authorities: "),
            (json!({"ssl": {"certificate_authorities": key}}), "malformed certificate"),
            (json!({"ssl": {"ca_trusted_fingerprint": "xyz"}}), "fleet.ssl.ca_trusted_fingerprint: invalid"),
            (json!({"ssl": {"certificate": key}}), "fleet.ssl.key: the certificate of the agent has no key"),
            (json!({"ssl": {"certificate": key, "key": "canary"}}), "fleet.ssl.key: neither a key in PEM nor"),
            (json!({"ssl": {"certificate": key, "key": key, "key_passphrase": "canary"}}), "fleet.ssl.key_passphrase"),
        ] {
            let error = overrides(&fleet).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("canary"), "{fleet}: {error}");
        }
        assert_eq!(overrides(&json!({"ssl": {"verification_mode": "full"}})), Ok(Overrides::default()));
        assert_eq!(
            overrides(&json!({"ssl": {"enabled": false, "verification_mode": "none"}})),
            Ok(Overrides::default())
        );
    }

    #[test]
    fn m31_authorities_and_pins_of_a_policy_replace_those_of_the_enrollment_together() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::new(vec!["a".into()]).unwrap().self_signed(&key).unwrap().pem();
        let enrolled = Trust { ca_sha256: vec!["00".repeat(32)], ..Trust::default() };
        let fleet = json!({"ssl": {"certificate_authorities": [pem], "certificate": pem}, "secrets": {"ssl": {"key": key.serialize_pem()}}});
        let trust = overrides(&fleet).unwrap().applied_to(&enrolled);
        assert_eq!((trust.certificate_authorities.len(), trust.ca_sha256.len()), (1, 0));
        assert!(crate::net::tls::client_config(&trust).is_ok());
        let pinned = overrides(&json!({"ssl": {"ca_trusted_fingerprint": "11".repeat(32)}})).unwrap();
        assert_eq!(pinned.applied_to(&trust).certificate_authorities, [""; 0]);
        assert_eq!(overrides(&json!({})).unwrap().applied_to(&enrolled), enrolled);
    }
}
