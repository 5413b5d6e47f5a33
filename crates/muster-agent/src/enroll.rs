//! Enrolment: attempts with back-off until the server admits us, says a definite no, or time is up.

use std::time::Duration;

use muster_core::Entropy;
use muster_protocol::elastic::enroll::EnrolledItem;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::backoff::{Backoff, between};
use crate::exit::{self, Failure};
use crate::fleet::enroll::Wish;
use crate::fleet::{CallError, FleetClient};
use crate::net::TransportError;

/// How long to go on.
#[derive(Clone, Debug)]
pub struct Patience {
    /// All attempts together; `None`: for ever.
    pub timeout: Option<Duration>,
    /// How many; `None`: any number.
    pub attempts: Option<u32>,
    /// First wait, at least.
    pub backoff_init: Duration,
    /// No wait reaches it.
    pub backoff_max: Duration,
    /// The first attempt comes within this time, so that a fleet does not come all at once.
    pub spread: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(600)),
            attempts: None,
            backoff_init: Duration::from_secs(5),
            backoff_max: Duration::from_secs(600),
            spread: Duration::from_secs(1),
        }
    }
}

/// Enrols. `progress` gets a line for every failed attempt.
pub async fn enroll(
    client: &FleetClient,
    wish: &Wish,
    facts: &RawValue,
    patience: &Patience,
    entropy: &dyn Entropy,
    progress: impl Fn(&str),
) -> Result<EnrolledItem, Failure> {
    let deadline = patience.timeout.map(|timeout| Instant::now() + timeout);
    let mut backoff = Backoff::new(patience.backoff_init, patience.backoff_max);
    tokio::time::sleep(between(entropy, Duration::ZERO, patience.spread)).await;
    loop {
        let error = match client.enroll(wish, facts).await {
            Ok(item) => return Ok(item),
            Err(error) => error,
        };
        if let Some(failure) = definite(&error) {
            return Err(failure);
        }
        let wait = backoff.next(entropy);
        let over = patience.attempts.is_some_and(|attempts| backoff.failures() >= attempts);
        if over || deadline.is_some_and(|deadline| Instant::now() + wait > deadline) {
            return Err(given_up(&error, backoff.failures()));
        }
        progress(&format!(
            "{}; attempt {} follows in {:.1} s",
            told(&error),
            backoff.failures() + 1,
            wait.as_secs_f64()
        ));
        tokio::time::sleep(wait).await;
    }
}

/// What more attempts can't mend.
fn definite(error: &CallError) -> Option<Failure> {
    let (code, advice) = match error {
        CallError::Refused { status: 401, .. } | CallError::Status { status: 401, .. } => (
            exit::REFUSED,
            "The enrollment token is unknown, revoked or expired. Ask for a new one (muster enrollment-key create)",
        ),
        CallError::Refused { status: 403, .. } => (
            exit::REFUSED,
            "With --id, the agent of that id can only be replaced with the --replace-token it was enrolled with",
        ),
        CallError::Status { status: 400, .. } => {
            (exit::REFUSED, "The server does not take this request; it may be older than this agent")
        }
        CallError::Status { status: 404, .. } => {
            (exit::REFUSED, "No fleet server answers there. Give --url the address of the agents' listener (port 8220)")
        }
        CallError::Redirect { .. } => (exit::REFUSED, "Give --url the address that it redirects to, if you trust it"),
        CallError::Transport(TransportError::Tls { .. }) => (
            exit::TLS,
            "Give the server's authority with --certificate-authorities FILE or its fingerprint with --ca-sha256",
        ),
        _ => return None,
    };
    Some(Failure::new(code, format!("{error}. {advice}")))
}

fn told(error: &CallError) -> String {
    match error.status() {
        Some(429) => "The server is busy (429)".into(),
        Some(status @ (502..=504)) => format!("The server is not ready ({status})"),
        _ => error.to_string(),
    }
}

fn given_up(error: &CallError, attempts: u32) -> Failure {
    let code = if matches!(error, CallError::Transport(_)) { exit::NETWORK } else { exit::TIMEOUT };
    let advice = "Check the address and that the server runs; --timeout and --attempts say how long to go on";
    Failure::new(code, format!("not enrolled after {attempts} attempts: {error}. {advice}"))
}
