//! Refused requests are recorded with the client, the reason and the remedy.

use muster_fleet::refusals::RefusedRow;
use muster_listen::refusal::Refusal;
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::json;

use crate::setting::{AGENT, Ask, Server, online};

fn reasons(server: &Server) -> Vec<(&'static str, u64)> {
    server.fleet.refusals().latest().iter().map(|row| (row.refused.reason, row.count)).collect()
}

#[tokio::test]
async fn a_refused_check_in_is_recorded_with_agent_key_version_and_remedy() {
    let server = Server::start().await;
    let (agent, other) = (server.enrolled().await, server.enrolled().await);
    let ask = Ask::post(&agent.path("checkin")).key(&other.token).agent(AGENT).json(&online());
    assert_eq!(server.get(ask.clone()).await.status, 403);
    assert_eq!(server.get(ask).await.status, 403);
    let rows = server.fleet.refusals().latest();
    let [RefusedRow { refused, count: 2, .. }] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((refused.reason, refused.operation, refused.status), ("ErrAgentIdentity", "checkin", 403));
    assert_eq!((refused.agent.as_deref(), refused.version.as_str()), (Some(agent.id.as_str()), AGENT));
    assert_eq!(refused.address, "192.0.2.7");
    assert!(refused.key.is_some() && !refused.remedy.is_empty() && !refused.message.is_empty(), "{refused:?}");
    let secret = muster_core::credential::ApiKey::parse(&other.token).unwrap();
    assert!(!format!("{refused:?}").contains(secret.token().as_str()), "no secret is kept");
}

#[tokio::test]
async fn every_refusal_is_recorded_and_success_is_not() {
    let server =
        Server::with(|options| options.limits.of_mut(muster_elastic::limits::Operation::Ack).max_body = 10, |_| {})
            .await;
    let agent = server.enrolled().await;
    server.holds(server.check_in(&agent, &online())).await;
    assert_eq!(reasons(&server), []);
    for (ask, reason) in [
        (Ask::get("/nowhere"), "NoSuchPath"),
        (Ask::new(http::Method::DELETE, "/api/status"), "MethodNotAllowed"),
        (Ask::post(&agent.path("checkin")), "ErrNoAuthHeader"),
        (server.check_in(&agent, &online()).agent_instead("Elastic Agent v6.0.0"), "UnsupportedVersion"),
        (server.check_in(&agent, &online()).header("content-encoding", "br"), "UnsupportedMediaType"),
        (server.acks(&agent, &json!([1, 2, 3, 4, 5, 6])), "BodyTooLarge"),
    ] {
        assert!(server.get(ask).await.status >= 400);
        assert_eq!(reasons(&server)[0], (reason, 1));
    }
    let peer = Peer { address: Some("192.0.2.9:1".parse().unwrap()), ..Peer::new(ListenerKind::Agent) };
    server.api.note(&Refusal::Handshake("received fatal alert: UnknownCA".into()), &peer);
    server.api.refuse(&Refusal::PlainHttp, &peer);
    let rows = server.fleet.refusals().latest();
    assert_eq!((rows[0].refused.reason, rows[0].refused.status), ("PlainHttp", 400));
    assert_eq!((rows[1].refused.reason, rows[1].refused.status), ("TlsHandshake", 0));
    // Over TLS, the connection is closed without a response.
    for (tls, status) in [(true, 0), (false, 400)] {
        server.api.note(&Refusal::ProxyProtocol, &Peer { tls, ..peer.clone() });
        let row = server.fleet.refusals().latest().remove(0).refused;
        assert_eq!((row.reason, row.status), ("ProxyProtocol", status));
        assert!(row.message.contains("PROXY protocol") && row.remedy.contains("send-proxy"), "{row:?}");
    }
    assert!(rows[1].refused.message.contains("UnknownCA") && rows[1].refused.remedy.contains("CA"), "{rows:?}");
}

#[tokio::test]
async fn what_ends_a_held_poll_is_noticed_where_it_is_a_refusal() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let poll = || server.park(server.check_in(&agent, &online()));
    let (first, second) = (poll().await, poll().await);
    let third = poll().await;
    assert_eq!(crate::setting::Got::of(first.await).await.status, 200);
    let row = server.fleet.refusals().latest().remove(0).refused;
    assert_eq!((row.reason, row.status, row.operation), ("TooManyPolls", 200, "checkin"));
    assert!(!row.message.is_empty() && !row.remedy.is_empty(), "{row:?}");
    assert_eq!(row.version, AGENT, "in the same form as for other requests");

    server.revoke(&agent).await;
    for held in [second, third] {
        let reply = held.await;
        let reason = reply.extensions().get::<muster_elastic::RefusedWhileHeld>().map(|refused| refused.0);
        assert_eq!((reply.status().as_u16(), reason), (401, Some("ErrUnauthorized")), "counted by its reason");
    }
    assert_eq!(reasons(&server), [("TooManyPolls", 1)], "the end of the polls is the revocation's effect");
    assert_eq!(server.get(server.check_in(&agent, &online())).await.status, 401);
    let RefusedRow { refused, count, .. } = server.fleet.refusals().latest().remove(0);
    assert_eq!((refused.reason, refused.status, count), ("ErrUnauthorized", 401, 1));
    assert_eq!((refused.agent.as_deref(), refused.address.as_str()), (Some(agent.id.as_str()), "192.0.2.7"));
    let key = muster_core::credential::ApiKey::parse(&agent.token).unwrap().id;
    assert_eq!(refused.key.as_deref(), Some(key.as_str()));
    assert!(refused.version.contains("9.5.2") && !refused.remedy.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn a_held_poll_that_ends_in_order_is_no_refusal() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let held = server.park(server.check_in(&agent, &online())).await;
    server.add_action("level", muster_core::action::ActionType::Settings, &agent.id, r#"{"log_level":"debug"}"#).await;
    assert_eq!(held.await.status().as_u16(), 200);
    let held = server.park(server.check_in(&server.enrolled().await, &online())).await;
    server.fleet.stop();
    assert_eq!(held.await.status().as_u16(), 200);
    assert_eq!(reasons(&server), []);
}

#[tokio::test]
async fn a_large_plain_check_in_of_an_older_agent_is_taken() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let unit = |number, unit| {
        let (id, stream) = (format!("u-{number}-{unit}"), format!("monitor-{number}-{unit}"));
        let payload = json!({"streams": {stream: {"status": "HEALTHY"}}});
        json!({"id": id, "type": "input", "status": "HEALTHY", "message": "Healthy", "payload": payload})
    };
    let component = |number| {
        let units: Vec<_> = (0..8).map(|place| unit(number, place)).collect();
        let id = format!("s-{number}");
        json!({"id": id, "type": "synthetics/browser", "status": "HEALTHY", "message": "", "units": units})
    };
    let components: Vec<_> = (0..1200).map(component).collect();
    let body = json!({"status": "online", "message": "Running", "components": components});
    assert!(body.to_string().len() > 1 << 20, "more than a megabyte");
    server.holds(server.check_in(&agent, &body).agent_instead("Elastic Agent v8.15.0")).await;
    assert_eq!(reasons(&server), []);
}
