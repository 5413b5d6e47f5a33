//! What time and names do to certificates: how long they are valid, and which hosts they are good for.

use std::collections::BTreeSet;

use muster_core::time::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::subject_names;
use super::host::url_host;

const DAY: i64 = 86_400;
/// A server's certificate that ends so soon is warned of.
const SERVER_WARN_DAYS: i64 = 14;
/// Agents must be given a new CA before the old one ends: that takes longer than a new certificate.
const CA_WARN_DAYS: i64 = 90;

/// Which certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The one that listeners present.
    Server,
    /// One that comes with it in the chain.
    Chain,
    /// The server's own CA.
    Ca,
    /// A CA of client certificates.
    ClientCa,
}

impl Role {
    /// The word, as metrics label it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Chain => "chain",
            Self::Ca => "ca",
            Self::ClientCa => "client_ca",
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Server => "the server's certificate",
            Self::Chain => "a CA certificate of the server's chain",
            Self::Ca => "the server's own CA",
            Self::ClientCa => "a CA of client certificates (tls.client_ca)",
        }
    }

    /// Whether agents verify it. Client certificates are optional, so a CA of theirs concerns few agents.
    const fn is_presented(self) -> bool {
        !matches!(self, Self::ClientCa)
    }

    const fn warn_seconds(self) -> i64 {
        DAY * if matches!(self, Self::Ca) { CA_WARN_DAYS } else { SERVER_WARN_DAYS }
    }
}

/// The time for which a certificate is valid, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Which one it is.
    pub role: Role,
    /// Its subject: a bundle of client CAs may hold many.
    pub subject: String,
    /// Its first second.
    pub from: i64,
    /// Its last second.
    pub until: i64,
}

/// Something about a certificate that people should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What is wrong, and what to do.
    pub text: String,
    /// Whether no agent that verifies certificates can connect.
    pub keeps_agents_out: bool,
}

impl Validity {
    /// Of a certificate that can be parsed.
    pub fn of(role: Role, der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let subject = certificate.subject().to_string();
        Some(Self { role, subject, from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    }

    /// Seconds until it expires; negative since it did.
    pub fn seconds_left(&self, now: Timestamp) -> i64 {
        self.until - seconds(now)
    }

    fn describe(&self) -> String {
        let what = self.role.describe();
        match self.role {
            Role::ClientCa => format!("{what}, {},", self.subject),
            Role::Server | Role::Chain | Role::Ca => what.to_owned(),
        }
    }

    /// The warning that is due at `now`.
    pub fn warning(&self, now: Timestamp) -> Option<Warning> {
        let what = self.describe();
        let keeps_agents_out = self.role.is_presented();
        let time = |seconds: i64| Timestamp::from_micros(seconds.saturating_mul(1_000_000)).to_rfc3339_seconds();
        let left = self.seconds_left(now);
        if self.from > seconds(now) {
            let (from, now) = (time(self.from), now.to_rfc3339_seconds());
            let text = format!("{what} is not valid before {from}, and this host's clock says {now}");
            return Some(Warning { text, keeps_agents_out });
        }
        if left < 0 {
            let result = if keeps_agents_out { "agents cannot connect until it is replaced" } else { "replace it" };
            let text = format!("{what} expired at {}: {result}", time(self.until));
            return Some(Warning { text, keeps_agents_out });
        }
        (left < self.role.warn_seconds()).then(|| Warning {
            text: format!("{what} expires in {} days, at {}", left / DAY, time(self.until)),
            keeps_agents_out: false,
        })
    }
}

fn seconds(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1_000_000)
}

/// Warnings about addresses that agents are told and that the certificate is not good for.
pub fn uncovered(der: &CertificateDer<'_>, external_urls: &[String]) -> Vec<Warning> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let names = subject_names(&certificate);
    let told = |host: String| {
        let has = if names.is_empty() { "no names".into() } else { listed(&names) };
        let text = format!("the server's certificate does not cover {host} from external_url; it covers {has}");
        // Agents may have been given another address that it is good for.
        Warning { text, keeps_agents_out: false }
    };
    let hosts: BTreeSet<String> = external_urls.iter().filter_map(|url| url_host(url)).collect();
    hosts.into_iter().filter(|host| !names.iter().any(|name| covers(name, host))).map(told).collect()
}

fn listed(names: &BTreeSet<String>) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(" …");
    }
    text
}

/// A wildcard stands for one label (RFC 6125).
fn covers(name: &str, host: &str) -> bool {
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == parent),
        None => name == host,
    }
}
