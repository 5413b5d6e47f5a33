//! Settings of an output, as far as they say how the server reaches its cluster.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_fleet::output_keys::issuer::IssueError;
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// Maximum hosts that are tried.
const MOST_HOSTS: usize = 16;

/// How a cluster is reached.
#[derive(Deserialize)]
pub(crate) struct Settings {
    /// URLs of its nodes.
    #[serde(deserialize_with = "one_or_many")]
    pub hosts: Vec<String>,
    /// Scheme of hosts without one.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Path of hosts without one.
    #[serde(default)]
    pub path: Option<String>,
    /// Additional headers.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// Token of an account that may create keys: sent as `Authorization: Bearer`.
    #[serde(default)]
    pub service_token: Option<String>,
    /// User that may create keys, without a token: sent as `Authorization: Basic`.
    #[serde(default)]
    pub username: Option<String>,
    /// Password of the user.
    #[serde(default)]
    pub password: Option<String>,
    /// Proxy in front of the cluster.
    #[serde(default)]
    pub proxy_url: Option<String>,
    /// Headers for the proxy.
    #[serde(default)]
    pub proxy_headers: Map<String, Value>,
    /// Whether no proxy is used, whatever the environment says.
    #[serde(default)]
    pub proxy_disable: bool,
    /// TLS.
    #[serde(default)]
    pub ssl: Ssl,
}

/// `ssl` of an output.
#[derive(Default, Deserialize)]
pub(crate) struct Ssl {
    /// Certificates to trust, PEM.
    #[serde(default, deserialize_with = "one_or_many")]
    pub certificate_authorities: Vec<String>,
    /// SHA-256 of a CA certificate in the server's chain that is trusted, hexadecimal.
    #[serde(default)]
    pub ca_trusted_fingerprint: Option<String>,
    /// `full`, `strict`, `certificate` or `none`.
    #[serde(default)]
    pub verification_mode: Option<String>,
    /// Client certificate, PEM.
    #[serde(default)]
    pub certificate: Option<String>,
    /// Its private key, PEM.
    #[serde(default)]
    pub key: Option<String>,
}

impl Settings {
    /// Reads the JSON of a connection. Error messages name fields only: values include credentials.
    pub(crate) fn read(json: &str) -> Result<Self, IssueError> {
        let settings: Self = serde_json::from_str(json).map_err(|error| {
            IssueError::Unusable(format!("the settings of the output are malformed at column {}", error.column()))
        })?;
        settings.check()?;
        Ok(settings)
    }

    /// Returns the value of the header `Authorization`.
    pub(crate) fn authorization(&self) -> Result<Zeroizing<String>, IssueError> {
        let unusable = |reason: &str| IssueError::Unusable(reason.to_owned());
        let is_usable = |text: &str| !text.trim().is_empty() && !text.chars().any(char::is_control);
        match (&self.service_token, &self.username, &self.password) {
            (Some(token), ..) if is_usable(token) => Ok(Zeroizing::new(format!("Bearer {}", token.trim()))),
            (Some(_), ..) => Err(unusable("`service_token` is empty, or contains line breaks")),
            // The colon separates the name from the password.
            (None, Some(name), Some(password)) if is_usable(name) && is_usable(password) && !name.contains(':') => {
                let both = Zeroizing::new(format!("{name}:{password}"));
                Ok(Zeroizing::new(format!("Basic {}", STANDARD.encode(both.as_bytes()))))
            }
            (None, Some(_), Some(_)) => Err(unusable(
                "`username` or `password` is empty or contains line breaks, or `username` contains a colon",
            )),
            (None, ..) => Err(unusable("the output has neither `service_token` nor `username` and `password`")),
        }
    }

    fn check(&self) -> Result<(), IssueError> {
        let unusable = |reason: &str| Err(IssueError::Unusable(reason.to_owned()));
        if self.hosts.is_empty() || self.hosts.len() > MOST_HOSTS {
            return unusable("the output must have 1 to 16 hosts");
        }
        // Agents resolve variables on their hosts; what they stand for is not known here.
        if self.hosts.iter().any(|host| host.contains("${")) {
            return unusable("`hosts` contains a variable, which only agents can resolve");
        }
        // Before the first connection, so that a missing credential is reported as such.
        self.authorization()?;
        for (field, value) in [("certificate", &self.ssl.certificate), ("key", &self.ssl.key)] {
            if value.as_ref().is_some_and(|value| !is_pem(value)) {
                return unusable(&format!(
                    "`ssl.{field}` is not PEM text; the server cannot read files on agents' hosts"
                ));
            }
        }
        if self.ssl.certificate_authorities.iter().any(|value| !is_pem(value)) {
            return unusable(
                "`ssl.certificate_authorities` is not PEM text; the server cannot read files on agents' hosts",
            );
        }
        Ok(())
    }
}

fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with("-----BEGIN ")
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(settings: &Value) -> String {
        match Settings::read(&settings.to_string()) {
            Ok(_) => "none".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn settings_that_the_server_cannot_use_are_explained_without_their_values() {
        let good = json!({"hosts": "https://es:9200", "service_token": "t0ken"});
        assert_eq!(error(&good), "none");
        let user =
            |name: &str, password: &str| json!({"hosts": "https://es:9200", "username": name, "password": password});
        assert_eq!(error(&user("muster", "t0ken")), "none");
        for (settings, expected) in [
            (user("mus:ter", "t0ken"), "`username` contains a colon"),
            (user("muster", "t0ken\n"), "contains line breaks"),
            (user("muster", " "), "`username` or `password` is empty"),
            (json!({"hosts": "https://es:9200", "username": "muster"}), "neither `service_token` nor"),
            (json!({"hosts": "https://es:9200", "api_key": "t0ken"}), "neither `service_token` nor"),
        ] {
            let found = error(&settings);
            assert!(found.contains(expected) && !found.contains("t0ken"), "{settings}: {found}");
        }
        for (field, value, expected) in [
            ("hosts", json!(["https://${env.ES}:9200"]), "contains a variable"),
            ("hosts", json!([]), "1 to 16 hosts"),
            ("hosts", json!(5), "malformed at column"),
            ("service_token", json!("t0ken\n"), "`service_token` is empty, or contains line breaks"),
            ("ssl", json!({"certificate_authorities": ["/etc/ca.pem"]}), "files on agents' hosts"),
            ("ssl", json!({"key": "/etc/key.pem"}), "`ssl.key` is not PEM"),
            ("ssl", json!("t0ken"), "malformed at column"),
        ] {
            let mut settings = good.clone();
            settings[field] = value;
            let found = error(&settings);
            assert!(found.contains(expected) && !found.contains("t0ken"), "{field}: {found}");
        }
    }
}
