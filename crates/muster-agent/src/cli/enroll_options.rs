//! Options of an enrollment, for `enroll` and `install`. All of them are validated before the first connection.

use std::time::Duration;

use camino::Utf8PathBuf;
use muster_core::error_chain::chain;
use muster_core::pem::no_certificate;
use muster_core::private_key;

use super::secret_value;
use crate::duration;
use crate::enroll::Patience;
use crate::enroll::plan::{PLAN_VERSION, Plan};
use crate::exit::{self, Failure};
use crate::net::extra_headers;
use crate::net::proxy::{Proxy, is_exempt};
use crate::net::tls::check_authority;
use crate::net::{Server, pem};
use crate::state::enrollment::{ClientCertificate, Secret, Trust};
use crate::token::{self, BadToken};

/// Options of an enrollment.
#[derive(clap::Args)]
pub struct Options {
    /// URL of the server's agent listener (repeatable)
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// Enrollment token, @FILE, or - for standard input; other users can see arguments in the process list
    #[arg(long, short = 't', env = "MUSTER_ENROLLMENT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    enrollment_token: Option<String>,
    /// PEM files with the CA certificates to trust [default: the system's trust store]
    #[arg(long, short = 'a', value_name = "FILE", value_delimiter = ',')]
    certificate_authorities: Vec<Utf8PathBuf>,
    /// SHA-256 fingerprint of the CA: of its certificate in hex, or of its public key in base64
    #[arg(long, short = 'p', value_name = "SHA256", value_delimiter = ',')]
    ca_sha256: Vec<String>,
    /// Allow plain HTTP to a loopback address
    #[arg(long, short = 'i')]
    insecure: bool,
    /// Proxy for servers of other hosts: http://[USER:PASSWORD@]HOST:PORT, @FILE, or - [default: HTTPS_PROXY, unless NO_PROXY
    /// contains the server]
    #[arg(long, value_name = "URL")]
    proxy_url: Option<String>,
    /// Additional header of requests to the proxy (repeatable)
    #[arg(long = "proxy-header", value_name = "NAME=VALUE")]
    proxy_headers: Vec<String>,
    /// Use no proxy, not even one of the environment
    #[arg(long, conflicts_with_all = ["proxy_url", "proxy_headers"])]
    proxy_disabled: bool,
    /// Additional header of every request to the server (repeatable); @FILE as VALUE reads it from a file
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// Certificate (PEM) that the agent presents to the server
    #[arg(long, value_name = "FILE", requires = "elastic_agent_cert_key")]
    elastic_agent_cert: Option<Utf8PathBuf>,
    /// Private key (PEM) of this certificate
    #[arg(long, value_name = "FILE", requires = "elastic_agent_cert")]
    elastic_agent_cert_key: Option<Utf8PathBuf>,
    /// File with the passphrase of this key, which is stored without it
    #[arg(long, value_name = "FILE", requires = "elastic_agent_cert_key")]
    elastic_agent_cert_key_passphrase: Option<Utf8PathBuf>,
    /// Accepted, but without effect: packages are verified with release keys, wherever they come from
    #[arg(long, value_name = "HASH", hide = true)]
    staging: Option<String>,
    /// Tags of the agent, separated by commas (repeatable)
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// Agent id to request [default: the previous one at the same server, otherwise the server generates one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Secret that allows a later enrollment under the same id, @FILE, or - [default: a random one]
    #[arg(long, env = "MUSTER_REPLACE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    replace_token: Option<String>,
    /// Maximum total time for retries; 0 means no limit
    #[arg(long, visible_alias = "enroll-timeout", value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
    /// Maximum number of attempts
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
}

impl std::fmt::Debug for Options {
    /// Omits the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl Options {
    /// Returns whether neither a server nor a token was passed.
    pub fn is_absent(&self) -> bool {
        self.urls.is_empty() && self.enrollment_token.is_none()
    }

    /// Sets the server and the token, which were not passed.
    pub fn complete(&mut self, url: String, token: String) {
        (self.urls, self.enrollment_token) = (vec![url], Some(token));
    }

    /// Returns the limits on the attempts.
    pub fn patience(&self) -> Patience {
        let timeout = (!self.timeout.is_zero()).then_some(self.timeout);
        Patience { timeout, attempts: self.attempts, ..Patience::default() }
    }

    /// Returns the servers of `--url`, of which there may be none.
    pub fn urls(&self) -> Result<Vec<Server>, Failure> {
        let parse = |url: &String| Server::parse(url);
        self.urls
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::new(exit::USAGE, format!("--url: {error}")))
    }

    /// Returns the files of certificate authorities.
    pub fn authority_files(&self) -> &[Utf8PathBuf] {
        &self.certificate_authorities
    }

    /// Explains options of Elastic Agent that have no effect.
    pub fn explain(&self) {
        if self.staging.is_some() {
            eprintln!(
                "Note: --staging has no effect: packages of any source are verified with release keys; the source is \
                 upgrade.source_uri in agent.yml"
            );
        }
    }

    /// Returns whether no proxy is used.
    pub fn is_proxy_disabled(&self) -> bool {
        self.proxy_disabled
    }

    /// Validates the options for a server that is about to start, and that can also provide the token. Its proxy is the one
    /// in front of `others`.
    pub fn local_plan(&self, more_tags: &[String], others: &[Server]) -> Result<Plan, Failure> {
        let token = if self.enrollment_token.is_some() { self.token()? } else { String::new() };
        self.plan_at(others, token, more_tags)
    }

    /// Validates the options. `more_tags` are added to those of the command line.
    pub fn plan(&self, more_tags: &[String]) -> Result<Plan, Failure> {
        let servers = self.servers()?;
        self.plan_at(&servers, self.token()?, more_tags)
    }

    fn plan_at(&self, servers: &[Server], token: String, more_tags: &[String]) -> Result<Plan, Failure> {
        let tags = tags(self.tags.iter().chain(more_tags));
        Ok(Plan {
            version: PLAN_VERSION,
            servers: servers.iter().map(ToString::to_string).collect(),
            token: Secret::new(token),
            trust: self.trust(servers)?,
            id: self.id.clone(),
            replace_token: self.replace_token()?.map(Secret::new),
            tags,
            local_server: false,
        })
    }

    fn servers(&self) -> Result<Vec<Server>, Failure> {
        if self.urls.is_empty() {
            let failure = Failure::new(exit::USAGE, "--url: the URL of the server is missing");
            return Err(failure.hint("pass the URL of the server's agent listener, such as https://fleet.example:8220"));
        }
        let servers = self.urls()?;
        for server in &servers {
            // Plain HTTP cannot be intercepted on loopback. On any other network, it would expose the access key.
            if !(server.tls || self.insecure && server.is_loopback()) {
                let failure = Failure::new(exit::USAGE, format!("--url: {server} would send credentials unencrypted"));
                return Err(failure.hint("use https; --insecure allows http only to a loopback address"));
            }
        }
        Ok(servers)
    }

    /// Checks the format of the tokens, so that a paste error is a usage error instead of a rejection by the server.
    fn token(&self) -> Result<String, Failure> {
        let given = self.enrollment_token.as_deref().ok_or_else(|| {
            Failure::new(exit::USAGE, "--enrollment-token: the enrollment token is missing")
                .hint("to create one: muster enrollment-key create")
        })?;
        let token = secret_value::resolve("--enrollment-token", given)?;
        token::check(&token).map_err(|error| {
            let hint = match error {
                // The message says already how to pass it.
                BadToken::Malformed(_) => "`muster enrollment-key create` creates and prints one",
                _ => "pass the token exactly as `muster enrollment-key create` prints it: one line, without quotes or spaces",
            };
            Failure::new(exit::USAGE, format!("--enrollment-token: {error}")).hint(hint)
        })?;
        Ok(token)
    }

    fn replace_token(&self) -> Result<Option<String>, Failure> {
        let given = self.replace_token.as_deref();
        let token = given.map(|given| secret_value::resolve("--replace-token", given)).transpose()?;
        let breaks = |text: &str| text.trim() != text || text.is_empty() || text.chars().any(char::is_control);
        if token.as_deref().is_some_and(breaks) {
            let message = "--replace-token: empty, or contains line breaks, control characters or surrounding spaces";
            return Err(Failure::new(exit::USAGE, message)
                .hint("pass it exactly as in the first enrollment, without quotes or line breaks"));
        }
        Ok(token)
    }

    fn trust(&self, servers: &[Server]) -> Result<Trust, Failure> {
        let read = |path| authority("--certificate-authorities", path);
        let certificate_authorities = self.certificate_authorities.iter().map(read).collect::<Result<_, _>>()?;
        let ca_sha256 = self.ca_sha256.clone();
        Ok(Trust {
            certificate_authorities,
            ca_sha256,
            insecure: self.insecure,
            server_name: None,
            proxy: self.proxy(servers)?,
            client: self.client()?,
            headers: self.headers()?,
        })
    }

    /// Returns the additional headers of requests to the server (AG89).
    fn headers(&self) -> Result<Vec<(String, Secret)>, Failure> {
        let wrong = |reason: String| Failure::new(exit::USAGE, format!("--header: {reason}"));
        let read = |header: &String| {
            let (name, value) = header.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE".into()))?;
            Ok((name.to_owned(), Secret::new(secret_value::resolve("--header", value)?)))
        };
        let headers: Vec<_> = self.headers.iter().map(read).collect::<Result<_, Failure>>()?;
        extra_headers::parse(&headers).map_err(|error| wrong(error.to_string()))?;
        Ok(headers)
    }

    /// Returns the certificate that the agent presents (AG13).
    fn client(&self) -> Result<Option<ClientCertificate>, Failure> {
        let read = |flag: &str, path: &Utf8PathBuf| {
            pem::text(path.as_str()).map_err(|reason| Failure::new(exit::USAGE, format!("{flag}: {reason}")))
        };
        let (Some(certificate), Some(key)) = (&self.elastic_agent_cert, &self.elastic_agent_cert_key) else {
            return Ok(None);
        };
        let certificate = read("--elastic-agent-cert", certificate)?;
        let key = read("--elastic-agent-cert-key", key)?;
        let key = match &self.elastic_agent_cert_key_passphrase {
            Some(path) => {
                let flag = "--elastic-agent-cert-key-passphrase";
                let passphrase = secret_value::resolve(flag, &format!("@{path}"))?;
                let wrong = |error| Failure::new(exit::USAGE, format!("{flag}: {}", chain(&error)));
                Secret::new(private_key::decrypt(&key, &passphrase).map_err(wrong)?.as_str())
            }
            None if private_key::is_encrypted(&key) => {
                let failure = Failure::new(exit::USAGE, "--elastic-agent-cert-key: the key is encrypted");
                return Err(failure.hint("pass a file with its passphrase: --elastic-agent-cert-key-passphrase FILE"));
            }
            None => Secret::new(key),
        };
        Ok(Some(ClientCertificate { certificate, key }))
    }

    /// Returns the proxy of the options or the environment. It is stored: a service has another environment.
    fn proxy(&self, servers: &[Server]) -> Result<Option<Proxy>, Failure> {
        let wrong = |flag: &str, reason: &str| Failure::new(exit::USAGE, format!("{flag}: {reason}"));
        let of_environment = || {
            let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
            let exempt = read("NO_PROXY").or_else(|| read("no_proxy")).unwrap_or_default();
            let url = read("HTTPS_PROXY").or_else(|| read("https_proxy"))?;
            (!servers.iter().any(|server| is_exempt(&exempt, server))).then_some(("HTTPS_PROXY", url))
        };
        let (flag, url) = match &self.proxy_url {
            Some(given) => ("--proxy-url", secret_value::resolve("--proxy-url", given)?),
            None if self.proxy_disabled => return Ok(None),
            None => match of_environment() {
                Some(found) => found,
                None if self.proxy_headers.is_empty() => return Ok(None),
                None => return Err(wrong("--proxy-header", "there is no proxy").hint("pass it with --proxy-url")),
            },
        };
        let split = |header: &String| header.split_once('=').map(|(name, value)| (name.into(), Secret::new(value)));
        let headers = self.proxy_headers.iter().map(split).collect::<Option<_>>();
        let headers = headers.ok_or_else(|| wrong("--proxy-header", "expected NAME=VALUE"))?;
        let proxy = Proxy { url: Secret::new(url), headers };
        proxy.tunnel().map_err(|error| wrong(flag, &chain(&error).to_string()))?;
        Ok(Some(proxy))
    }
}

/// Reads a file of CA certificates, which must contain nothing else.
pub(super) fn authority(flag: &str, path: &Utf8PathBuf) -> Result<String, Failure> {
    let wrong = |reason: String| {
        let failure = Failure::new(exit::USAGE, format!("{flag}: {path}: {reason}"));
        match flag {
            "--certificate-authorities" => {
                failure.hint("pass the PEM file of the server's CA certificate: muster ca export --out ca.crt")
            }
            _ => failure.hint("pass the PEM file of the CA certificate"),
        }
    };
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot read the file: {error}")))?;
    if let Some(reason) = no_certificate(&bytes) {
        return Err(wrong(reason));
    }
    let pem = String::from_utf8_lossy(&bytes).into_owned();
    check_authority(&pem).map_err(|error| wrong(chain(&error).to_string()))?;
    Ok(pem)
}

fn tags<'a>(given: impl Iterator<Item = &'a String>) -> Vec<String> {
    // `--tag web,` and `--tag "web, prod"` are common, and servers reject empty tags (AG88).
    given.map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
}
