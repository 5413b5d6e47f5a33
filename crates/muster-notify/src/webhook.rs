//! Webhooks, signed as the Standard Webhooks specification says, so that its libraries verify them.

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::alert::Message;
use muster_core::certificate_names::plain;
use muster_core::time::Timestamp;
use muster_fleet::alerts::sender::SendError;
use muster_fleet::outgoing::LocalTargets;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};

use crate::tls;

/// Beginning of a key in base64.
const PREFIX: &str = "whsec_";

fn unusable(reason: impl Into<String>) -> SendError {
    SendError::Unusable { field: "webhook.url", reason: reason.into() }
}

/// Parses a URL. Plain HTTP is for relays on the same host, and refused for other addresses when it is used.
pub(crate) fn parse(url: &str) -> Result<Url, SendError> {
    let parsed = Url::parse(url).map_err(|error| unusable(error.to_string()))?;
    if !matches!(parsed.scheme(), "https" | "http") || !parsed.has_host() {
        return Err(unusable("must be an https URL"));
    }
    // They would be shown to everybody who may read receivers.
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(unusable("must not contain a user name or a password"));
    }
    Ok(parsed)
}

/// Returns the value of the header `webhook-signature`.
pub fn signature(secret: &str, id: &str, seconds: u64, body: &str) -> String {
    let decoded = secret.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
    // A secret in another format is the key itself.
    let key = hmac::Key::new(hmac::HMAC_SHA256, decoded.as_deref().unwrap_or(secret.as_bytes()));
    let tag = hmac::sign(&key, format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

/// Sends a message. Any status of success means that it was accepted.
pub(crate) async fn send(
    local: LocalTargets,
    url: &str,
    ca: Option<&str>,
    secret: &str,
    message: &Message,
    now: Timestamp,
) -> Result<(), SendError> {
    let url = parse(url)?;
    let host = url.host_str().ok_or_else(|| unusable("has no host"))?;
    let addresses = local.resolve(host, url.port_or_known_default().unwrap_or(443)).await.map_err(crate::unresolved)?;
    if url.scheme() == "http" && !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err(SendError::NotPermitted(
            "must be an https URL: plain http is allowed only for this host".to_owned(),
        ));
    }
    let client = client(host, &addresses, ca)?;
    let (body, seconds) = (message.body(), now.as_unix_millis() / 1000);
    let signature = signature(secret, &message.id, seconds, &body);
    let request = client
        .post(url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", seconds.to_string())
        .header("webhook-signature", signature)
        .body(body);
    let response = request.send().await.map_err(|error| SendError::Failed(reason(&error)))?;
    let status = response.status();
    // The body is not read: it is of no use, and could be endless.
    if status.is_success() { Ok(()) } else { Err(SendError::Failed(format!("the receiver responded with {status}"))) }
}

/// Returns a client that connects to these addresses only: no proxy, no redirect.
fn client(host: &str, addresses: &[SocketAddr], ca: Option<&str>) -> Result<Client, SendError> {
    // Fails only if a provider is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let client = Client::builder()
        .tls_backend_preconfigured(tls::client_config("webhook.ca", ca)?)
        .resolve_to_addrs(host, addresses)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
        .build();
    client.map_err(|_| SendError::Failed("the HTTP client could not be set up".to_owned()))
}

/// Returns the innermost reason of an error only: the outer ones contain the URL, whose path may be a secret.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        reason = inner.to_string();
        cause = inner.source();
    }
    format!("the request failed: {}", plain(&reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mg170_a_signature_depends_on_the_secret_the_id_the_time_and_each_byte_of_the_body() {
        // The example of the specification.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature(secret, id, 1_614_265_330, body), expected);
        let others = [
            signature("whsec_AAAA", id, 1_614_265_330, body),
            signature(secret, "msg_other", 1_614_265_330, body),
            signature(secret, id, 1_614_265_331, body),
            signature(secret, id, 1_614_265_330, r#"{"test": 2432232315}"#),
        ];
        assert!(others.iter().all(|other| other != expected));
    }

    #[test]
    fn urls_without_a_host_or_with_a_password_are_rejected() {
        for bad in ["nonsense", "ftp://x/", "https://user:password@x/", "file:///etc/passwd"] {
            assert!(matches!(parse(bad), Err(SendError::Unusable { field: "webhook.url", .. })), "{bad}");
        }
        assert!(parse("https://hooks.example.com/a?b=c").is_ok());
    }
}
