//! Hosts that are bound to the client certificates that they enroll with.

use std::sync::Arc;

use http::{Method, Request};
use http_body_util::Full;
use muster_core::authorization::{Actor, OpContext};
use muster_fleetd::FleetdApiOptions;
use muster_listen::reply::{ListenerKind, Peer};
use muster_store::query::{HostRows, Page};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use crate::setting::{Got, Server, UUID, orbit_enroll, osquery_enroll};

/// A connection of a client with a certificate for a name and a host name.
fn certified(name: &str, host: &str) -> Peer {
    let mut params = CertificateParams::new(vec![host.to_owned()]).expect("valid names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
    let certificates = Some(Arc::from([certificate.der().clone()]));
    Peer { certificates, tls: true, ..Peer::new(ListenerKind::Agent) }
}

fn without() -> Peer {
    Peer { tls: true, ..Peer::new(ListenerKind::Agent) }
}

async fn post(server: &Server, peer: Peer, path: &str, body: &Value) -> Got {
    let request = Request::builder().method(Method::POST).uri(path).body(Full::new(body.to_string().into()));
    server.send_from(peer, request.expect("a request")).await
}

/// Enrolls both programs of a host; returns their keys.
async fn enrolled(server: &Server, peer: impl Fn() -> Peer, secret: &str) -> [String; 2] {
    let orbit = post(server, peer(), "/api/fleet/orbit/enroll", &orbit_enroll(secret, UUID)).await.json();
    let osquery = post(server, peer(), "/api/v1/osquery/enroll", &osquery_enroll(secret, UUID)).await.json();
    [&orbit["orbit_node_key"], &osquery["node_key"]].map(|key| key.as_str().expect("a key").to_owned())
}

/// Requests the configuration of both programs; returns the responses.
async fn configured(server: &Server, peer: impl Fn() -> Peer, [orbit, osquery]: &[String; 2]) -> [Got; 2] {
    [
        post(server, peer(), "/api/fleet/orbit/config", &json!({"orbit_node_key": orbit})).await,
        post(server, peer(), "/api/v1/osquery/config", &json!({"node_key": osquery})).await,
    ]
}

fn statuses(got: [Got; 2]) -> [u16; 2] {
    got.map(|got| got.status)
}

fn bound() -> Server {
    Server::start_with(FleetdApiOptions { push: true, binds_certificates: true, ..FleetdApiOptions::default() })
}

#[tokio::test]
async fn m32_fl148_the_certificate_of_another_host_is_refused_with_401_and_shown() {
    let server = bound();
    let own = || certified("host-a", "a.example");
    let keys = enrolled(&server, own, &server.secret().await).await;
    assert_eq!(statuses(configured(&server, own, &keys).await), [200, 200], "also after a renewal, with another key");
    for other in [|| certified("host-b", "a.example"), || certified("host-a", "b.example"), without] {
        let [orbit, osquery] = configured(&server, other, &keys).await;
        assert_eq!([orbit.status, osquery.status], [401, 401]);
        assert!(orbit.json()["errors"][0]["reason"].as_str().expect("a reason").contains("client certificate"));
        let body = osquery.json();
        assert!(body["error"].is_string() && body.get("node_invalid").is_none(), "the key stays valid: {body}");
    }
    let push = Request::builder().uri("/api/fleet/orbit/notifications");
    let push = push.header("authorization", format!("Node key {}", keys[0])).body(Full::default()).expect("a request");
    assert_eq!(server.send_from(without(), push).await.status, 401);
    // Orbit fetches the queries of osqueryd, with its own key and its own certificate.
    let read = json!({"node_key": keys[0]});
    let read = async |peer| post(&server, peer, "/api/v1/osquery/distributed/read", &read).await.status;
    assert_eq!((read(own()).await, read(without()).await), (200, 401));
    let refused = server.fleet.refusals().list(&OpContext::administrator(Actor::System).grant().expect("a grant"));
    assert!(refused.iter().any(|row| row.refused.reason == "OtherCertificate" && !row.refused.remedy.is_empty()));
}

#[tokio::test]
async fn fl148_a_bound_host_is_not_taken_over_by_an_enrollment_until_it_is_deleted() {
    let server = bound();
    let (own, other) = (|| certified("host-a", "a.example"), || certified("host-b", "b.example"));
    let secret = server.secret().await;
    let keys = enrolled(&server, own, &secret).await;
    for peer in [other(), without()] {
        let orbit = post(&server, peer.clone(), "/api/fleet/orbit/enroll", &orbit_enroll(&secret, UUID)).await;
        let osquery = post(&server, peer, "/api/v1/osquery/enroll", &osquery_enroll(&secret, UUID)).await;
        assert_eq!([orbit.status, osquery.status], [401, 401]);
        assert_eq!(osquery.json()["node_invalid"], true, "as for each refused enrollment (FL4)");
    }
    assert_eq!(statuses(configured(&server, own, &keys).await), [200, 200]);
    let again = enrolled(&server, own, &secret).await;
    let context = OpContext::administrator(Actor::System);
    let hosts = server
        .fleet
        .agents()
        .hosts(&context.grant().expect("a grant"), &Default::default(), &HostRows::Page(PAGE))
        .await;
    let host = hosts.expect("a list").items.remove(0).host.id;
    server.fleet.agents().delete_host(&context, host.as_str()).await.expect("as expected");
    assert_eq!(statuses(configured(&server, own, &again).await), [401, 401]);
    let moved = enrolled(&server, other, &secret).await;
    assert_eq!(statuses(configured(&server, other, &moved).await), [200, 200]);
}

/// A program's path and request to enroll.
type Enroll = (&'static str, fn(&str, &str) -> Value);

const ORBIT: Enroll = ("/api/fleet/orbit/enroll", orbit_enroll);
const OSQUERY: Enroll = ("/api/v1/osquery/enroll", osquery_enroll);

async fn enroll(server: &Server, peer: Peer, (path, body): Enroll, secret: &str) -> u16 {
    post(server, peer, path, &body(secret, UUID)).await.status
}

#[tokio::test]
async fn fl148_the_second_program_of_a_bound_host_enrolls_only_with_its_certificate() {
    let (own, other) = (|| certified("host-a", "a.example"), || certified("host-b", "b.example"));
    for (first, second) in [(ORBIT, OSQUERY), (OSQUERY, ORBIT)] {
        let server = bound();
        let secret = server.secret().await;
        assert_eq!(enroll(&server, own(), first, &secret).await, 200);
        // Also with the secret of another space: it is the same machine.
        let elsewhere = server.secret_in("lab").await;
        for (peer, secret) in [(other(), &secret), (without(), &secret), (other(), &elsewhere)] {
            assert_eq!(enroll(&server, peer, second, secret).await, 401, "{}", second.0);
        }
        assert_eq!(server.audited().await.iter().filter(|action| *action == "host.enrollment_rejected").count(), 1);
        assert_eq!(enroll(&server, own(), second, &secret).await, 200);
        assert_eq!(enroll(&server, other(), first, &secret).await, 401);
    }
}

#[tokio::test]
async fn fl148_of_two_programs_that_enroll_at_once_with_different_certificates_one_is_refused() {
    for _ in 0..8 {
        let server = bound();
        let secret = server.secret().await;
        // Servers do not share the locks of enrollments, so that only the store can decide.
        let second =
            server.restarted_with(FleetdApiOptions { binds_certificates: true, ..FleetdApiOptions::default() });
        let (own, other) = (certified("host-a", "a.example"), certified("host-b", "b.example"));
        let both = tokio::join!(enroll(&server, own, ORBIT, &secret), enroll(&second, other, OSQUERY, &secret));
        assert!(matches!(both, (200, 401) | (401, 200)), "{both:?}");
    }
}

#[tokio::test]
async fn fl148_blocks_of_a_carve_need_the_certificate_of_the_host() {
    let server = bound();
    let (own, other) = (|| certified("host-a", "a.example"), || certified("host-b", "b.example"));
    let [_, key] = enrolled(&server, own, &server.secret().await).await;
    let begin = json!({"node_key": key, "block_count": 1, "block_size": 3, "carve_size": 3, "carve_id": "a3f",
        "request_id": "fleet_distributed_query_9"});
    let begun = post(&server, own(), "/api/v1/osquery/carve/begin", &begin).await.json();
    let session = begun["session_id"].as_str().expect("a session");
    // In the order of osqueryd, which a map would not keep.
    let block =
        format!(r#"{{"block_id":0,"session_id":"{session}","request_id":"fleet_distributed_query_9","data":"YWJj"}}"#);
    let block = async |peer| {
        let request = Request::builder().method(Method::POST).uri("/api/v1/osquery/carve/block");
        server.send_from(peer, request.body(Full::new(block.clone().into())).expect("a request")).await
    };
    for peer in [other(), without()] {
        let got = block(peer).await;
        assert_eq!(got.status, 401);
        assert!(got.json()["error"].as_str().expect("a text").contains("client certificate"), "{got:?}");
    }
    assert_eq!(block(own()).await.status, 200, "the refused blocks did not end the carve");
}

#[tokio::test]
async fn fl148_without_the_setting_no_certificate_counts() {
    let server = bound();
    let (own, other) = (|| certified("host-a", "a.example"), || certified("host-b", "b.example"));
    let secret = server.secret().await;
    let unbound = enrolled(&server, without, &secret).await;
    assert_eq!(statuses(configured(&server, other, &unbound).await), [200, 200], "enrolled without a certificate");
    let keys = enrolled(&server, own, &secret).await;
    assert_eq!(statuses(configured(&server, other, &keys).await), [401, 401]);
    let off = server.restarted();
    assert_eq!(statuses(configured(&off, other, &keys).await), [200, 200]);
    let again = enrolled(&off, other, &secret).await;
    assert_eq!(statuses(configured(&server.restarted(), without, &again).await), [200, 200]);
}

const PAGE: Page = Page { offset: 0, limit: 10 };
