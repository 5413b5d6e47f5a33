//! Options of the Elasticsearch of a server on this host, for `enroll` and `install`.

use camino::{Utf8Path, Utf8PathBuf};
use http::Uri;
use serde_json::{Map, Value, json};

use super::enroll_options::authority;
use super::secret_value;
use super::server_options::absolute;
use crate::exit::{self, Failure};
use crate::local_server::elasticsearch::Elasticsearch;
use crate::net::{Server, pem};
use crate::state::enrollment::{Secret, Trust};

/// Options of the Elasticsearch to which the policy of the server sends data.
#[derive(clap::Args)]
#[command(next_help_heading = "Elasticsearch of the fleet server on this host")]
pub struct ElasticsearchOptions {
    /// URL of Elasticsearch: test it, and configure it as the output of this agent's policy. --proxy-url and --header apply to it
    #[arg(long, value_name = "URL", requires = "fleet_server_credential")]
    fleet_server_es: Option<String>,
    /// Token of a service account with which the server creates the agents' API keys, @FILE, or - for standard input
    #[arg(long, value_name = "TOKEN", group = "fleet_server_credential", requires = "fleet_server_es")]
    fleet_server_service_token: Option<String>,
    /// File with this token, which is read once
    #[arg(long, value_name = "FILE", group = "fleet_server_credential", requires = "fleet_server_es")]
    fleet_server_service_token_path: Option<Utf8PathBuf>,
    /// PEM file with the CA certificates of Elasticsearch [default: the system's trust store]
    #[arg(long, value_name = "FILE", requires = "fleet_server_es")]
    fleet_server_es_ca: Option<Utf8PathBuf>,
    /// SHA-256 fingerprint of a CA certificate that Elasticsearch presents, in hex
    #[arg(long, value_name = "SHA256", requires = "fleet_server_es")]
    fleet_server_es_ca_trusted_fingerprint: Option<String>,
    /// Certificate (PEM) that the server presents to Elasticsearch
    #[arg(long, value_name = "FILE", requires = "fleet_server_es", requires = "fleet_server_es_cert_key")]
    fleet_server_es_cert: Option<Utf8PathBuf>,
    /// Private key (PEM, not encrypted) of this certificate
    #[arg(long, value_name = "FILE", requires = "fleet_server_es", requires = "fleet_server_es_cert")]
    fleet_server_es_cert_key: Option<Utf8PathBuf>,
    /// Do not verify the certificate of Elasticsearch; ignored if there is a CA or a fingerprint
    #[arg(long, requires = "fleet_server_es")]
    fleet_server_es_insecure: bool,
}

impl std::fmt::Debug for ElasticsearchOptions {
    /// Omits the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ElasticsearchOptions").field("url", &self.fleet_server_es).finish_non_exhaustive()
    }
}

impl ElasticsearchOptions {
    /// Returns whether there is an Elasticsearch.
    pub fn is_given(&self) -> bool {
        self.fleet_server_es.is_some()
    }

    /// Returns the hosts of the Elasticsearch, of which there may be none.
    pub fn servers(&self) -> Result<Vec<Server>, Failure> {
        let Some(url) = &self.fleet_server_es else { return Ok(Vec::new()) };
        // A password in the URL would be in the process list, and would not be used.
        if url.contains('@') {
            let failure = Failure::new(exit::USAGE, "--fleet-server-es: the URL contains a user");
            return Err(failure.hint("pass the credential of the server as --fleet-server-service-token"));
        }
        let parsed = url.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
        });
        let server = parsed.and_then(|_| Server::parse(url).ok());
        let wrong = || Failure::new(exit::USAGE, format!("--fleet-server-es: {url} is not an http or https URL"));
        Ok(vec![server.ok_or_else(|| wrong().hint("pass a URL such as https://es.example:9200"))?])
    }

    /// Reads the files of the options. Proxy and headers are those of `trust`.
    pub fn read(&self, trust: &Trust, proxy_disabled: bool) -> Result<Option<Elasticsearch>, Failure> {
        let Some(url) = &self.fleet_server_es else { return Ok(None) };
        let shared: Map<String, Value> = fields([("hosts", json!([url])), ("ssl", self.trust()?.into())]);
        let mut block = shared.clone();
        let mut ssl = self.trust()?;
        ssl.extend(self.certificate()?);
        // With a CA or a fingerprint, the certificate is verified in any case (AG105).
        if self.fleet_server_es_insecure && shared.get("ssl").is_none() {
            ssl.insert("verification_mode".into(), "none".into());
        }
        let named = |pairs: &[(String, Secret)]| -> Map<String, Value> {
            pairs.iter().map(|(name, value)| (name.clone(), value.expose().into())).collect()
        };
        let proxy = trust.proxy.as_ref();
        let more = fields([
            ("service_token", self.token()?.into()),
            ("ssl", ssl.into()),
            ("headers", named(&trust.headers).into()),
            ("proxy_url", proxy.map(|proxy| proxy.url.expose()).into()),
            ("proxy_headers", proxy.map(|proxy| named(&proxy.headers)).into()),
            ("proxy_disable", proxy_disabled.then_some(true).into()),
        ]);
        block.extend(more);
        Ok(Some(Elasticsearch { shared, block }))
    }

    fn trust(&self) -> Result<Map<String, Value>, Failure> {
        let flag = "--fleet-server-es-ca";
        let read = |path: &Utf8PathBuf| authority(flag, &absolute(flag, path)?);
        let ca = self.fleet_server_es_ca.as_ref().map(read).transpose()?;
        Ok(fields([
            ("certificate_authorities", ca.map(|pem| vec![pem]).into()),
            ("ca_trusted_fingerprint", self.fleet_server_es_ca_trusted_fingerprint.clone().into()),
        ]))
    }

    fn certificate(&self) -> Result<Map<String, Value>, Failure> {
        let read = |flag: &str, path: Option<&Utf8PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            let text = pem::text(absolute(flag, path)?.as_str());
            text.map(Some).map_err(|reason| Failure::new(exit::USAGE, format!("{flag}: {reason}")))
        };
        Ok(fields([
            ("certificate", read("--fleet-server-es-cert", self.fleet_server_es_cert.as_ref())?.into()),
            ("key", read("--fleet-server-es-cert-key", self.fleet_server_es_cert_key.as_ref())?.into()),
        ]))
    }

    fn token(&self) -> Result<String, Failure> {
        let (flag, token) = match (&self.fleet_server_service_token, &self.fleet_server_service_token_path) {
            (Some(given), _) => {
                let flag = "--fleet-server-service-token";
                (flag, secret_value::resolve(flag, given)?)
            }
            (None, path) => {
                let flag = "--fleet-server-service-token-path";
                // The option requires one of the two, so that there is a path.
                let path = absolute(flag, path.as_deref().unwrap_or(Utf8Path::new("/")))?;
                (flag, secret_value::resolve(flag, &format!("@{path}"))?)
            }
        };
        // A token with a line end in it would be an invalid header.
        if token.is_empty() || token.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let failure = Failure::new(exit::USAGE, format!("{flag}: empty, or contains spaces or line breaks"));
            return Err(failure.hint("pass the token exactly as Elasticsearch prints it"));
        }
        Ok(token)
    }
}

/// Returns the fields that have a value.
fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    let is_empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
    pairs.into_iter().filter(|(_, value)| !is_empty(value)).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    #[command(no_binary_name = true)]
    struct Flags {
        #[command(flatten)]
        options: ElasticsearchOptions,
    }

    #[test]
    fn ag105_insecure_is_ignored_beside_a_fingerprint() {
        let block = |more: &[&str]| {
            let flags = ["--fleet-server-es", "https://es:9200", "--fleet-server-service-token", "t"];
            let flags = Flags::try_parse_from([&flags[..], &["--fleet-server-es-insecure"], more].concat()).unwrap();
            flags.options.read(&Trust::default(), false).unwrap().unwrap().block
        };
        assert_eq!(block(&[])["ssl"], json!({"verification_mode": "none"}));
        let pinned = block(&["--fleet-server-es-ca-trusted-fingerprint", "ab"]);
        assert_eq!(pinned["ssl"], json!({"ca_trusted_fingerprint": "ab"}));
    }
}
