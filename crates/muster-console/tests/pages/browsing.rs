//! A browser without a screen: the pages over a fleet with a temporary store.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use muster_console::{ServerTrust, console_router, in_html};
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::testing::online_agent;
use muster_fleet::FleetSettings;
use muster_fleet::testing::{TestFleet, steady};
use muster_fleet::urls::OwnUrls;
use muster_listen::reply::{ListenerKind, Peer};
use muster_management::base_path::BasePath;
use muster_management::management_router;
use tower::ServiceExt as _;

pub const PASSWORD: &str = "correct horse battery";
/// Markup that must never run or break a page.
pub const CANARY: &str = "</td><script>alert(1)</script>\"' onload=x";

pub struct Pages {
    pub fleet: TestFleet,
    pub router: Router,
    /// Path under which the pages are published.
    pub base_path: BasePath,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub html: String,
}

impl Answer {
    pub fn goes_to(&self) -> &str {
        self.headers[LOCATION].to_str().unwrap()
    }
}

impl Pages {
    pub async fn new() -> Self {
        Self::at(&["https://fleet.example:8220"]).await
    }

    /// Pages of a fleet whose agents connect to these URLs.
    pub async fn at(urls: &[&str]) -> Self {
        let urls = OwnUrls { configured: urls.iter().map(|&url| url.into()).collect(), derived: None };
        let fleet = TestFleet::with(FleetSettings { urls, ..steady() });
        fleet.policy("web").await;
        let trust = ServerTrust { ca: Some("/var/lib/muster/ca.crt".into()), is_plain: false };
        let pages = console_router(Arc::clone(&fleet.fleet), trust);
        let router = in_html(Arc::clone(&fleet.fleet), management_router(Arc::clone(&fleet.fleet)).merge(pages));
        Self { fleet, router, base_path: BasePath::default() }
    }

    /// Pages that a proxy publishes under a path.
    pub async fn under(base_path: &str) -> Self {
        Self { base_path: base_path.parse().unwrap(), ..Self::new().await }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.answer(request).await.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, html: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// Answers a request as the server does.
    async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        self.base_path.remove_from(request.uri_mut());
        self.base_path.answer(async { self.router.clone().oneshot(request).await.unwrap() }).await
    }

    /// A request of the server's own user, to prepare a test.
    pub async fn prepare(&self, path: &str, body: &str) {
        let uid = Some(nix::unistd::Uid::effective().as_raw());
        let peer = Peer { uid, ..Peer::new(ListenerKind::Socket) };
        let request = Request::builder().method(Method::POST).uri(format!("/api{path}")).extension(peer);
        let answer = self.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.html);
    }

    pub async fn browse(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(request(method, path, headers, body)).await
    }

    /// Returns the body of a response as it is sent.
    pub async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> (HeaderMap, Vec<u8>) {
        let (parts, body) = self.answer(request(method, path, headers, body)).await.into_parts();
        (parts.headers, to_bytes(body, usize::MAX).await.unwrap().to_vec())
    }

    /// Creates a person with a role, and returns the cookie of a session.
    pub async fn log_in(&self, name: &str, role: &str) -> String {
        self.prepare("/v1/users", &format!(r#"{{"name":"{name}","password":"{PASSWORD}"}}"#)).await;
        self.prepare("/v1/bindings", &format!(r#"{{"user":"{name}","role":"{role}"}}"#)).await;
        let form = format!("username={name}&password=correct+horse+battery&return_to=%2Fagents");
        let answer = self.browse(Method::POST, "/login", &[("sec-fetch-site", "same-origin")], &form).await;
        assert_eq!(
            (answer.status.as_u16(), answer.goes_to()),
            (303, format!("{}/agents", self.base_path).as_str()),
            "{}",
            answer.html
        );
        answer.headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    pub async fn page(&self, cookie: &str, path: &str) -> Answer {
        self.browse(Method::GET, path, &[("cookie", cookie)], "").await
    }

    pub async fn agent(&self, id: &str, change: impl FnOnce(&mut AgentRecord)) {
        let mut record = online_agent(id, Some("web"), self.fleet.now());
        record.hostname = format!("host-{id}");
        change(&mut record);
        self.fleet.add_agent(record, AgentDocuments::default()).await;
    }

    /// Adds many agents with these ids in few commits.
    pub async fn agents(&self, ids: impl Iterator<Item = String>, change: impl Fn(&mut AgentRecord)) {
        let mut writes = Vec::new();
        for id in ids {
            let mut record = online_agent(&id, Some("web"), self.fleet.now());
            record.hostname = format!("host-{id}");
            change(&mut record);
            writes.push(self.fleet.insertion(record, AgentDocuments::default()).0);
            if writes.len() == 500 {
                self.fleet.commit(std::mem::take(&mut writes)).await;
            }
        }
        self.fleet.commit(writes).await;
    }

    /// Sends a form, as a page of this server does.
    pub async fn post(&self, cookie: &str, path: &str, form: &str) -> Answer {
        self.browse(Method::POST, path, &[("cookie", cookie), ("sec-fetch-site", "same-origin")], form).await
    }
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let address = Some("192.0.2.7:50000".parse().unwrap());
    let peer = Peer { address, ..Peer::new(ListenerKind::Admin) };
    let request = Request::builder().method(method).uri(path).extension(peer);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_owned())).unwrap()
}
