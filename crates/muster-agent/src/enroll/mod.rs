//! Enrollment: attempts with back-off until the server accepts the agent or permanently rejects it, or the timeout
//! expires.

pub mod delayed;
pub mod join;
pub mod plan;

use std::time::Duration;

use muster_core::Entropy;
use muster_core::error_chain::chain;
use muster_core::plural::counted;
use muster_protocol::elastic::enroll::EnrolledItem;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::backoff::{Backoff, between};
use crate::exit::{self, Failure};
use crate::fleet::enroll::Wish;
use crate::fleet::{CallError, FleetClient};
use crate::net::{TlsFault, TransportError};

/// Limits on the attempts.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Maximum total time of all attempts; `None` means no limit.
    pub timeout: Option<Duration>,
    /// Maximum number of attempts; `None` means no limit.
    pub attempts: Option<u32>,
    /// Minimum of the first delay.
    pub backoff_init: Duration,
    /// Maximum delay.
    pub backoff_max: Duration,
    /// Maximum random delay of the first attempt, so that hosts that are installed at the same time do not enroll at
    /// the same time.
    pub spread: Duration,
    /// What to do if the server rejects the request.
    pub rejection: OnRejection,
}

/// What to do if the server rejects an enrollment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRejection {
    /// Fail: somebody is waiting, and can correct the token.
    Fail,
    /// Retry: nobody is waiting, and the token may become valid later (AG91).
    Retry,
}

/// Why the agent is not enrolled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrollError {
    /// Retries cannot succeed.
    #[error("{source}")]
    Rejected {
        /// The last error.
        source: CallError,
    },
    /// Too many attempts, or too much time.
    #[error("not enrolled after {}: {source}", counted(*attempts, "attempt"))]
    GivenUp {
        /// The last error.
        source: CallError,
        /// Number of attempts.
        attempts: u32,
    },
}

impl EnrollError {
    /// Returns whether the server rejected the requested id (EA40).
    pub fn is_id_rejected(&self) -> bool {
        matches!(self, Self::Rejected { source: CallError::Refused { status: 403, .. } })
    }
}

impl From<EnrollError> for Failure {
    fn from(error: EnrollError) -> Self {
        match &error {
            EnrollError::Rejected { source } => {
                let (code, hint) = permanent(source).unwrap_or((exit::REFUSED, "see the log of the server"));
                Self::new(code, chain(source).to_string()).hint(hint)
            }
            EnrollError::GivenUp { source, .. } => {
                // Scripts distinguish a server that never responded from one that kept rejecting.
                let code = if matches!(source, CallError::Transport(_)) { exit::NETWORK } else { exit::TIMEOUT };
                Self::new(code, chain(&error).to_string()).hint(
                    "check the address and that the server is running; --timeout and --attempts limit the retries",
                )
            }
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(600)),
            attempts: None,
            backoff_init: Duration::from_secs(5),
            backoff_max: Duration::from_secs(600),
            spread: Duration::from_secs(1),
            rejection: OnRejection::Fail,
        }
    }
}

/// Enrolls the agent. Calls `progress` with a line for every failed attempt.
pub async fn enroll(
    client: &FleetClient,
    wish: &Wish,
    facts: &RawValue,
    patience: &Patience,
    entropy: &dyn Entropy,
    progress: impl Fn(&str),
) -> Result<EnrolledItem, EnrollError> {
    let deadline = patience.timeout.map(|timeout| Instant::now() + timeout);
    let mut backoff = Backoff::new(patience.backoff_init, patience.backoff_max);
    // Provisioning tools start many hosts in the same second.
    tokio::time::sleep(between(entropy, Duration::ZERO, patience.spread)).await;
    loop {
        let error = match client.enroll(wish, facts).await {
            Ok(item) => return Ok(item),
            Err(error) => error,
        };
        // Somebody is waiting for the command, so that only temporary failures are retried.
        if patience.rejection == OnRejection::Fail && permanent(&error).is_some() {
            return Err(EnrollError::Rejected { source: error });
        }
        let wait = backoff.next(entropy);
        // A delay that would end after the deadline is not started.
        let over = patience.attempts.is_some_and(|attempts| backoff.failures() >= attempts);
        if over || deadline.is_some_and(|deadline| Instant::now() + wait > deadline) {
            return Err(EnrollError::GivenUp { source: error, attempts: backoff.failures() });
        }
        progress(&format!(
            "{}; starting attempt {} in {:.1} s",
            summary(&error),
            backoff.failures() + 1,
            wait.as_secs_f64()
        ));
        tokio::time::sleep(wait).await;
    }
}

/// Returns the exit code and the remedy if retries cannot succeed.
fn permanent(error: &CallError) -> Option<(u8, &'static str)> {
    Some(match error {
        CallError::Refused { status: 401, .. } | CallError::Status { status: 401, .. } => (
            exit::REFUSED,
            "the enrollment token is unknown, revoked or expired; to create a new one: muster enrollment-key create",
        ),
        CallError::Refused { status: 403, .. } => {
            (exit::REFUSED, "to replace the agent with this --id, pass the --replace-token that it enrolled with")
        }
        CallError::Status { status: 400, .. } => {
            (exit::REFUSED, "the server rejected the request; it may be older than this agent")
        }
        CallError::Status { status: 404, .. } => {
            (exit::REFUSED, "this is not the agent listener of a fleet server; pass its URL (default port 8220)")
        }
        CallError::Redirect { .. } => (exit::REFUSED, "if you trust the target of the redirect, pass its URL"),
        CallError::Transport(TransportError::Tls { fault, .. }) => (exit::TLS, tls_hint(*fault)),
        _ => return None,
    })
}

fn tls_hint(fault: TlsFault) -> &'static str {
    match fault {
        TlsFault::Clock => "if this host's clock is wrong, set it; otherwise renew the server's certificate",
        TlsFault::Name => "pass a --url with a name or address that the certificate covers",
        TlsFault::NotTls => "check the address; the server may use plain HTTP or another protocol",
        TlsFault::Trust => {
            "pass the CA certificate of the server with --certificate-authorities, or its fingerprint with --ca-sha256"
        }
    }
}

fn summary(error: &CallError) -> String {
    match error.status() {
        // These responses are expected while many hosts enroll, so that details would only distract.
        Some(429) => "the server is busy (429)".into(),
        Some(status @ (502..=504)) => format!("the server is not ready ({status})"),
        _ => chain(error).to_string(),
    }
}
