//! Receivers of alerts over REST.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{Api, administrator, column};

const ALERTS: &str = "/alerts";

fn webhook(name: &str) -> Value {
    json!({"name": name, "webhook": {"url": "https://hooks.example.com/a"}})
}

#[tokio::test]
async fn a_receiver_is_created_shown_changed_muted_and_deleted() {
    let api = Api::new();
    let made = api.post(ALERTS, webhook("on-call")).await.ok()["item"].clone();
    assert!(made["webhook"]["secret"].as_str().unwrap().starts_with("whsec_"), "{made}");
    let path = format!("{ALERTS}/{}", made["id"].as_str().unwrap());
    let shown = api.get(&path).await.ok()["item"].clone();
    assert_eq!(shown["webhook"], json!({"url": "https://hooks.example.com/a"}), "the secret is shown once");
    assert_eq!((&shown["enabled"], &shown["digest"]), (&json!(true), &json!({"threshold": 20, "window_seconds": 60})));
    assert_eq!(shown["delivery"], json!({"delivered": 0, "dropped": 0, "suppressed": 0}));

    let change = json!({"events": ["agent.offline"], "except_tags": ["maintenance"], "digest": {"threshold": 5}});
    let changed = api.put(&path, change).await.ok()["item"].clone();
    assert_eq!((&changed["events"], &changed["name"]), (&json!(["agent.offline"]), &json!("on-call")));
    assert_eq!(changed["digest"], json!({"threshold": 5, "window_seconds": 60}));
    let muted = api.post(&format!("{path}/mute"), json!({"duration_seconds": 3600})).await.ok()["item"].clone();
    assert!(muted["muted_until"].is_string());
    assert_eq!(api.post(&format!("{path}/mute"), json!({})).await.ok()["item"].get("muted_until"), None);
    let longer = json!({"duration_seconds": 31 * 24 * 3600});
    assert_eq!(api.post(&format!("{path}/mute"), longer).await.refused(400)["field"], "duration_seconds");
    let tested = api.post(&format!("{path}/test"), json!({})).await.ok();
    assert_eq!(tested["accepted"], false, "this fleet has no sender: {tested}");

    assert_eq!(column(&api.get(ALERTS).await.ok(), "/name"), ["on-call"]);
    api.call(Method::DELETE, &format!("{path}?dryRun=true"), None).await.ok();
    api.delete(&path).await.ok();
    api.get(&path).await.refused(404);
    let expected = ["create", "update", "mute", "mute", "test", "delete"].map(|verb| format!("alert_receiver.{verb}"));
    assert_eq!(api.audit().await, expected);
}

#[tokio::test]
async fn mails_and_syslog_have_their_usual_ports_and_never_show_a_password() {
    let api = Api::new();
    let email = json!({"host": "mail.example.com", "security": "starttls", "username": "u", "password": "hunter2",
        "from": "muster@example.com", "to": ["ops@example.com"]});
    let made = api.post(ALERTS, json!({"name": "mail", "email": email})).await.ok()["item"].clone();
    assert_eq!((&made["email"]["port"], made["email"].get("password")), (&json!(587), None));
    let listed = api.get(ALERTS).await.ok().to_string();
    assert!(!listed.contains("hunter2"), "{listed}");
    for (tls, port) in [(true, 6514), (false, 601)] {
        let body = json!({"name": format!("syslog {port}"), "syslog": {"host": "log", "tls": tls}});
        assert_eq!(api.post(ALERTS, body).await.ok()["item"]["syslog"]["port"], port);
    }
}

#[tokio::test]
async fn a_mail_password_is_never_sent_in_plain_text() {
    let api = Api::new();
    let email = |more: Value| {
        let mut email = json!({"host": "mail.example.com", "security": "none", "from": "muster@example.com",
            "to": ["ops@example.com"]});
        email.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": "mail", "email": email})
    };
    let refused = api.post(ALERTS, email(json!({"username": "u", "password": "hunter2"}))).await.refused(400);
    assert_eq!(refused["field"], "email.security");
    api.post(ALERTS, email(json!({}))).await.ok();
}

#[tokio::test]
async fn a_stored_secret_is_not_sent_to_another_place() {
    let api = Api::new();
    let email = |change: Value| {
        let mut email = json!({"host": "mail.example.com", "port": 587, "security": "starttls", "username": "u",
            "from": "muster@example.com", "to": ["ops@example.com"]});
        email.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"name": "mail", "email": email})
    };
    let made = api.post(ALERTS, email(json!({"password": "hunter2"}))).await.ok()["item"].clone();
    let path = format!("{ALERTS}/{}", made["id"].as_str().unwrap());
    for change in
        [json!({"host": "evil.example"}), json!({"port": 25}), json!({"security": "tls"}), json!({"ca": "other"})]
    {
        let refused = api.put(&path, email(change.clone())).await.refused(400);
        assert_eq!(
            (&refused["field"], &refused["remedy"]),
            (&json!("email.password"), &json!("send the secret again"))
        );
    }
    api.put(&path, email(json!({"to": ["night@example.com"]}))).await.ok();
    api.put(&path, email(json!({}))).await.ok();
    api.put(&path, email(json!({"host": "mail2.example.com", "password": "hunter2"}))).await.ok();

    let made = api.post(ALERTS, webhook("on-call")).await.ok()["item"].clone();
    let path = format!("{ALERTS}/{}", made["id"].as_str().unwrap());
    let elsewhere = json!({"webhook": {"url": "https://evil.example"}});
    assert_eq!(api.put(&path, elsewhere).await.refused(400)["field"], "webhook.secret");
    api.put(&path, webhook("renamed")).await.ok();
}

#[tokio::test]
async fn mg13_invalid_receivers_are_rejected_with_the_field() {
    let api = Api::new();
    let refused = async |body: Value| api.post(ALERTS, body).await.refused(400);
    assert_eq!(refused(json!({"name": "n"})).await["field"], "target");
    assert_eq!(refused(json!({"name": "n", "webhok": {}})).await["field"], "webhok");
    let unknown = refused(json!({"name": "n", "events": ["agent.lost"], "syslog": {"host": "log"}})).await;
    assert_eq!(unknown["field"], "events");
    assert!(unknown["remedy"].as_str().unwrap().contains("agent.offline"), "{unknown}");
    let two = json!({"name": "n", "syslog": {"host": "log"}, "webhook": {"url": "https://x"}});
    assert_eq!(refused(two).await["field"], "webhook");
    let digest = json!({"name": "n", "syslog": {"host": "log"}, "digest": {"threshold": 1}});
    assert_eq!(refused(digest).await["field"], "digest.threshold");
    api.post(ALERTS, webhook("taken")).await.ok();
    assert_eq!(api.post(ALERTS, webhook("taken")).await.refused(409)["code"], "receiver_name_taken");
}

#[tokio::test]
async fn mg8_receivers_of_another_space_do_not_exist() {
    let api = Api::new();
    api.v1(Method::POST, "/spaces", json!({"id": "blue", "name": "blue"})).await.ok();
    let made = api.post(ALERTS, webhook("on-call")).await.ok()["item"].clone();
    let inside = async |method: Method, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(format!("/s/blue/api/fleet{path}"));
        let request = request.extension(administrator());
        api.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let path = format!("{ALERTS}/{}", made["id"].as_str().unwrap());
    inside(Method::GET, &path, json!({})).await.refused(404);
    inside(Method::DELETE, &path, json!({})).await.refused(404);
    inside(Method::POST, &format!("{path}/mute"), json!({})).await.refused(404);
    assert_eq!(inside(Method::GET, ALERTS, json!({})).await.ok()["items"], json!([]));
    inside(Method::POST, ALERTS, webhook("on-call")).await.ok();
}
