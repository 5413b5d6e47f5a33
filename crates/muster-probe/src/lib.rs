//! Tests of the connections that agents make: to Fleet Server hosts, through proxies, and to download sources.
//!
//! [`Probes`] implements the fleet's port [`Prober`]. A test has a deadline, reads a limited part of each response, and connects
//! only to addresses that [`muster_fleet::outgoing`] permits. Of what the other side sends, only its name and status are
//! returned, shortened: a test must not become a way to read from services that only the server can reach.

mod exchange;
mod fault;
mod stream;
mod tls;
mod tunnel;

use std::time::Duration;

use async_trait::async_trait;
use muster_core::connection_test::{Answer, Cause, Expected, StepName, Target, Tested, Via, judge, origin_of};
use muster_fleet::connection_tests::Prober;
use muster_fleet::outgoing::LocalTargets;
use reqwest::Url;

use self::fault::{Fault, Trail};
use self::stream::{Route, Stream};

/// Maximum time of the test of one URL.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The tests of connections.
#[derive(Clone, Debug)]
pub struct Probes {
    local: LocalTargets,
    timeout: Duration,
    own_ca: Option<String>,
}

impl Probes {
    /// Creates them.
    pub fn new(local: LocalTargets) -> Self {
        Self { local, timeout: TIMEOUT, own_ca: None }
    }

    /// Sets the maximum time of the test of one URL.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets the fleet's own CA, PEM. It is trusted at the URLs of the fleet, because agents have got it with their enrollment.
    #[must_use]
    pub fn with_own_ca(self, pem: Option<String>) -> Self {
        Self { own_ca: pem, ..self }
    }

    async fn run(&self, target: &Target, trail: &mut Trail) -> Result<(), Fault> {
        let url = parsed(&target.url)?;
        let via = target.via.as_ref().map(|via| Ok::<_, Fault>((parsed(&via.url)?, via))).transpose()?;
        let tls = tls::client_config(&target.ssl, self.own_ca.as_deref().filter(|_| target.is_own))?;
        // Agents of this host reach the fleet at such a URL, and all that is requested there is its public status.
        let local = if target.is_own { LocalTargets::Permitted } else { self.local };
        // A proxy resolves the name itself: only an address in the URL can be checked here.
        local.check_literal(host(&url)).map_err(fault::unresolved)?;
        let route = Route { local, url: &url, via: via.as_ref().map(|(url, via)| (url, *via)), tls: &tls };
        let mut answers: Vec<Answer> = Vec::new();
        for path in target.expected.paths() {
            // A connection for each request, because servers may close them after a response.
            let stream = route.open(target.expected, trail).await?;
            trail.at(StepName::Response);
            answers.push(exchange::ask(stream, &route, target, path).await?);
            if let Some(judged) = judge(target.expected, &answers) {
                let found = judged.map_err(Fault::Judged)?;
                trail.passed(found);
                return Ok(());
            }
        }
        if target.expected == Expected::Tunnel {
            let _: Box<dyn Stream> = route.open(target.expected, trail).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Prober for Probes {
    async fn probe(&self, target: &Target) -> Tested {
        let mut trail = Trail::default();
        let late = || Fault::of(Cause::Late, format!("no result within {} seconds", self.timeout.as_secs_f32()));
        let ran = tokio::time::timeout(self.timeout, self.run(target, &mut trail)).await;
        let steps = trail.ended(ran.unwrap_or_else(|_| Err(late())));
        // For a proxy, its own URL is what was tested.
        let tested = match (&target.via, target.expected) {
            (Some(Via { url, .. }), Expected::Tunnel) => url,
            _ => &target.url,
        };
        Tested { url: origin_of(tested), steps }
    }
}

fn parsed(text: &str) -> Result<Url, Fault> {
    let invalid = |reason: String| Fault::of(Cause::Settings, format!("{}: {reason}", origin_of(text)));
    let url = Url::parse(text).map_err(|error| invalid(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid("must be an http or https URL".to_owned()));
    }
    Ok(url)
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(443)
}

/// Returns host and port, as a proxy expects them.
fn authority(url: &Url) -> String {
    format!("{}:{}", host(url), port(url))
}

/// Returns the value of the header for a user name and a password.
fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// Returns the same for those in a URL, if it has any.
fn basic_of(url: &Url) -> Option<String> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let has_user = !url.username().is_empty() || url.password().is_some();
    has_user.then(|| basic(&decoded(url.username()), &decoded(url.password().unwrap_or_default())))
}
