//! The CA that agents trust, over REST.

use axum::http::Method;
use muster_core::time::Timestamp;
use muster_fleet::server_status::CaCertificate;
use serde_json::{Value, json};

use crate::support::Api;

#[tokio::test]
async fn ag95_the_ca_is_exported_only_if_it_issued_the_certificate_of_the_server() {
    let api = Api::new();
    let none = api.v1(Method::GET, "/ca", Value::Null).await.refused(404);
    assert_eq!(none["code"], "no_own_ca");
    assert!(none["remedy"].as_str().unwrap().contains("tls.cert"), "{none}");
    let (pem, fingerprint) = ("-----BEGIN CERTIFICATE-----\n".to_owned(), "00".repeat(32));
    let expires_at = Timestamp::from_micros(1_000_000);
    api.fleet.server_status().set_ca(CaCertificate { pem: pem.clone(), fingerprint: fingerprint.clone(), expires_at });
    let shown = api.v1(Method::GET, "/ca", Value::Null).await.ok();
    let expected = json!({"certificate": pem, "sha256": fingerprint, "expires_at": "1970-01-01T00:00:01.000Z"});
    assert_eq!(shown["item"], expected);
}
