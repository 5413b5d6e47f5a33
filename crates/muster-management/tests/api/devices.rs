//! `/api/v1/device` and the page on which a person approves a device.

use axum::body::Body;
use axum::http::{Method, Request};
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::{Value, json};

use crate::support::{Answer, Api};

const PASSWORD: &str = "correct horse battery";

impl Api {
    pub async fn person(&self, name: &str) {
        self.v1(Method::POST, "/users", json!({"name": name, "password": PASSWORD})).await.ok();
        self.v1(Method::POST, "/bindings", json!({"user": name, "role": "auditor"})).await.ok();
    }

    /// A request of a browser.
    pub async fn browse(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let address = Some("192.0.2.7:50000".parse().unwrap());
        let peer = Peer { address, ..Peer::new(ListenerKind::Admin) };
        let request = Request::builder().method(method).uri(path).extension(peer);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn device(&self, name: &str) -> Value {
        let body = json!({"device": name}).to_string();
        self.browse(Method::POST, "/api/v1/device/authorize", &[], &body).await.ok()["item"].clone()
    }
}

fn text(answer: &Answer) -> &str {
    answer.body.as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_person_with_a_password_approves_a_device_on_the_page() {
    let api = Api::new();
    api.person("ann").await;
    let begun = api.device("<b>laptop</b>").await;
    let code = begun["user_code"].as_str().unwrap();
    let page = begun["verification_path"].as_str().unwrap();
    assert_eq!(page, format!("/device?user_code={code}"));
    let same = ("sec-fetch-site", "same-origin");
    let asked = api.browse(Method::GET, page, &[], "").await;
    assert!(asked.status == 200 && text(&asked).contains("name=\"password\""), "{}", asked.body);
    for (name, value) in [
        ("content-security-policy", "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(asked.headers[name], value);
    }
    let form = format!("decision=log_in&user_code={code}&username=ann&password=correct+horse+battery");
    let entered = api.browse(Method::POST, "/device", &[same], &form).await;
    assert_eq!((entered.status.as_u16(), entered.headers["location"].to_str().unwrap()), (303, page));
    let cookie = entered.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let session = ("cookie", cookie.as_str());

    let question = api.browse(Method::GET, page, &[session], "").await;
    let shown = text(&question);
    assert!(shown.contains("&lt;b&gt;laptop") && shown.contains("(192.0.2.7)") && !shown.contains("<b>"), "{shown}");
    let approve = format!("decision=approve&user_code={code}");
    for other in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let refused = api.browse(Method::POST, "/device", &[session, other], &approve).await;
        assert_eq!(refused.status, 403, "{}", refused.body);
    }
    assert_eq!(api.browse(Method::POST, "/device", &[same], &approve).await.status, 401, "without a session");
    let done = api.browse(Method::POST, "/device", &[same, session], &approve).await;
    assert!(done.status == 200 && text(&done).contains("is logged in now"), "{}", done.body);

    let poll = json!({"device_code": begun["device_code"]}).to_string();
    let token = api.browse(Method::POST, "/api/v1/device/token", &[], &poll).await.ok();
    let bearer = format!("Bearer {}", token["item"]["token"].as_str().unwrap());
    let mine = api.browse(Method::GET, "/api/v1/session", &[("authorization", &bearer)], "").await.ok();
    assert_eq!(mine["item"]["user"]["name"], "ann");
    let again = api.browse(Method::POST, "/api/v1/device/token", &[], &poll).await.refused(400);
    assert_eq!(again["code"], "expired_token");
}

#[tokio::test]
async fn the_token_of_a_device_ends_with_the_session_and_with_the_password() {
    let api = Api::new();
    api.person("ann").await;
    let log_in = async || {
        let form = json!({"username": "ann", "password": PASSWORD}).to_string();
        let entered = api.browse(Method::POST, "/api/v1/session", &[], &form).await;
        entered.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    };
    let same = ("sec-fetch-site", "same-origin");
    // Approves a device in a session; returns the credentials of the device.
    let approved = async |cookie: &str| {
        let begun = api.device("laptop").await;
        let body = json!({"user_code": begun["user_code"]}).to_string();
        api.browse(Method::POST, "/api/v1/device/approve", &[same, ("cookie", cookie)], &body).await.ok();
        let poll = json!({"device_code": begun["device_code"]}).to_string();
        let token = api.browse(Method::POST, "/api/v1/device/token", &[], &poll).await.ok();
        format!("Bearer {}", token["item"]["token"].as_str().unwrap())
    };
    let works = async |bearer: &str| {
        api.browse(Method::GET, "/api/v1/session", &[("authorization", bearer)], "").await.status == 200
    };
    let (first, second) = (log_in().await, log_in().await);
    let (of_first, of_second) = (approved(&first).await, approved(&second).await);
    // A token that the device makes for itself does not outlive it.
    let made = api
        .browse(Method::POST, "/api/v1/tokens", &[("authorization", of_first.as_str())], "{\"name\": \"more\"}")
        .await
        .ok();
    let more = format!("Bearer {}", made["item"]["token"].as_str().unwrap());
    assert!(works(&of_first).await && works(&of_second).await && works(&more).await);
    api.browse(Method::DELETE, "/api/v1/session", &[same, ("cookie", &first)], "").await.ok();
    assert!(!works(&of_first).await && !works(&more).await && works(&of_second).await);
    api.v1(Method::PUT, "/users/ann/password", json!({"password": "another horse battery"})).await.ok();
    assert!(!works(&of_second).await);
}

#[tokio::test]
async fn the_page_refuses_what_it_cannot_read() {
    let api = Api::new();
    api.person("ann").await;
    let same = ("sec-fetch-site", "same-origin");
    for form in ["decision=other".to_owned(), format!("user_code={}", "x".repeat(5_000)), "\u{7f}%%%".to_owned()] {
        let refused = api.browse(Method::POST, "/device", &[same], &form).await;
        assert!([400, 401].contains(&refused.status.as_u16()), "{form}: {}", refused.status);
    }
    let wrong = api.browse(Method::POST, "/device", &[same], "decision=log_in&username=ann&password=guess").await;
    assert!(wrong.status == 401 && text(&wrong).contains("wrong user name or password"), "{}", wrong.body);
    let long = json!({"device": "x".repeat(300)}).to_string();
    api.browse(Method::POST, "/api/v1/device/authorize", &[], &long).await.refused(400);
    let unknown = api.browse(Method::GET, "/api/v1/login/oidc/nowhere", &[], "").await.refused(404);
    assert_eq!(unknown["code"], "not_found");
    let none = api.browse(Method::GET, "/api/v1/login/oidc", &[], "").await.ok();
    assert_eq!(none["items"], json!([]));
}

#[tokio::test]
async fn an_unreachable_provider_is_a_refusal_that_administrators_see() {
    let api = Api::new();
    let provider = json!({
        "id": "corp", "issuer": "https://id.example", "client_id": "muster", "client_secret": "hush",
        "url": "https://fleet.example"
    });
    let created = api.v1(Method::POST, "/oidc_providers", provider).await.ok();
    assert_eq!(created["item"]["redirect_uri"], "https://fleet.example/api/v1/login/oidc/corp/callback");
    assert!(!created.to_string().contains("hush"), "{created}");
    let refused = api.browse(Method::GET, "/api/v1/login/oidc/corp", &[], "").await.refused(503);
    assert_eq!(refused["code"], "provider_unreachable");
    let seen = api.fleet.refusals().latest();
    assert_eq!((seen[0].refused.status, seen[0].refused.reason), (503, "provider_unreachable"));
    let rows = api.audit().await;
    assert_eq!(rows, ["oidc_provider.create", "session.refuse"]);
}
