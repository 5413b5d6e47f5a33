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
        CallError::Status { status: 400, .. } => (
            exit::REFUSED,
            "change what the message names; if it names nothing, the server may be older than this agent",
        ),
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use serde_json::Value;

    use super::*;
    use crate::entropy::Seeded;
    use crate::net::{Request, Response, Server, Transport};
    use crate::state::enrollment::Secret;

    /// Answers with these statuses, and with a lost connection for 0; the last one is repeated.
    struct Answers {
        statuses: Vec<u16>,
        requests: Mutex<Vec<(Instant, Value)>>,
    }

    #[async_trait]
    impl Transport for Answers {
        async fn send(&self, _: &Server, request: Request) -> Result<Response, TransportError> {
            let mut requests = self.requests.lock().unwrap();
            let status = *self.statuses.get(requests.len()).or(self.statuses.last()).unwrap();
            requests.push((Instant::now(), serde_json::from_slice(&request.body).unwrap()));
            let body = match status {
                0 => return Err(TransportError::Broken("lost".into())),
                200 => serde_json::json!({"action": "created", "item": {"id": "a", "active": true, "policy_id": "p",
                    "type": "PERMANENT", "enrolled_at": "", "user_provided_metadata": null, "local_metadata": null,
                    "access_api_key_id": "k", "access_api_key": "k", "status": "online", "tags": []}})
                .to_string(),
                status => format!(r#"{{"statusCode":{status},"error":"E","message":"m"}}"#),
            };
            Ok(Response { status, headers: Default::default(), body: body.into() })
        }
    }

    async fn attempt(statuses: &[u16], seed: u64) -> (Result<EnrolledItem, EnrollError>, Vec<(Instant, Value)>) {
        let answers = Arc::new(Answers { statuses: statuses.to_vec(), requests: Mutex::default() });
        let server = Server::parse("https://fleet.example").unwrap();
        let entropy = Arc::new(Seeded::new(seed));
        let client = FleetClient::new(answers.clone(), vec![server], Secret::new("dG9rOmVu"), entropy.clone());
        let wish = Wish { enrollment_id: "e".into(), ..Wish::default() };
        let facts = serde_json::value::to_raw_value(&serde_json::json!({})).unwrap();
        let outcome = enroll(&client, &wish, &facts, &Patience::default(), &*entropy, |_| {}).await;
        let requests = answers.requests.lock().unwrap().clone();
        (outcome, requests)
    }

    #[tokio::test(start_paused = true)]
    async fn ag79_ag87_temporary_failures_are_retried_as_one_enrollment_until_the_timeout() {
        let (outcome, requests) = attempt(&[429, 502, 503, 504, 0, 200], 1).await;
        assert_eq!((outcome.unwrap().id.as_str(), requests.len()), ("a", 6));
        // The server recognizes them as one, even if it has created an agent whose response was lost.
        assert!(requests.iter().all(|(_, body)| body["enrollment_id"] == "e"), "{requests:?}");
        for seed in 0..20 {
            let begun = Instant::now();
            let (outcome, requests) = attempt(&[503], seed).await;
            assert!(matches!(outcome, Err(EnrollError::GivenUp { .. })));
            assert!(begun.elapsed() <= Duration::from_secs(600));
            let waits: Vec<f64> = requests.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64()).collect();
            for (number, wait) in waits.iter().enumerate() {
                let longest = (5.0 * 2_f64.powi(i32::try_from(number).unwrap() + 1)).min(600.0);
                assert!((longest / 2.0..=longest).contains(wait), "{number}: {waits:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ag79_ag80_a_rejection_ends_at_once_with_a_hint() {
        for status in [400, 401, 403, 404] {
            let (outcome, requests) = attempt(&[status, 200], 1).await;
            let failure = Failure::from(outcome.unwrap_err());
            assert_eq!((failure.code, requests.len()), (exit::REFUSED, 1), "{status}");
            assert!(failure.hint.is_some(), "{status}");
        }
    }
}
