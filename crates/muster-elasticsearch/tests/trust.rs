//! TLS connections to a cluster: whom the client trusts, and what it never sends to others.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use hyper_util::rt::TokioIo;
use muster_core::id::ClusterId;
use muster_elasticsearch::SecurityApi;
use muster_elasticsearch::testing::{Stub, TOKEN};
use muster_fleet::outgoing::LocalTargets;
use muster_fleet::output_keys::issuer::{Connection, IssueError, KeyIssuer, NewKey};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// A cluster behind TLS, whose certificate is signed by an authority of its own.
struct Secured {
    stub: Stub,
    port: u16,
    ca_pem: String,
    ca_sha256: String,
}

async fn secured(names: &[&str]) -> Secured {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &Issuer::from_params(&ca, &ca_key)).unwrap();
    let chain = vec![leaf.der().clone(), ca_certificate.der().clone()];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stub, port) = (Stub::start().await, listener.local_addr().unwrap().port());
    let serving = stub.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, stub) = (acceptor.clone(), serving.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    stub.serve(TokioIo::new(stream)).await;
                }
            });
        }
    });
    let sha256 = digest(&SHA256, ca_certificate.der());
    let ca_sha256 = sha256.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    Secured { stub, port, ca_pem: ca_certificate.pem(), ca_sha256 }
}

impl Secured {
    async fn create(&self, ssl: Value) -> Result<(), IssueError> {
        let hosts = [format!("https://127.0.0.1:{}", self.port)];
        let settings = json!({"hosts": hosts, "service_token": TOKEN, "ssl": ssl, "proxy_disable": true});
        let connection =
            Connection { cluster: ClusterId::trusted("c"), settings: Zeroizing::new(settings.to_string()) };
        let key = NewKey { agent_id: "a".into(), output: "o".into(), fleet: "f".into(), roles: Map::new() };
        SecurityApi::new(LocalTargets::Permitted).create(&connection, &key).await.map(drop)
    }
}

#[tokio::test]
async fn a_cluster_is_trusted_by_its_authority_or_the_fingerprint_of_it() {
    let cluster = secured(&["127.0.0.1"]).await;
    let colons: Vec<String> =
        cluster.ca_sha256.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into()).collect();
    for ssl in [
        json!({"certificate_authorities": [cluster.ca_pem]}),
        json!({"certificate_authorities": cluster.ca_pem}),
        json!({"ca_trusted_fingerprint": cluster.ca_sha256.to_lowercase()}),
        json!({"ca_trusted_fingerprint": colons.join(":")}),
        json!({"verification_mode": "none"}),
    ] {
        cluster.create(ssl.clone()).await.unwrap_or_else(|error| panic!("{ssl}: {error}"));
    }
    assert_eq!(cluster.stub.calls().create, 5);
}

#[tokio::test]
async fn an_untrusted_cluster_never_gets_the_credential() {
    let (cluster, other) = (secured(&["127.0.0.1"]).await, secured(&["127.0.0.1"]).await);
    for ssl in [
        json!({}),
        json!({"verification_mode": "certificate"}),
        json!({"certificate_authorities": [other.ca_pem]}),
        json!({"ca_trusted_fingerprint": other.ca_sha256}),
    ] {
        let error = cluster.create(ssl.clone()).await.unwrap_err();
        assert!(matches!(error, IssueError::Unavailable(_)), "{ssl}: {error:?}");
    }
    for ssl in [json!({"ca_trusted_fingerprint": "zz"}), json!({"verification_mode": "some"})] {
        assert!(matches!(cluster.create(ssl).await.unwrap_err(), IssueError::Unusable(_)));
    }
    assert_eq!(cluster.stub.calls().create, 0);
}

#[tokio::test]
async fn names_are_verified_unless_only_the_chain_is_asked_for() {
    let cluster = secured(&["es.example"]).await;
    let with = |mode: &str| json!({"certificate_authorities": [cluster.ca_pem], "verification_mode": mode});
    for mode in ["full", "strict"] {
        assert!(cluster.create(with(mode)).await.is_err(), "{mode}");
    }
    cluster.create(with("certificate")).await.unwrap();
    let pinned = json!({"ca_trusted_fingerprint": cluster.ca_sha256});
    assert!(cluster.create(pinned).await.is_err());
}

#[tokio::test]
async fn a_cluster_or_a_proxy_on_the_servers_own_host_gets_nothing_unless_it_is_permitted() {
    let stub = Stub::start().await;
    let port = stub.url().rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let create = async |settings: Value, local| {
        let settings = Zeroizing::new(settings.to_string());
        let connection = Connection { cluster: ClusterId::trusted("c"), settings };
        let key = NewKey { agent_id: "a".into(), output: "o".into(), fleet: "f".into(), roles: Map::new() };
        SecurityApi::new(local).create(&connection, &key).await.map(drop)
    };
    for host in
        [format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}/x"), "http://169.254.169.254".into()]
    {
        let settings = json!({"hosts": [host], "service_token": TOKEN, "proxy_disable": true});
        let error = create(settings, LocalTargets::Refused).await.unwrap_err();
        assert!(error.to_string().contains("outgoing.allow_local_targets"), "{host}: {error}");
        let told = SecurityApi::new(LocalTargets::Refused).refuses(&host).unwrap();
        assert!(told.contains("outgoing.allow_local_targets"), "before anything is sent: {told}");
        assert_eq!(SecurityApi::new(LocalTargets::Permitted).refuses(&host), None);
    }
    assert_eq!(SecurityApi::new(LocalTargets::Refused).refuses("https://es.example:9200"), None);
    let proxy = format!("http://127.0.0.1:{port}");
    let settings = json!({"hosts": ["http://es.invalid:9200"], "service_token": TOKEN, "proxy_url": proxy});
    let error = create(settings, LocalTargets::Refused).await.unwrap_err();
    assert!(matches!(&error, IssueError::Unusable(text) if text.contains("`proxy_url`")), "{error}");
    assert_eq!(stub.calls().create, 0);
    let settings =
        json!({"hosts": [format!("http://localhost:{port}")], "service_token": TOKEN, "proxy_disable": true});
    create(settings, LocalTargets::Permitted).await.unwrap();
    assert_eq!(stub.calls().create, 1);
}
