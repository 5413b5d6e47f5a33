//! Tests of the connections that agents make: to Fleet Server hosts, through proxies, and to download sources (MG §2.6–2.8).
//!
//! What is tested is what agents get: the settings are taken from the sections of a compiled policy.

mod verdict;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::id::SecretId;
use crate::network_object::{NetworkObject, NetworkObjectKind, Shared};
use crate::policy::compile::network::{downloaded_from, reached_by, through_with_tls};
use crate::secret_refs::{Secrets, ids, resolve};

pub use self::verdict::{Answer, judge};

/// Section of a policy in which references to secrets are resolved.
const SECTION: &str = "fleet";
/// Newest version of Elastic Agent whose package is looked for at a download source.
const ELASTIC_AGENT: &str = "9.5.0";
/// Directory of the packages of Elastic Agent below a download source.
const ELASTIC_DIRECTORY: &str = "beats/elastic-agent/";

/// What must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A server for agents, which answers `/api/status` (EA §2).
    FleetServer,
    /// Anything to which the proxy connects.
    Tunnel,
    /// Packages of agents.
    Packages,
}

impl Expected {
    /// Returns the paths to request, below the path of the URL. The first with an answer that decides ends the test.
    pub fn paths(self) -> Vec<String> {
        match self {
            Self::FleetServer => vec!["api/status".to_owned()],
            Self::Tunnel => Vec::new(),
            Self::Packages => vec![
                format!("{ELASTIC_DIRECTORY}elastic-agent-{ELASTIC_AGENT}-linux-x86_64.tar.gz"),
                format!("muster-agent-{}-linux-x86_64.manifest.json", env!("CARGO_PKG_VERSION")),
                ELASTIC_DIRECTORY.to_owned(),
            ],
        }
    }
}

/// TLS settings of a connection, all as PEM.
#[derive(Clone, Default)]
pub struct Ssl {
    /// CA certificates; those of the system if there are none.
    pub authorities: Vec<String>,
    /// Certificate of the client.
    pub certificate: Option<String>,
    /// Its private key.
    pub key: Option<String>,
}

/// A proxy on the way.
#[derive(Clone)]
pub struct Via {
    /// Its URL, which may contain a user name and a password.
    pub url: String,
    /// Headers for the proxy.
    pub headers: Vec<(String, String)>,
}

/// One URL to test, with everything that the connection needs. Contains secrets in plain text.
// No `Debug`, which would print them.
#[derive(Clone)]
pub struct Target {
    /// The URL.
    pub url: String,
    /// What must be there.
    pub expected: Expected,
    /// TLS settings.
    pub ssl: Ssl,
    /// The proxy, if the connection goes through one.
    pub via: Option<Via>,
    /// User name and password for the URL.
    pub basic: Option<(String, String)>,
    /// Headers of the requests.
    pub headers: Vec<(String, String)>,
    /// Whether the URL is one of this fleet's own, to which the server connects even on its own host.
    pub is_own: bool,
}

/// Part of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepName {
    /// The URL and the settings.
    Settings,
    /// Name resolution, of the proxy if there is one.
    Resolve,
    /// The TCP connection, to the proxy if there is one.
    Connect,
    /// The connection from the proxy to the target.
    Proxy,
    /// The TLS handshake with the target.
    Tls,
    /// The response.
    Response,
}

impl StepName {
    /// Returns the word in responses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Response => "response",
        }
    }

    /// Returns the name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Settings => "Settings",
            Self::Resolve => "Name resolution",
            Self::Connect => "TCP connection",
            Self::Proxy => "Connection through the proxy",
            Self::Tls => "TLS",
            Self::Response => "Response",
        }
    }
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

/// One step and its result: what was found, or why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The step.
    pub name: StepName,
    /// The result.
    pub outcome: Result<String, Failure>,
}

/// The test of one URL. The steps end with the first that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// The URL, without a user name and a password.
    pub url: String,
    /// The steps in their order.
    pub steps: Vec<Step>,
}

impl Tested {
    /// Whether agents can use the URL, as far as this server can tell.
    pub fn is_usable(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.outcome.is_ok())
    }
}

/// What went wrong in a step, as far as it decides the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The server must not connect to this address.
    NotPermitted,
    /// No result in time.
    Late,
    /// The name does not exist, or has no address.
    Unresolved,
    /// Nothing listens at the port, or a firewall rejects the connection.
    Refused,
    /// The CA of the certificate is not trusted.
    UnknownIssuer,
    /// The certificate is for another name.
    WrongName,
    /// The certificate is not valid at this time.
    Expired,
    /// The other side rejects this client's certificate, or its lack.
    ClientCertificate,
    /// The other side does not speak TLS.
    NotTls,
    /// The other side does not speak HTTP.
    NotHttp,
    /// The proxy requires other credentials.
    ProxyCredentials,
    /// The proxy does not connect to the target.
    ProxyRefused,
    /// The settings cannot be used.
    Settings,
    /// Anything else.
    Other,
}

impl Cause {
    /// Returns what to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NotPermitted => "agents may reach it nonetheless; only this server cannot test it",
            Self::Late => "check the port, and whether a firewall drops packets of this server",
            Self::Unresolved => "check the spelling of the name, and the name servers of this server",
            Self::Refused => "check the port, and whether the service runs and listens on this address",
            Self::UnknownIssuer => {
                "set the CA certificate of the service; agents that were enrolled with it trust it without this setting"
            }
            Self::WrongName => "use a name that the certificate contains, or issue a certificate with this name",
            Self::Expired => "renew the certificate, or correct the clock of this server",
            Self::ClientCertificate => "set a client certificate and its key that the service accepts",
            Self::NotTls => "use http:// if the service has no TLS, or the port on which it has",
            Self::NotHttp => "check the port and the scheme: a service with TLS needs https://",
            Self::ProxyCredentials => {
                "set the user name and the password in the URL of the proxy, or a Proxy-Authorization header"
            }
            Self::ProxyRefused => "permit this destination and port in the configuration of the proxy",
            Self::Settings => "correct the setting",
            Self::Other => "see the logs of the service",
        }
    }

    /// Returns the failure with this cause.
    pub fn because(self, reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), remedy: self.remedy().to_owned() }
    }
}

/// The settings that agents get for an object. The secrets in it are references.
pub struct Settings {
    kind: NetworkObjectKind,
    policy: Map<String, Value>,
}

impl Settings {
    /// Returns the settings of an object.
    pub fn of(object: &NetworkObject, shared: &Shared) -> Self {
        let section = match object.kind {
            NetworkObjectKind::ServerHost => reached_by(object, shared),
            NetworkObjectKind::Proxy => through_with_tls(object),
            NetworkObjectKind::DownloadSource => downloaded_from(object, shared),
        };
        Self { kind: object.kind, policy: [(SECTION.to_owned(), Value::Object(section))].into_iter().collect() }
    }

    /// Returns the ids of the secrets that the test needs.
    pub fn secrets(&self) -> BTreeSet<SecretId> {
        ids(&Value::Object(self.policy.clone()))
    }

    /// Returns the scheme, host and port of each URL of the object, for the audit log.
    pub fn addresses(&self) -> Vec<String> {
        let section = &self.policy[SECTION];
        let urls = match self.kind {
            NetworkObjectKind::ServerHost => &section["hosts"],
            NetworkObjectKind::Proxy => &section["proxy_url"],
            NetworkObjectKind::DownloadSource => &section["sourceURI"],
        };
        texts(urls).iter().map(|url| origin_of(url)).collect()
    }

    /// Returns what is connected to. A proxy has to connect to `behind_proxy`.
    pub fn targets(mut self, secrets: &Secrets, behind_proxy: &str) -> Vec<Target> {
        resolve(&mut self.policy, secrets);
        let section = self.policy.remove(SECTION).unwrap_or_default();
        let (urls, expected) = match self.kind {
            NetworkObjectKind::ServerHost => (texts(&section["hosts"]), Expected::FleetServer),
            NetworkObjectKind::Proxy => (vec![behind_proxy.to_owned()], Expected::Tunnel),
            NetworkObjectKind::DownloadSource => (texts(&section["sourceURI"]), Expected::Packages),
        };
        let ssl = Ssl {
            authorities: texts(&section["ssl"]["certificate_authorities"]),
            certificate: text(&section["ssl"]["certificate"]),
            key: text(&section["ssl"]["key"]),
        };
        let via = text(&section["proxy_url"]).map(|url| Via { url, headers: pairs(&section["proxy_headers"]) });
        let auth = &section["auth"];
        let basic = text(&auth["username"]).map(|user| (user, text(&auth["password"]).unwrap_or_default()));
        let mut headers = pairs(&auth["headers"]);
        headers.extend(text(&auth["api_key"]).map(|key| ("Authorization".to_owned(), format!("ApiKey {key}"))));
        let target = |url| Target {
            url,
            expected,
            ssl: ssl.clone(),
            via: via.clone(),
            basic: basic.clone(),
            headers: headers.clone(),
            is_own: false,
        };
        urls.into_iter().map(target).collect()
    }
}

/// Returns the scheme, host and port of a URL.
pub fn origin_of(url: &str) -> String {
    // Everything after the authority can be a token, and user info before it a password.
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A string, or a list of strings.
fn texts(value: &Value) -> Vec<String> {
    value.as_array().map_or_else(|| text(value).into_iter().collect(), |list| list.iter().filter_map(text).collect())
}

/// Headers as an object, or as a list of `{key, value}`.
fn pairs(value: &Value) -> Vec<(String, String)> {
    let as_text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let listed = value.as_array().into_iter().flatten();
    let listed = listed.filter_map(|pair| Some((text(&pair["key"])?, as_text(&pair["value"]))));
    let named = value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), as_text(value)));
    named.chain(listed).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;
    use crate::testing::network_object;

    fn object(kind: NetworkObjectKind, fields: Value) -> NetworkObject {
        NetworkObject { fields, ..network_object(kind, "o") }
    }

    #[test]
    fn the_settings_of_a_test_are_those_that_agents_get_with_the_secrets_of_the_object_and_its_proxy() {
        let proxy = NetworkObject {
            fields: json!({"url": "http://u:$co.elastic.secret{w}@proxy:3128", "proxy_headers": {"X-Site": 7}}),
            ..network_object(NetworkObjectKind::Proxy, "p")
        };
        let shared = Shared::default().with_network_object(&proxy);
        let host = object(
            NetworkObjectKind::ServerHost,
            json!({"host_urls": ["https://a:1", "https://b:2"], "proxy_id": "p",
                "ssl": {"agent_certificate_authorities": ["CA"], "agent_certificate": "CERT"},
                "secrets": {"ssl": {"agent_key": {"id": "k"}}}}),
        );
        let settings = Settings::of(&host, &shared);
        let needed: Vec<String> = settings.secrets().iter().map(ToString::to_string).collect();
        assert_eq!(needed, ["k", "w"]);
        let opened = [("k", "KEY"), ("w", "pw")];
        let opened = opened.map(|(id, value)| (SecretId::trusted(id), Zeroizing::new(value.to_owned())));
        let targets = settings.targets(&opened.into_iter().collect(), "");
        assert_eq!(targets.iter().map(|one| one.url.as_str()).collect::<Vec<_>>(), ["https://a:1", "https://b:2"]);
        let ssl = &targets[1].ssl;
        assert_eq!((ssl.authorities.as_slice(), ssl.key.as_deref()), (&["CA".to_owned()][..], Some("KEY")));
        let via = targets[0].via.as_ref().unwrap();
        assert_eq!((via.url.as_str(), via.headers[0].1.as_str()), ("http://u:pw@proxy:3128", "7"));
        let of_proxy = Settings::of(&proxy, &shared).targets(&Secrets::new(), "https://fleet:8220");
        assert_eq!((of_proxy[0].url.as_str(), of_proxy[0].expected), ("https://fleet:8220", Expected::Tunnel));
    }

    #[test]
    fn credentials_of_a_download_source_are_headers_of_the_requests() {
        let auth = json!({"username": "u", "headers": [{"key": "X-A", "value": "b"}]});
        let fields = json!({"host": "https://mirror/", "auth": auth,
            "secrets": {"auth": {"api_key": {"id": "a"}, "password": {"id": "a"}}}});
        let source = object(NetworkObjectKind::DownloadSource, fields);
        let secrets = [(SecretId::trusted("a"), Zeroizing::new("s".to_owned()))].into_iter().collect();
        let targets = Settings::of(&source, &Shared::default()).targets(&secrets, "");
        assert_eq!(targets[0].basic, Some(("u".to_owned(), "s".to_owned())));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(targets[0].headers, [pair("X-A", "b"), pair("Authorization", "ApiKey s")]);
    }
}
