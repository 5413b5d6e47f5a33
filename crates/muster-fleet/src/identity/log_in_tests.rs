//! Tests of logins at OpenID providers and of devices, with a provider that says what the test wants.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use muster_core::authorization::{Actor, OpContext, PrivilegeName};
use muster_core::credential::ApiKey;
use muster_core::id::SpaceId;
use muster_core::identity::id_token::TokenFault;
use muster_core::identity::{DEVICE_INTERVAL, DEVICE_LIFETIME, FederatedId, NewUsers, UserKind};
use muster_core::{Error, ErrorKind};
use muster_store::query::Page;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::bindings::NewBinding;
use super::federation::Returned;
use super::openid::{AuthorizationRequest, OpenIdClient, OpenIdProviders, ProviderError, Redemption};
use super::providers::ProviderChange;
use super::roles::RoleDraft;
use super::sign_in::{NewSession, Presented};
use super::tokens::NewToken;
use super::users::NewUser;
use crate::testing::TestFleet;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const PAGE: Page = Page { offset: 0, limit: 10 };

type Answer = Result<Map<String, Value>, ProviderError>;

/// A provider whose next answer the test sets. It records the states that it got.
struct Scripted {
    answer: Mutex<Answer>,
    states: Mutex<Vec<String>>,
}

#[async_trait]
impl OpenIdProviders for Scripted {
    async fn authorization_url(
        &self,
        client: &OpenIdClient,
        request: &AuthorizationRequest<'_>,
    ) -> Result<String, ProviderError> {
        self.states.lock().unwrap().push(request.state.to_owned());
        match &*self.answer.lock().unwrap() {
            Err(error) if error.is_outage() => Err(error.clone()),
            _ => Ok(format!("{}/auth", client.issuer)),
        }
    }

    async fn redeem(&self, client: &OpenIdClient, redemption: &Redemption<'_>) -> Answer {
        assert_eq!((client.secret.as_ref().map(|secret| secret.as_str()), redemption.code), (Some("s3cret"), "code"));
        self.answer.lock().unwrap().clone()
    }
}

struct World {
    test: TestFleet,
    provider: Arc<Scripted>,
}

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

fn claims(name: &str, groups: &[&str]) -> Map<String, Value> {
    let claims = json!({"sub": format!("subject-{name}"), "preferred_username": name, "groups": groups});
    claims.as_object().unwrap().clone()
}

#[track_caller]
fn code<T>(outcome: Result<T, Error>) -> &'static str {
    outcome.map(drop).unwrap_err().code
}

fn change(new_users: NewUsers) -> ProviderChange {
    ProviderChange {
        client_id: Some("muster".into()),
        client_secret: Some(Zeroizing::new("s3cret".into())),
        url: Some("https://fleet.example".into()),
        new_users: Some(new_users),
        ..ProviderChange::default()
    }
}

impl World {
    async fn new(new_users: NewUsers) -> Self {
        let provider = Arc::new(Scripted { answer: Mutex::new(Ok(Map::new())), states: Mutex::default() });
        let test = TestFleet::federated(provider.clone());
        let providers = test.fleet.providers();
        providers.create(&root(), "corp", "https://id.example", &change(new_users)).await.unwrap();
        Self { test, provider }
    }

    fn answers(&self, answer: Answer) {
        *self.provider.answer.lock().unwrap() = answer;
    }

    /// Begins a login; returns the cookie and the state.
    async fn begin(&self) -> (String, String) {
        let begun = self.test.fleet.federation().begin("corp", None, Some(ADDRESS)).await.unwrap();
        (begun.cookie.to_string(), self.provider.states.lock().unwrap().last().unwrap().clone())
    }

    async fn finish(&self, cookie: &str, state: &str) -> Result<NewSession, Error> {
        let returned = Returned { code: Some("code".into()), state: Some(state.into()), ..Returned::default() };
        let finished = self.test.fleet.federation().finish("corp", Some(cookie), &returned, Some(ADDRESS)).await;
        finished.map(|finished| finished.session)
    }

    async fn log_in(&self, name: &str, groups: &[&str]) -> Result<NewSession, Error> {
        self.answers(Ok(claims(name, groups)));
        let (cookie, state) = self.begin().await;
        self.finish(&cookie, &state).await
    }

    async fn enter(&self, presented: &Presented) -> Result<OpContext, Error> {
        self.test.fleet.sign_in().authenticate(presented, &SpaceId::default(), Some(ADDRESS)).await
    }

    /// Logs in as a member of groups.
    async fn context(&self, name: &str, groups: &[&str]) -> OpContext {
        let session = self.log_in(name, groups).await.unwrap();
        self.enter(&Presented::Session(ApiKey::parse(&session.cookie).unwrap())).await.unwrap()
    }

    async fn bind(&self, group: &str, role: &str) {
        let new = NewBinding { group: Some(group.into()), role: role.into(), ..NewBinding::default() };
        self.test.fleet.bindings().create(&root(), &new).await.unwrap();
    }

    async fn audited(&self, action: &str) -> Vec<Value> {
        let events = self.test.store().audit_events(0, 10_000).await.unwrap();
        let events = events.into_iter().map(|(_, json, _)| serde_json::from_str::<Value>(&json).unwrap());
        events.filter(|event| event["action"] == action).map(|event| event["detail"].clone()).collect()
    }
}

#[tokio::test]
async fn a_state_is_used_once_even_if_the_provider_takes_the_code_twice() {
    let world = World::new(NewUsers::Create).await;
    world.answers(Ok(claims("ann", &[])));
    let (cookie, state) = world.begin().await;
    world.finish(&cookie, &state).await.unwrap();
    assert_eq!(code(world.finish(&cookie, &state).await), "log_in_used");
    let other = world.test.beside();
    let returned = Returned { code: Some("code".into()), state: Some(state), ..Returned::default() };
    let elsewhere = other.fleet.federation().finish("corp", Some(&cookie), &returned, Some(ADDRESS)).await;
    assert_eq!(code(elsewhere.map(|finished| finished.session)), "log_in_used");

    let (cookie, state) = world.begin().await;
    world.test.clock.advance(Duration::from_secs(600));
    assert_eq!(code(world.finish(&cookie, &state).await), "log_in_unknown");
    assert_eq!(code(world.finish("nonsense", &state).await), "log_in_unknown");
}

#[tokio::test]
async fn each_fault_of_a_provider_is_a_refusal_and_an_audit_event_of_its_own() {
    let world = World::new(NewUsers::Create).await;
    let url = || "https://id.example/token".to_owned();
    let faults = [
        ProviderError::Rejected("invalid_grant".into()),
        ProviderError::Token(TokenFault::Issuer("https://evil.example".into())),
        ProviderError::Token(TokenFault::Audience),
        ProviderError::Token(TokenFault::Nonce),
        ProviderError::Token(TokenFault::Expired("2026-01-01T00:00:00Z".into())),
        ProviderError::Signature,
        ProviderError::UnknownKey("k".into()),
        ProviderError::Algorithm("none".into()),
    ];
    let outages = [
        ProviderError::Late(url()),
        ProviderError::Unreachable { url: url(), source: "connection refused".into() },
        ProviderError::NotJson { url: url(), content_type: "text/html".into() },
        ProviderError::Status { url: url(), status: 502 },
        ProviderError::OtherIssuer { expected: url(), found: "https://evil.example".into() },
    ];
    let mut seen = Vec::new();
    for fault in faults {
        let (cookie, state) = world.begin().await;
        world.answers(Err(fault));
        let refused = world.finish(&cookie, &state).await.map(drop).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unauthenticated, "{refused}");
        world.answers(Ok(Map::new()));
        seen.push(refused.code);
    }
    for outage in outages {
        world.answers(Err(outage));
        let refused = world.test.fleet.federation().begin("corp", None, Some(ADDRESS)).await.map(drop).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable, "{refused}");
        seen.push(refused.code);
    }
    let told: Vec<Value> = world.audited("session.refuse").await;
    let reasons: Vec<&str> = told.iter().map(|detail| detail["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, seen);
    let mut distinct = seen.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), seen.len(), "{seen:?}");
    assert!(world.audited("session.create").await.is_empty());
}

#[tokio::test]
async fn refused_log_ins_are_throttled_per_address_without_affecting_passwords() {
    let world = World::new(NewUsers::Create).await;
    let mut refused = 0;
    while code(world.finish("nonsense", "x").await) == "log_in_unknown" {
        refused += 1;
        assert!(refused < 100);
    }
    let before = world.audited("session.refuse").await.len();
    assert_eq!(code(world.finish("nonsense", "x").await), "too_many_failures");
    assert_eq!((world.audited("session.refuse").await.len(), before), (refused, refused));
    let new = NewUser {
        kind: UserKind::Person,
        name: "bob".into(),
        full_name: String::new(),
        password: Some("correct horse battery".into()),
    };
    world.test.fleet.users().create(&root().grant().unwrap(), &new).await.unwrap();
    world.test.fleet.sign_in().log_in("bob", "correct horse battery", Some(ADDRESS)).await.unwrap();
    world.test.clock.advance(Duration::from_secs(60));
    world.log_in("ann", &[]).await.unwrap();
}

#[tokio::test]
async fn users_are_created_only_if_allowed_and_never_taken_over_by_name() {
    let world = World::new(NewUsers::Refuse).await;
    let refused = world.log_in("ann", &[]).await.map(drop).unwrap_err();
    assert!(refused.code == "user_unknown" && refused.message.contains("subject-ann"), "{refused}");
    let new = NewUser { kind: UserKind::Person, name: "ann".into(), full_name: String::new(), password: None };
    world.test.fleet.users().create(&root().grant().unwrap(), &new).await.unwrap();
    assert_eq!(code(world.log_in("ann", &[]).await), "user_unknown", "the name alone proves nothing");
    let found = world.test.fleet.providers().find(&root(), "corp").await.unwrap();
    world.test.fleet.providers().update(&root(), &found, &change(NewUsers::Create)).await.unwrap();
    assert_eq!(code(world.log_in("ann", &[]).await), "user_name_taken");
    world.log_in("bob", &[]).await.unwrap();
    // The subject counts: a person who is renamed at the provider stays the same user.
    let mut renamed = claims("bob", &[]);
    renamed.insert("preferred_username".into(), "robert".into());
    world.answers(Ok(renamed));
    let (cookie, state) = world.begin().await;
    assert_eq!(world.finish(&cookie, &state).await.unwrap().user.name, "bob");
    let identity = |subject: &str| FederatedId { issuer: "https://id.example".into(), subject: subject.into() };
    let ann = world.test.fleet.users().find_to_change(&root(), "ann").await.unwrap();
    let taken = world.test.fleet.users().link(&ann, Some(identity("subject-bob"))).await;
    assert_eq!(code(taken), "subject_taken");
    world.test.fleet.users().link(&ann, Some(identity("subject-ann"))).await.unwrap();
    assert_eq!(world.log_in("ann", &[]).await.unwrap().user.id, ann.id);
}

#[tokio::test]
async fn only_an_administrator_configures_providers() {
    let world = World::new(NewUsers::Create).await;
    let draft = RoleDraft {
        name: "manager".into(),
        privileges: vec!["users.read".into(), "users.write".into()],
        ..RoleDraft::default()
    };
    world.test.fleet.roles().create(&root(), &draft).await.unwrap();
    world.bind("managers", "manager").await;
    let mia = world.context("mia", &["managers"]).await;
    let providers = world.test.fleet.providers();
    let created = providers.create(&mia, "evil", "https://evil.example", &change(NewUsers::Create)).await;
    assert_eq!(code(created), "escalation");
    let found = providers.find(&mia, "corp").await.unwrap();
    assert_eq!(code(providers.update(&mia, &found, &ProviderChange::default()).await), "escalation");
    assert_eq!(code(providers.delete(&mia, &found).await), "escalation");
    let events = world.audited("oidc_provider.create").await;
    assert!(events.len() == 1 && !events[0].to_string().contains("s3cret"), "{events:?}");
    for (id, issuer) in [("a b", "https://x"), ("", "https://x"), ("x", "http://id.example"), ("x", "id.example")] {
        assert_eq!(code(providers.create(&root(), id, issuer, &change(NewUsers::Refuse)).await), "invalid");
    }
    assert_eq!(code(providers.create(&root(), "corp", "https://x", &change(NewUsers::Refuse)).await), "exists");
}

#[tokio::test]
async fn mg165_a_token_with_rights_of_groups_ends_with_the_log_in() {
    let world = World::new(NewUsers::Create).await;
    world.bind("ops", "helpdesk").await;
    let ann = world.context("ann", &["ops"]).await;
    let (token, secret) = world.test.fleet.tokens().create_own(&ann, &NewToken::default()).await.unwrap();
    assert_eq!(token.expires_at, Some(ann.membership().unwrap().until));
    let with = Presented::Token(ApiKey::parse(&secret).unwrap());
    let context = world.enter(&with).await.unwrap();
    assert!(context.check(PrivilegeName::AgentsTag).is_ok());
    let (second, _) = world.test.fleet.tokens().create_own(&context, &NewToken::default()).await.unwrap();
    assert_eq!((second.expires_at, second.groups), (token.expires_at, vec!["ops".to_owned()]));
    world.test.clock.advance(Duration::from_secs(12 * 3_600));
    assert_eq!(world.enter(&with).await.unwrap_err().message, "the token has expired");
}

#[tokio::test]
async fn a_device_gets_the_token_that_a_person_approves_once() {
    let world = World::new(NewUsers::Create).await;
    world.bind("ops", "helpdesk").await;
    let ann = world.context("ann", &["ops"]).await;
    let devices = world.test.fleet.devices();
    let (log_in, secret) = devices.begin("laptop", Some(ADDRESS)).await.unwrap();
    let code_shown = log_in.user_code.shown();
    assert_eq!(code(devices.poll(&secret, None).await), "authorization_pending");
    assert_eq!(code(devices.poll(&secret, None).await), "slow_down");
    world.test.clock.advance(DEVICE_INTERVAL);
    assert_eq!(code(devices.poll(&secret, None).await), "authorization_pending");
    assert_eq!(code(devices.approve(&root(), None, &code_shown).await), "no_account");
    devices.approve(&ann, None, &code_shown).await.unwrap();
    assert_eq!(code(devices.approve(&ann, None, &code_shown).await), "not_found");
    // Another server gives the token out, and only once.
    let other = world.test.beside();
    let (token, key) = other.fleet.devices().poll(&secret, None).await.unwrap();
    assert_eq!(token.expires_at, Some(ann.membership().unwrap().until));
    assert_eq!(code(devices.poll(&secret, None).await), "expired_token");
    let context = world.enter(&Presented::Token(ApiKey::parse(&key).unwrap())).await.unwrap();
    assert!(context.check(PrivilegeName::AgentsTag).is_ok());
    assert_eq!(world.audited("device.approve").await[0]["device"], "laptop");
    assert_eq!(world.test.fleet.tokens().list_own(&ann, PAGE).await.unwrap().total, 1);
}

#[tokio::test]
async fn a_denied_or_late_device_gets_nothing() {
    let world = World::new(NewUsers::Create).await;
    let ann = world.context("ann", &[]).await;
    let devices = world.test.fleet.devices();
    let (denied, secret) = devices.begin("", None).await.unwrap();
    devices.deny(&ann, &denied.user_code.shown()).await.unwrap();
    assert_eq!(code(devices.poll(&secret, None).await), "access_denied");
    assert_eq!(code(devices.poll(&secret, None).await), "expired_token");
    let (late, secret) = devices.begin("", None).await.unwrap();
    world.test.clock.advance(DEVICE_LIFETIME);
    assert_eq!(code(devices.approve(&ann, None, &late.user_code.shown()).await), "not_found");
    for unknown in [secret.as_str(), "nonsense", "aWQ6c2VjcmV0"] {
        assert_eq!(code(devices.poll(unknown, None).await), "expired_token");
    }
}

#[tokio::test]
async fn a_device_approved_with_a_limited_token_gets_no_more() {
    let world = World::new(NewUsers::Create).await;
    world.bind("ops", "helpdesk").await;
    let ann = world.context("ann", &["ops"]).await;
    let limited =
        NewToken { privileges: Some(vec!["agents.read".into()]), expiration: Some("1h".into()), ..NewToken::default() };
    let (token, secret) = world.test.fleet.tokens().create_own(&ann, &limited).await.unwrap();
    let narrow = world.enter(&Presented::Token(ApiKey::parse(&secret).unwrap())).await.unwrap();
    let devices = world.test.fleet.devices();
    let (log_in, device) = devices.begin("", None).await.unwrap();
    devices.approve(&narrow, None, &log_in.user_code.shown()).await.unwrap();
    let (of_device, _) = devices.poll(&device, None).await.unwrap();
    assert_eq!((of_device.privileges, of_device.expires_at), (token.privileges, token.expires_at));
}

#[tokio::test]
async fn codes_and_new_devices_are_throttled() {
    let world = World::new(NewUsers::Create).await;
    let (ann, bob) = (world.context("ann", &[]).await, world.context("bob", &[]).await);
    let devices = world.test.fleet.devices();
    let (log_in, _) = devices.begin("", None).await.unwrap();
    for _ in 0..10 {
        assert_eq!(code(devices.find(&ann, "BCDF-GHJK").await), "not_found");
    }
    assert_eq!(code(devices.find(&ann, &log_in.user_code.shown()).await), "too_many_failures");
    devices.find(&bob, &log_in.user_code.shown()).await.unwrap();
    let begin = async || devices.begin("", Some(ADDRESS)).await;
    while begin().await.is_ok() {}
    assert_eq!(code(begin().await), "too_many_log_ins");
    world.test.clock.advance(Duration::from_secs(600));
    begin().await.unwrap();
}

#[tokio::test]
async fn who_administers_through_a_group_is_protected_like_an_administrator() {
    let world = World::new(NewUsers::Create).await;
    let managing = RoleDraft { name: "manager".into(), privileges: vec!["users.write".into()], ..RoleDraft::default() };
    world.test.fleet.roles().create(&root(), &managing).await.unwrap();
    world.bind("admins", "administrator").await;
    world.bind("desk", "manager").await;
    world.context("boss", &["admins"]).await;
    let desk = world.context("desk", &["desk"]).await;
    let users = world.test.fleet.users();
    assert_eq!(code(users.find_to_change(&desk, "boss").await), "escalation");
    users.find_to_change(&desk, "desk").await.unwrap();
}
