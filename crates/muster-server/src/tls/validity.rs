//! Validity of certificates: their period, and the hosts that they cover.

use std::collections::BTreeSet;

use muster_core::plural::counted;
use muster_core::time::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::subject_names;
use super::host::url_host;

const DAY: i64 = 86_400;
/// Remaining days below which there is a warning for server certificates.
const SERVER_WARN_DAYS: i64 = 14;
/// Remaining days for a CA. More than for a certificate, because a new CA must be distributed to all agents before the
/// old one expires.
const CA_WARN_DAYS: i64 = 90;

/// Role of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The certificate that listeners present.
    Server,
    /// Another certificate of its chain.
    Chain,
    /// The fleet's own CA.
    Ca,
    /// A CA of client certificates.
    ClientCa,
}

impl Role {
    /// Returns its label in metrics.
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
            Self::Ca => "the fleet's own CA",
            Self::ClientCa => "a CA of client certificates (tls.client_ca)",
        }
    }

    /// Returns whether all agents verify it. Client certificates are optional, so their CAs concern only some agents.
    const fn is_presented(self) -> bool {
        !matches!(self, Self::ClientCa)
    }

    const fn warn_seconds(self) -> i64 {
        DAY * if matches!(self, Self::Ca) { CA_WARN_DAYS } else { SERVER_WARN_DAYS }
    }
}

/// Validity period of a certificate, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Role.
    pub role: Role,
    /// Subject, since a bundle of client CAs can contain many certificates.
    pub subject: String,
    /// First second of the period.
    pub from: i64,
    /// Last second of the period.
    pub until: i64,
}

/// A warning about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The problem and its remedy.
    pub text: String,
    /// Whether agents that verify certificates can't connect.
    pub keeps_agents_out: bool,
}

impl Validity {
    /// Returns the validity of a certificate; `None` if it can't be parsed.
    pub fn of(role: Role, der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let subject = certificate.subject().to_string();
        Some(Self { role, subject, from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    }

    /// Returns the seconds until it expires; negative after that.
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

    /// Returns the warning at `now`, if any.
    pub fn warning(&self, now: Timestamp) -> Option<Warning> {
        let what = self.describe();
        let keeps_agents_out = self.role.is_presented();
        let time = |seconds: i64| Timestamp::from_micros(seconds.saturating_mul(1_000_000)).to_rfc3339_seconds();
        let left = self.seconds_left(now);
        // Not yet valid is usually a wrong clock, so both times are in the text.
        if self.from > seconds(now) {
            let (from, now) = (time(self.from), now.to_rfc3339_seconds());
            let text = format!("{what} is not valid before {from}, and this host's clock says {now}");
            return Some(Warning { text, keeps_agents_out });
        }
        // Inclusive: the last second still counts (RFC 5280 §4.1.2.5).
        if left < 0 {
            let result = if keeps_agents_out { "agents cannot connect until it is replaced" } else { "replace it" };
            let text = format!("{what} expired at {}: {result}", time(self.until));
            return Some(Warning { text, keeps_agents_out });
        }
        (left < self.role.warn_seconds()).then(|| Warning {
            text: format!("{what} expires in {}, at {}", counted(left / DAY, "day"), time(self.until)),
            keeps_agents_out: false,
        })
    }
}

fn seconds(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1_000_000)
}

/// Returns a warning for a certificate that only clients may use, by its extended key usage (RFC 5280 §4.2.1.12).
pub fn wrong_purpose(der: &CertificateDer<'_>) -> Option<Warning> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let usage = certificate.extended_key_usage().ok()??.value;
    let text = "the server's certificate is not for servers: its extended key usage lacks serverAuth, so agents reject \
                it; request another one";
    // A certificate without the extension is good for everything.
    (!usage.server_auth && !usage.any).then(|| Warning { text: text.into(), keeps_agents_out: true })
}

/// Returns a warning for each external URL whose host the certificate does not cover.
pub fn uncovered(der: &CertificateDer<'_>, external_urls: &[String]) -> Vec<Warning> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Vec::new() };
    let names = subject_names(&certificate);
    let told = |host: String| {
        let has = if names.is_empty() { "no names".into() } else { listed(&names) };
        let text = format!("the server's certificate does not cover {host} from external_url; it covers {has}");
        // Agents may use another address, which the certificate covers.
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

/// Returns whether a name covers a host. A wildcard matches one label (RFC 6125).
fn covers(name: &str, host: &str) -> bool {
    // A dot at the end marks a name of DNS as complete.
    let lower = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let (name, host) = (lower(name), lower(host));
    match name.strip_prefix("*.") {
        // The rest must be equal: `*.example.com` covers neither `example.com` nor `a.b.example.com`.
        Some(parent) => host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == parent),
        None => name == host,
    }
}
