//! A provider that behaves in every wrong way, over HTTP.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_core::id::ProviderId;
use muster_core::identity::id_token::TokenFault;
use muster_core::time::Timestamp;
use muster_fleet::identity::openid::{AuthorizationRequest, OpenIdClient, OpenIdProviders, ProviderError, Redemption};
use muster_oidc::OpenIdClients;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

const NOW: i64 = 1_800_000_000;
const JSON: &str = "application/json";

/// What the provider responds at a path: status, content type, body.
type Response = (u16, &'static str, String);

#[derive(Default)]
struct Served {
    discovery: Option<Response>,
    token: Option<Response>,
    keys: Option<Response>,
    user_info: Option<Response>,
    /// The last request for a token.
    asked: String,
}

struct Provider {
    issuer: String,
    served: Arc<Mutex<Served>>,
    keys_fetched: Arc<AtomicUsize>,
    pair: EcdsaKeyPair,
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn pair() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn jwk(pair: &EcdsaKeyPair, id: &str) -> Value {
    let point = pair.public_key().as_ref();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": part(&point[1..33]), "y": part(&point[33..])})
}

fn signed(pair: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let (served, keys_fetched) = (Arc::new(Mutex::new(Served::default())), Arc::new(AtomicUsize::new(0)));
        let provider = Self { issuer, served, keys_fetched, pair: pair() };
        provider.publish(&[jwk(&provider.pair, "one"), json!({"kty": "unknown"})]).await;
        let (served, fetched) = (Arc::clone(&provider.served), Arc::clone(&provider.keys_fetched));
        let issuer = provider.issuer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&served), Arc::clone(&fetched), issuer.clone()));
            }
        });
        provider
    }

    async fn publish(&self, keys: &[Value]) {
        self.served.lock().await.keys = Some((200, JSON, json!({"keys": keys}).to_string()));
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.issuer, "aud": "muster", "sub": "17", "nonce": "n", "exp": NOW + 300, "iat": NOW, "groups": ["a"]
        })
    }

    /// Responds to the next code with this token.
    async fn issue(&self, id_token: &str) {
        let body = json!({"access_token": "t", "token_type": "Bearer", "id_token": id_token}).to_string();
        self.served.lock().await.token = Some((200, JSON, body));
    }

    async fn issue_signed(&self, claims: &Value) {
        self.issue(&signed(&self.pair, &json!({"alg": "ES256", "kid": "one"}), claims)).await;
    }

    fn client(&self) -> OpenIdClient {
        OpenIdClient {
            id: ProviderId::trusted("corp"),
            issuer: self.issuer.clone(),
            client_id: "muster".into(),
            secret: Some("s: /".to_owned().into()),
            redirect_uri: "https://fleet.example/api/v1/login/oidc/corp/callback".into(),
        }
    }

    async fn redeem(&self, clients: &OpenIdClients) -> Result<Map<String, Value>, ProviderError> {
        let redemption = Redemption {
            code: "c&d",
            verifier: "v",
            nonce: "n",
            now: Timestamp::from_micros(NOW * 1_000_000),
            is_complete: &|claims| claims.contains_key("groups"),
        };
        clients.redeem(&self.client(), &redemption).await
    }
}

async fn serve(
    mut stream: tokio::net::TcpStream,
    served: Arc<Mutex<Served>>,
    keys_fetched: Arc<AtomicUsize>,
    issuer: String,
) {
    let mut request = Vec::new();
    let mut chunk = [0; 4_096];
    // The client sends the head and a short body at once or one after the other.
    while !complete(&request) {
        let Ok(read @ 1..) = stream.read(&mut chunk).await else { return };
        request.extend_from_slice(&chunk[..read]);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let metadata = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/auth?tenant=1"),
        "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
        "userinfo_endpoint": format!("{issuer}/me")
    });
    let mut served = served.lock().await;
    let response = match path.as_str() {
        "/.well-known/openid-configuration" => {
            Some(served.discovery.clone().unwrap_or((200, JSON, metadata.to_string())))
        }
        "/jwks" => {
            keys_fetched.fetch_add(1, Ordering::SeqCst);
            served.keys.clone()
        }
        "/token" => {
            served.asked = request;
            served.token.clone()
        }
        "/me" => served.user_info.clone(),
        other => panic!("{other}"),
    };
    drop(served);
    let Some((status, kind, body)) = response else {
        // Never responds.
        return std::future::pending().await;
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // The client may have hung up after enough of the body.
    let _ = stream.write_all((head + &body).as_bytes()).await;
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn fault(outcome: Result<Map<String, Value>, ProviderError>) -> ProviderError {
    outcome.unwrap_err()
}

#[tokio::test]
async fn a_code_is_redeemed_with_the_secret_and_the_verifier() {
    let (provider, clients) = (Provider::start().await, OpenIdClients::default());
    let request =
        AuthorizationRequest { scopes: &["openid".into(), "a b".into()], state: "s", nonce: "n", challenge: "c" };
    let url = clients.authorization_url(&provider.client(), &request).await.unwrap();
    assert!(
        url.starts_with(&format!("{}/auth?tenant=1&response_type=code&client_id=muster&", provider.issuer)),
        "{url}"
    );
    assert!(url.ends_with("&state=s&nonce=n&code_challenge=c&code_challenge_method=S256"), "{url}");
    provider.issue_signed(&provider.claims()).await;
    assert_eq!(provider.redeem(&clients).await.unwrap()["sub"], "17");
    let asked = provider.served.lock().await.asked.clone();
    // `muster:s%3A%20%2F` in base64 (RFC 6749 §2.3.1).
    assert!(asked.contains("authorization: Basic bXVzdGVyOnMlM0ElMjAlMkY="), "{asked}");
    assert!(asked.contains("code=c%26d&redirect_uri=https%3A%2F%2F"), "{asked}");
    assert!(asked.ends_with("&code_verifier=v"), "{asked}");
}

#[tokio::test]
async fn missing_claims_come_from_the_endpoint_unless_it_speaks_of_somebody_else() {
    let (provider, clients) = (Provider::start().await, OpenIdClients::default());
    let mut claims = provider.claims();
    claims.as_object_mut().unwrap().remove("groups");
    provider.issue_signed(&claims).await;
    let tell = async |info: Value| provider.served.lock().await.user_info = Some((200, JSON, info.to_string()));
    tell(json!({"sub": "17", "groups": ["b"], "nonce": "other"})).await;
    let found = provider.redeem(&clients).await.unwrap();
    assert_eq!((&found["groups"], &found["nonce"]), (&json!(["b"]), &json!("n")));
    tell(json!({"sub": "18", "groups": ["admins"]})).await;
    assert_eq!(fault(provider.redeem(&clients).await), ProviderError::OtherSubject);
}

#[tokio::test]
async fn a_provider_that_is_down_slow_or_another_service_is_told_apart() {
    let (provider, short) = (Provider::start().await, Duration::from_millis(300));
    // A client of its own for each, because failures are cached.
    let clients = || OpenIdClients::with_timeout(short);
    let discovering = async |response: Response| {
        provider.served.lock().await.discovery = Some(response);
        fault(provider.redeem(&clients()).await)
    };
    let html = discovering((200, "text/html", "<html>Log in to the proxy</html>".into())).await;
    assert!(matches!(&html, ProviderError::NotJson { content_type, .. } if content_type == "text/html"), "{html:?}");
    let failed = discovering((503, "text/html", "down".into())).await;
    assert!(matches!(failed, ProviderError::Status { status: 503, .. }), "{failed:?}");
    let other = discovering((
        200,
        JSON,
        json!({
            "issuer": "https://other.example", "authorization_endpoint": "https://o/a", "token_endpoint": "https://o/t",
            "jwks_uri": "https://o/j"
        })
        .to_string(),
    ))
    .await;
    assert!(
        matches!(&other, ProviderError::OtherIssuer { found, .. } if found == "https://other.example"),
        "{other:?}"
    );
    let plain = discovering((200, JSON, json!({
        "issuer": provider.issuer, "authorization_endpoint": "http://evil.example/a", "token_endpoint": "https://o/t",
        "jwks_uri": "https://o/j"
    }).to_string())).await;
    assert!(matches!(plain, ProviderError::Malformed { .. }), "{plain:?}");
    let large = discovering((200, JSON, format!("{{\"issuer\": \"{}\"}}", "x".repeat(300 << 10)))).await;
    assert!(matches!(large, ProviderError::TooLarge { .. }), "{large:?}");
    provider.served.lock().await.discovery = None;
    // The endpoint for tokens accepts the connection and never responds.
    let slow = fault(provider.redeem(&clients()).await);
    assert!(matches!(&slow, ProviderError::Late(url) if url.ends_with("/token")), "{slow:?}");
    let rejected = json!({"error": "invalid_grant", "error_description": "used\nbefore"}).to_string();
    provider.served.lock().await.token = Some((400, JSON, rejected));
    assert_eq!(fault(provider.redeem(&clients()).await), ProviderError::Rejected("invalid_grant used before".into()));
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let client = OpenIdClient { issuer: address, ..provider.client() };
    let request = AuthorizationRequest { scopes: &[], state: "s", nonce: "n", challenge: "c" };
    let down = clients().authorization_url(&client, &request).await.unwrap_err();
    assert!(matches!(down, ProviderError::Unreachable { .. }), "{down:?}");
}

#[tokio::test]
async fn tokens_that_nobody_or_somebody_else_signed_are_rejected() {
    let (provider, clients) = (Provider::start().await, OpenIdClients::default());
    let claims = provider.claims();
    let check = async |token: String| {
        provider.issue(&token).await;
        fault(provider.redeem(&clients).await)
    };
    let unsigned = format!("{}.{}.", encode(&json!({"alg": "none"})), encode(&claims));
    assert_eq!(check(unsigned).await, ProviderError::Algorithm("none".into()));
    let hmac = format!("{}.{}.AAAA", encode(&json!({"alg": "HS256", "kid": "one"})), encode(&claims));
    assert_eq!(check(hmac).await, ProviderError::Algorithm("HS256".into()));
    let forged = signed(&pair(), &json!({"alg": "ES256", "kid": "one"}), &claims);
    assert_eq!(check(forged).await, ProviderError::Signature);
    let other_type = signed(&provider.pair, &json!({"alg": "RS256", "kid": "one"}), &claims);
    assert_eq!(check(other_type).await, ProviderError::UnknownKey("one".into()));
    let changed = signed(&provider.pair, &json!({"alg": "ES256", "kid": "one"}), &claims);
    let parts: Vec<&str> = changed.split('.').collect();
    let mut admin = claims.clone();
    admin["sub"] = "1".into();
    assert_eq!(check([parts[0], &encode(&admin), parts[2]].join(".")).await, ProviderError::Signature);
    for malformed in ["", "a.b", "a.b.c", "..", "e30.e30.e30"] {
        assert_eq!(check(malformed.into()).await, ProviderError::NoToken, "{malformed}");
    }
    provider.served.lock().await.token = Some((200, JSON, json!({"access_token": "t"}).to_string()));
    assert_eq!(fault(provider.redeem(&clients).await), ProviderError::NoToken);
    let mut late = claims.clone();
    late["exp"] = (NOW - 61).into();
    provider.issue_signed(&late).await;
    assert!(matches!(fault(provider.redeem(&clients).await), ProviderError::Token(TokenFault::Expired(_))));
}

#[tokio::test]
async fn rotated_keys_are_fetched_again_but_not_for_every_token() {
    let (provider, clients) = (Provider::start().await, OpenIdClients::default());
    provider.issue_signed(&provider.claims()).await;
    provider.redeem(&clients).await.unwrap();
    provider.redeem(&clients).await.unwrap();
    assert_eq!(provider.keys_fetched.load(Ordering::SeqCst), 1);
    let next = pair();
    provider.publish(&[jwk(&provider.pair, "one"), jwk(&next, "two")]).await;
    let token = signed(&next, &json!({"alg": "ES256", "kid": "two"}), &provider.claims());
    provider.issue(&token).await;
    provider.redeem(&clients).await.unwrap();
    assert_eq!(provider.keys_fetched.load(Ordering::SeqCst), 2);
    // Not again within ten seconds, whatever key a token names.
    let unknown = signed(&next, &json!({"alg": "ES256", "kid": "three"}), &provider.claims());
    provider.issue(&unknown).await;
    let refused =
        async || assert_eq!(fault(provider.redeem(&clients).await), ProviderError::UnknownKey("three".into()));
    refused().await;
    assert_eq!(provider.keys_fetched.load(Ordering::SeqCst), 2);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    refused().await;
    assert_eq!(provider.keys_fetched.load(Ordering::SeqCst), 3);
}
