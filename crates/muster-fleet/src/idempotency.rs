//! Idempotency keys: a request that is repeated with its key is not executed again, but gets the stored response (MG15).
//!
//! The key is stored before the request is executed, and the response after it. If the server stops in between, the outcome
//! is unknown, and repetitions are rejected: a request is executed at most once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use muster_core::authorization::OpContext;
use muster_core::error_chain::{SharedError, chain};
use muster_core::seal::{Place, Sealer};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{IdempotencyWrite, KeyedRequest, Precondition, StoreError, Write};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::audit::audit_line;
use super::authority::System;
use super::watched_store::WatchedStore;

/// Retention of keys and responses.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum length of a stored response in bytes.
pub const MAX_RESPONSE: usize = 32 << 10;
/// Maximum number of keys that a caller can use within [`KEPT`].
const MAX_KEYS: u64 = 2_000;
/// Maximum length of a key, characters.
const MAX_KEY: usize = 255;
/// Time within which every request is finished.
const LONGEST: Duration = Duration::from_secs(120);

/// The service of idempotency keys.
pub struct Idempotency {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    sealer: Arc<Sealer>,
}

/// SHA-256 of everything that makes two requests the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Hashes the parts of a request.
    pub fn of(parts: &[&[u8]]) -> Self {
        // With lengths, so that moving a byte from one part to the next changes the hash.
        let framed: Vec<u8> = parts
            .iter()
            .flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.iter().copied()))
            .collect();
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &framed).as_ref());
        Self(hash)
    }
}

/// A stored response.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: String,
    /// Body.
    pub body: String,
}

impl fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body may contain a token.
        write!(f, "StoredResponse({})", self.status)
    }
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
enum Outcome {
    /// Not known yet, or never.
    Pending,
    /// It succeeded.
    Done(StoredResponse),
    /// It succeeded, and its response was too long to be stored.
    TooLong,
}

/// A request with a key that is to be executed.
#[derive(Debug)]
pub struct Begun {
    account: String,
    key: String,
    created_at: Timestamp,
    fingerprint: Fingerprint,
}

/// What to do with a request that has a key.
#[derive(Debug)]
pub enum Verdict {
    /// Execute it, and report its outcome.
    Execute(Begun),
    /// Send the stored response.
    Answer(StoredResponse),
    /// The key was used with another request.
    OtherRequest,
}

impl Idempotency {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        sealer: Arc<Sealer>,
    ) -> Self {
        Self { store, clock, entropy, sealer }
    }

    /// Stores the key of a request, or finds the request that used it before.
    ///
    /// Fails with `request_pending` while the first request is being executed, with [`OUTCOME_UNKNOWN`](muster_core::error::OUTCOME_UNKNOWN) if
    /// its outcome will never be known, and with `response_not_stored` if its response was too long.
    pub async fn begin(&self, context: &OpContext, key: &str, fingerprint: Fingerprint) -> Result<Verdict, Error> {
        check(key)?;
        let begun = Begun {
            account: context.actor().to_string(),
            key: key.to_owned(),
            created_at: self.clock.now(),
            fingerprint,
        };
        let begin = IdempotencyWrite::Begin {
            // Pending from the start: a server that stops now leaves a key whose outcome is unknown, not a free one.
            request: self.record(&begun, &Outcome::Pending)?,
            live_from: begun.created_at.minus(KEPT),
            limit: MAX_KEYS,
        };
        match self.store.commit(&System, vec![begin.into()]).await {
            Ok(_) => Ok(Verdict::Execute(begun)),
            Err(StoreError::Conflict(Precondition::Exists(_))) => self.earlier(context, &begun).await,
            Err(StoreError::Conflict(Precondition::TooMany(_))) => Err(too_many()),
            Err(error) => Err(error.into()),
        }
    }

    async fn earlier(&self, context: &OpContext, begun: &Begun) -> Result<Verdict, Error> {
        let found = self.store.everywhere(&System).keyed_request(&begun.account, &begun.key).await?;
        // Forgotten since: its request failed, or the day is over.
        let Some(found) = found else { return Err(pending()) };
        let place = row(&found.account, &found.key);
        let opened = self.sealer.open(Place::keyed_request(&place), &found.sealed);
        let opened =
            opened.map_err(|error| Error::internal(SharedError::during("opening a stored response", error)))?;
        let (fingerprint, outcome): (Fingerprint, Outcome) =
            serde_json::from_slice(&opened).map_err(Error::internal)?;
        // Compared after opening, because the fingerprint is sealed with the response.
        if fingerprint != begun.fingerprint {
            return Ok(Verdict::OtherRequest);
        }
        match outcome {
            Outcome::Done(response) => {
                // The repetition shows the secret again, which is an event of its own.
                if shows_secret(&response.body) {
                    let subject = format!("idempotency_key:{}", begun.key);
                    let line = audit_line(context.origin(), begun.created_at, "response.reveal", subject, json!({}));
                    self.store.commit(&System, vec![line]).await?;
                }
                Ok(Verdict::Answer(response))
            }
            Outcome::TooLong => Err(not_stored()),
            // Longer than any request takes: the first one has ended without an answer.
            Outcome::Pending if begun.created_at.since(found.created_at) < LONGEST => Err(pending()),
            Outcome::Pending => Err(unknown()),
        }
    }

    /// Stores the response of a request that succeeded; `None` if it is longer than [`MAX_RESPONSE`].
    pub async fn succeeded(&self, begun: Begun, response: Option<StoredResponse>) {
        let outcome = response.map_or(Outcome::TooLong, Outcome::Done);
        let stored = match self.record(&begun, &outcome) {
            Ok(record) => self.store.commit(&System, vec![IdempotencyWrite::Finish(record).into()]).await.map(drop),
            Err(error) => return tracing::warn!(error = %chain(&error), "failed to seal the response of a request"),
        };
        // The request itself succeeded. A repetition learns that its outcome is unknown.
        if let Err(error) = stored {
            tracing::warn!(error = %chain(&error), "failed to store the response of a request with an idempotency key");
        }
    }

    /// Forgets the key of a request that changed nothing, so that it can be used again.
    pub async fn failed(&self, begun: Begun) {
        let Begun { account, key, created_at, .. } = begun;
        // With the time of the request, so that a later one with the same key is not forgotten instead.
        let forget: Write = IdempotencyWrite::Forget { account, key, created_at }.into();
        if let Err(error) = self.store.commit(&System, vec![forget]).await {
            tracing::warn!(error = %chain(&error), "failed to delete the idempotency key of a failed request");
        }
    }

    fn record(&self, begun: &Begun, outcome: &Outcome) -> Result<KeyedRequest, Error> {
        let plain = serde_json::to_vec(&(begun.fingerprint, outcome)).map_err(Error::internal)?;
        // Sealed, because responses may contain tokens, and fingerprints those of passwords.
        let place = row(&begun.account, &begun.key);
        let sealed = self.sealer.seal(Place::keyed_request(&place), &plain, &*self.entropy);
        let sealed = sealed.map_err(|error| Error::internal(SharedError::during("sealing a response", error)))?;
        let (account, key, created_at) = (begun.account.clone(), begun.key.clone(), begun.created_at);
        Ok(KeyedRequest { account, key, sealed, created_at })
    }
}

/// Returns whether a response contains a key, a token or a secret, which its repetition shows again.
fn shows_secret(body: &str) -> bool {
    const SECRETS: [&str; 5] =
        ["\"api_key\":\"", "\"token\":\"", "\"secret\":\"", "\"service_token\":\"", "\"value\":\""];
    SECRETS.iter().any(|name| body.contains(name))
}

/// Neither part contains a line break.
fn row(account: &str, key: &str) -> String {
    format!("{account}\n{key}")
}

fn check(key: &str) -> Result<(), Error> {
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let reason = format!("must have 1 to {MAX_KEY} visible ASCII characters, such as a UUID");
        return Err(Error::invalid("Idempotency-Key", reason));
    }
    Ok(())
}

fn pending() -> Error {
    Error::conflict("request_pending", "the first request with this idempotency key is being executed")
        .remedy("retry in a second")
}

fn unknown() -> Error {
    let message = "the server stopped while it executed the first request with this idempotency key";
    Error::conflict(muster_core::error::OUTCOME_UNKNOWN, message)
        .remedy("check whether the change was made before you repeat it with another key")
}

fn not_stored() -> Error {
    Error::conflict("response_not_stored", "the request succeeded, but its response was too long to be stored")
        .remedy("read the object")
}

fn too_many() -> Error {
    let message = format!("a caller can use at most {MAX_KEYS} idempotency keys a day");
    Error::new(ErrorKind::TooMany, "too_many_idempotency_keys", message).remedy("send the request without a key")
}

#[cfg(test)]
mod tests {
    use muster_core::authorization::Actor;

    use super::*;
    use crate::testing::TestFleet;

    fn caller(uid: u32) -> OpContext {
        OpContext::administrator(Actor::Local { uid })
    }

    fn response(body: &str) -> StoredResponse {
        StoredResponse { status: 200, content_type: "application/json".into(), body: body.into() }
    }

    fn print(body: &str) -> Fingerprint {
        Fingerprint::of(&[b"POST", body.as_bytes()])
    }

    async fn begin(test: &TestFleet, uid: u32, key: &str, body: &str) -> Result<Verdict, &'static str> {
        test.fleet.idempotency().begin(&caller(uid), key, print(body)).await.map_err(|error| error.code)
    }

    async fn begun(test: &TestFleet, uid: u32, key: &str, body: &str) -> Begun {
        match begin(test, uid, key, body).await {
            Ok(Verdict::Execute(begun)) => begun,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn mg15_a_repetition_gets_the_stored_response_on_every_server() {
        let test = TestFleet::default();
        let first = begun(&test, 0, "k", "a").await;
        assert_eq!(begin(&test, 0, "k", "a").await.unwrap_err(), "request_pending");
        test.fleet.idempotency().succeeded(first, Some(response("{}"))).await;
        for server in [&test, &test.beside()] {
            let again = begin(server, 0, "k", "a").await.unwrap();
            assert!(matches!(again, Verdict::Answer(found) if found == response("{}")));
            assert!(matches!(begin(server, 0, "k", "b").await, Ok(Verdict::OtherRequest)));
        }
        begun(&test, 1, "k", "a").await;
    }

    #[tokio::test]
    async fn a_key_is_forgotten_after_a_failure_and_after_a_day() {
        let test = TestFleet::default();
        test.fleet.idempotency().failed(begun(&test, 0, "k", "a").await).await;
        let second = begun(&test, 0, "k", "b").await;
        test.fleet.idempotency().succeeded(second, None).await;
        assert_eq!(begin(&test, 0, "k", "b").await.unwrap_err(), "response_not_stored");
        test.clock.advance(KEPT + Duration::from_secs(1));
        begun(&test, 0, "k", "c").await;
    }

    #[tokio::test]
    async fn an_unfinished_request_is_not_executed_again() {
        let test = TestFleet::default();
        drop(begun(&test, 0, "k", "a").await);
        test.clock.advance(LONGEST);
        assert_eq!(begin(&test, 0, "k", "a").await.unwrap_err(), "outcome_unknown");
    }

    #[tokio::test]
    async fn keys_are_limited_in_length_and_number() {
        let test = TestFleet::default();
        for key in ["", "a b", "ä", &"x".repeat(MAX_KEY + 1)] {
            assert_eq!(begin(&test, 0, key, "a").await.unwrap_err(), "invalid", "{key}");
        }
        let commits = (0..MAX_KEYS).map(|number| {
            let begun = Begun {
                account: caller(0).actor().to_string(),
                key: number.to_string(),
                created_at: test.now(),
                fingerprint: print("a"),
            };
            let request = test.fleet.idempotency().record(&begun, &Outcome::Pending).unwrap();
            IdempotencyWrite::Begin { request, live_from: test.now(), limit: MAX_KEYS }.into()
        });
        test.commit(commits.collect()).await;
        assert_eq!(begin(&test, 0, "one-more", "a").await.unwrap_err(), "too_many_idempotency_keys");
        begun(&test, 1, "another-caller", "a").await;
    }

    #[tokio::test]
    async fn responses_are_sealed() {
        let test = TestFleet::default();
        let first = begun(&test, 0, "k", "a").await;
        test.fleet.idempotency().succeeded(first, Some(response("secret"))).await;
        let stored = test.store().keyed_request("local:root", "k").await.unwrap().unwrap();
        assert!(!stored.sealed.windows(6).any(|part| part == b"secret"));
    }
}
