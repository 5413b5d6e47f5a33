//! Certificates: their ends, and the hosts that they cover.

use camino::Utf8Path;
use muster_core::error_chain::chain;
use muster_core::time::Timestamp;
use rustls::pki_types::CertificateDer;

use super::Finding;
use crate::config::Config;
use crate::tls::file::{read_certificates, read_client_cas};
use crate::tls::validity::{Role, Validity, Warning, uncovered, wrong_purpose};

const CHECK: &str = "certificates";

pub(super) fn examine(config: &Config, now: Timestamp) -> Vec<Finding> {
    if config.insecure_http {
        return vec![Finding::ok(CHECK, "not used: agents connect over plain HTTP")];
    }
    let mut findings = Vec::new();
    let is_own = config.tls.custom.is_none();
    let server = config.tls.custom.as_ref().map_or_else(|| config.data_dir.join("server.crt"), |files| files.0.clone());
    // Only if it issues its own: a configured file that is missing is an error.
    if is_own && !server.as_std_path().try_exists().unwrap_or(true) {
        return vec![Finding::ok(CHECK, "none yet: the server issues its own")];
    }
    let own_ca = config.data_dir.join("ca.crt");
    let files = [(&server, Role::Server)].into_iter().chain(is_own.then_some((&own_ca, Role::Ca)));
    for (path, role) in files.chain(config.tls.client_ca.iter().map(|path| (path, Role::ClientCa))) {
        findings.extend(file(config, path, role, now));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("valid: {server}")));
    }
    findings
}

fn file(config: &Config, path: &Utf8Path, role: Role, now: Timestamp) -> Vec<Finding> {
    let is_of_clients = role == Role::ClientCa;
    let certificates = match if is_of_clients { read_client_cas(path) } else { read_certificates(path) } {
        Ok(certificates) => certificates,
        Err(error) => {
            let remedy = match is_of_clients {
                true => "replace the file, or remove tls.client_ca from the configuration",
                false => "replace the file; the server recreates its own certificate if you delete server.crt",
            };
            return vec![Finding::error(CHECK, chain(&error).to_string(), remedy)];
        }
    };
    // The chain of a server contains CAs behind its own certificate.
    let role_of = |at: usize| if role == Role::Server && at > 0 { Role::Chain } else { role };
    let validity = |(at, der): (usize, &CertificateDer<'_>)| Validity::of(role_of(at), der)?.warning(now);
    let mut warnings: Vec<Warning> = certificates.iter().enumerate().filter_map(validity).collect();
    if let (Role::Server, Some(first)) = (role, certificates.first()) {
        warnings.extend(wrong_purpose(first));
        warnings.extend(uncovered(first, &config.external_urls));
    }
    warnings.into_iter().map(|warning| finding(warning, path)).collect()
}

fn finding(Warning { text, keeps_agents_out }: Warning, path: &Utf8Path) -> Finding {
    let remedy = format!("renew {path}, and check the clock; distribute a new CA before the server uses it");
    if keeps_agents_out { Finding::error(CHECK, text, remedy) } else { Finding::warning(CHECK, text, remedy) }
}
