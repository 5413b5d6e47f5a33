//! Tests of users, roles, tokens, spaces and authentication.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use muster_core::authorization::{Actor, AgentsRead, OpContext, PrivilegeName};
use muster_core::credential::ApiKey;
use muster_core::id::SpaceId;
use muster_core::identity::UserKind;
use muster_core::{Error, ErrorKind};
use zeroize::Zeroizing;

use super::bindings::NewBinding;
use super::roles::RoleDraft;
use super::sign_in::Presented;
use super::tokens::NewToken;
use super::users::{NewUser, UserChange};
use crate::testing::TestFleet;

const PASSWORD: &str = "correct horse battery";
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

fn password(name: &str, password: &str) -> Presented {
    Presented::Password(Zeroizing::new(name.to_owned()), Zeroizing::new(password.to_owned()))
}

fn bound(user: &str, role: &str, space: Option<&str>) -> NewBinding {
    NewBinding {
        user: Some(user.to_owned()),
        role: role.to_owned(),
        space: space.map(str::to_owned),
        ..NewBinding::default()
    }
}

impl TestFleet {
    async fn user(&self, name: &str, roles: &[(&str, Option<&str>)]) {
        let new = NewUser {
            kind: UserKind::Person,
            name: name.to_owned(),
            full_name: String::new(),
            password: Some(PASSWORD.to_owned()),
        };
        self.fleet.users().create(&root().grant().unwrap(), &new).await.unwrap();
        for (role, space) in roles {
            self.fleet.bindings().create(&root(), &bound(name, role, *space)).await.unwrap();
        }
    }

    async fn enter(&self, presented: &Presented, space: &str) -> Result<OpContext, Error> {
        self.fleet.sign_in().authenticate(presented, &SpaceId::trusted(space), Some(ADDRESS)).await
    }

    async fn context(&self, name: &str) -> OpContext {
        self.enter(&password(name, PASSWORD), "default").await.unwrap()
    }

    async fn token(&self, context: &OpContext, new: &NewToken) -> Presented {
        let (_, token) = self.fleet.tokens().create_own(context, new).await.unwrap();
        Presented::Token(ApiKey::parse(&token).unwrap())
    }
}

#[track_caller]
fn code<T>(outcome: Result<T, Error>) -> &'static str {
    outcome.map(drop).unwrap_err().code
}

#[tokio::test]
async fn mg161_a_token_has_at_most_the_privileges_of_its_owner() {
    let test = TestFleet::default();
    test.user("ann", &[("helpdesk", None)]).await;
    let ann = test.context("ann").await;
    let wanting = |names: &[&str]| NewToken {
        privileges: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..NewToken::default()
    };
    let tokens = test.fleet.tokens();
    let more = tokens.create_own(&ann, &wanting(&["agents.read", "agents.unenroll"])).await.unwrap_err();
    assert_eq!((more.kind, more.code), (ErrorKind::Forbidden, "escalation"));
    assert!(more.message.contains("agents.unenroll") && !more.message.contains("agents.read"), "{more}");
    assert_eq!(code(tokens.create_own(&ann, &wanting(&["agents.rule"])).await), "invalid");

    let reader = test.enter(&test.token(&ann, &wanting(&["agents.read"])).await, "default").await.unwrap();
    assert!(reader.check(PrivilegeName::AgentsRead).is_ok() && reader.check(PrivilegeName::AgentsTag).is_err());
    assert_eq!(code(tokens.create_own(&reader, &wanting(&["agents.tag"])).await), "escalation");
    // What the owner loses, the token loses too.
    let tagging = test.token(&ann, &wanting(&["agents.tag", "agents.read"])).await;
    assert!(test.enter(&tagging, "default").await.unwrap().check(PrivilegeName::AgentsTag).is_ok());
    let list = test.fleet.bindings().list(&root().grant().unwrap(), Some("ann"), &root(), PAGE).await.unwrap();
    let binding = test.fleet.bindings().find(&root(), list.items[0].id.as_str()).await.unwrap();
    test.fleet.bindings().delete(&root(), &binding).await.unwrap();
    assert!(test.enter(&tagging, "default").await.unwrap().check(PrivilegeName::AgentsTag).is_err());
}

const PAGE: muster_store::query::Page = muster_store::query::Page { offset: 0, limit: 10 };

#[tokio::test]
async fn mg162_a_revoked_token_a_locked_user_and_a_lowered_role_are_in_force_at_once_on_every_server() {
    let test = TestFleet::default();
    let other = test.beside();
    let draft = |names: &[&str]| RoleDraft {
        name: "Own role".into(),
        privileges: names.iter().map(|name| (*name).to_owned()).collect(),
        ..RoleDraft::default()
    };
    let role = test.fleet.roles().create(&root(), &draft(&["agents.read", "agents.tag"])).await.unwrap();
    assert_eq!(role.id.as_str(), "own-role");
    test.user("ann", &[("own-role", None)]).await;
    let ann = test.context("ann").await;
    let (first, second) = (test.token(&ann, &NewToken::default()).await, test.token(&ann, &NewToken::default()).await);
    assert!(other.enter(&first, "default").await.unwrap().grant::<AgentsRead>().is_ok());

    let found = test.fleet.roles().find(&root(), "own-role").await.unwrap();
    test.fleet.roles().update(&root(), &found, &draft(&["agents.tag"])).await.unwrap();
    assert!(other.enter(&first, "default").await.unwrap().grant::<AgentsRead>().is_err());

    let Presented::Token(key) = &first else { panic!() };
    let listed = test.fleet.tokens().list_own(&ann, PAGE).await.unwrap().items;
    let revoked = listed.iter().find(|token| token.key_id == key.id).unwrap();
    test.fleet.tokens().revoke(&ann, revoked.id.as_str()).await.unwrap();
    let denied = other.enter(&first, "default").await.unwrap_err();
    assert_eq!((denied.kind, denied.message.as_str()), (ErrorKind::Unauthenticated, "the token is revoked"));

    let cookie = test.fleet.sign_in().log_in("ANN", PASSWORD, Some(ADDRESS)).await.unwrap().cookie;
    let session = Presented::Session(ApiKey::parse(&cookie).unwrap());
    assert!(other.enter(&session, "default").await.is_ok());
    let user = test.fleet.users().find_to_change(&root(), "ann").await.unwrap();
    test.user("spare", &[("administrator", None)]).await;
    let lock = UserChange { locked: Some(true), ..UserChange::default() };
    test.fleet.users().update(&user, &lock).await.unwrap();
    assert_eq!(code(other.enter(&second, "default").await), "user_locked");
    assert_eq!(code(other.enter(&session, "default").await), "unauthenticated");
    assert_eq!(code(other.enter(&password("ann", PASSWORD), "default").await), "user_locked");
    assert_eq!(code(other.enter(&password("ann", "wrong password"), "default").await), "unauthenticated");
}

#[tokio::test]
async fn nobody_gives_or_takes_more_than_they_have() {
    let test = TestFleet::default();
    test.user("root2", &[("administrator", None)]).await;
    let managing = RoleDraft {
        name: "manager".into(),
        privileges: vec!["users.read".into(), "users.write".into(), "roles.write".into(), "agents.read".into()],
        ..RoleDraft::default()
    };
    test.fleet.roles().create(&root(), &managing).await.unwrap();
    test.user("mia", &[("manager", None)]).await;
    test.user("bob", &[("helpdesk", None)]).await;
    let mia = test.context("mia").await;
    let (users, bindings) = (test.fleet.users(), test.fleet.bindings());
    for role in ["administrator", "helpdesk"] {
        assert_eq!(code(bindings.create(&mia, &bound("mia", role, None)).await), "escalation", "{role}");
    }
    bindings.create(&mia, &bound("bob", "manager", None)).await.unwrap();
    for name in ["root2", "bob"] {
        assert_eq!(code(users.find_to_change(&mia, name).await), "escalation", "bob is in the helpdesk too: {name}");
    }
    let group = NewBinding { user: None, group: Some("g".into()), ..bound("", "auditor", None) };
    assert_eq!(code(bindings.create(&mia, &group).await), "escalation");
    let wider = RoleDraft { name: "wider".into(), privileges: vec!["audit.read".into()], ..RoleDraft::default() };
    assert_eq!(code(test.fleet.roles().create(&mia, &wider).await), "escalation");
    let role = test.fleet.roles().find(&mia, "manager").await.unwrap();
    let raised = RoleDraft { privileges: vec!["agents.read".into(), "agents.purge".into()], ..managing };
    assert_eq!(code(test.fleet.roles().update(&mia, &role, &raised).await), "escalation");
    // The role of an administrator cannot be taken by somebody who does not have it.
    let list = bindings.list(&root().grant().unwrap(), Some("root2"), &root(), PAGE).await.unwrap();
    let binding = bindings.find(&mia, list.items[0].id.as_str()).await.unwrap();
    assert_eq!(code(bindings.delete(&mia, &binding).await), "escalation");
}

#[tokio::test]
async fn failed_passwords_are_audited_without_names_that_are_no_users() {
    let test = TestFleet::default();
    test.user("ann", &[]).await;
    for name in ["ann", "ann", "my-password-by-mistake", "another"] {
        assert_eq!(code(test.enter(&password(name, "wrong password"), "default").await), "unauthenticated");
    }
    let events = test.store().audit_events(0, 10_000).await.unwrap();
    let events: Vec<serde_json::Value> =
        events.iter().map(|(_, json, _)| serde_json::from_str(json).unwrap()).collect();
    let failed: Vec<&serde_json::Value> = events.iter().filter(|event| event["action"] == "session.fail").collect();
    assert_eq!(failed.len(), 2, "one for each account and address in a minute: {failed:?}");
    assert!(failed[0]["subject"].as_str().unwrap().starts_with("user:") && failed[0]["detail"]["failures"] == 1);
    assert_eq!(failed[1]["subject"], "user:unknown");
}

#[tokio::test]
async fn the_last_administrator_cannot_be_removed_or_locked() {
    let test = TestFleet::default();
    test.user("ann", &[("administrator", None)]).await;
    let users = test.fleet.users();
    let ann = users.find_to_change(&root(), "ann").await.unwrap();
    let lock = UserChange { locked: Some(true), ..UserChange::default() };
    assert_eq!(code(users.update(&ann, &lock).await), "last_administrator");
    assert_eq!(code(users.delete(&ann).await), "last_administrator");
    let list = test.fleet.bindings().list(&root().grant().unwrap(), None, &root(), PAGE).await.unwrap();
    let binding = test.fleet.bindings().find(&root(), list.items[0].id.as_str()).await.unwrap();
    assert_eq!(code(test.fleet.bindings().delete(&root(), &binding).await), "last_administrator");
    test.user("bea", &[("administrator", None)]).await;
    users.delete(&ann).await.unwrap();
    assert_eq!(code(test.enter(&password("ann", PASSWORD), "default").await), "unauthenticated");
}

#[tokio::test]
async fn built_in_roles_and_the_default_space_stay() {
    let test = TestFleet::default();
    let (roles, spaces) = (test.fleet.roles(), test.fleet.spaces());
    let auditor = roles.find(&root(), "auditor").await.unwrap();
    assert_eq!(code(roles.delete(&auditor).await), "built_in_role");
    let draft = RoleDraft { name: "x".into(), ..RoleDraft::default() };
    assert_eq!(code(roles.update(&root(), &auditor, &draft).await), "built_in_role");
    let same = RoleDraft { name: "AUDITOR".into(), ..RoleDraft::default() };
    assert_eq!(code(roles.create(&root(), &same).await), "name_taken");
    let default = spaces.find(&root(), "default").await.unwrap();
    assert_eq!(code(spaces.delete(&default).await), "default_space");
    let grant = root().grant().unwrap();
    assert_eq!(code(spaces.create(&grant, "default", "", "").await), "space_exists");
    assert_eq!(code(spaces.create(&grant, "Blue", "", "").await), "invalid");
    spaces.create(&grant, "blue", "", "").await.unwrap();
    assert_eq!(code(spaces.create(&grant, "blue", "", "").await), "space_exists");
    let renamed = spaces.update(&default, "Ours", "").await.unwrap();
    assert_eq!(spaces.list(&root().grant().unwrap()).await.unwrap()[1], renamed);
    let blue = spaces.find(&root(), "blue").await.unwrap();
    spaces.delete(&blue).await.unwrap();
    assert_eq!(code(spaces.delete(&blue).await), "not_found");
}

#[tokio::test]
async fn mg8_a_caller_enters_only_spaces_in_which_it_has_a_role() {
    let test = TestFleet::default();
    let grant = root().grant().unwrap();
    test.fleet.spaces().create(&grant, "blue", "", "").await.unwrap();
    test.fleet.spaces().create(&grant, "red", "", "").await.unwrap();
    test.user("ann", &[("helpdesk", Some("blue"))]).await;
    let ann = password("ann", PASSWORD);
    assert!(test.enter(&ann, "blue").await.unwrap().check(PrivilegeName::AgentsRead).is_ok());
    for elsewhere in ["red", "nothing"] {
        let refused = test.enter(&ann, elsewhere).await.unwrap_err();
        assert_eq!((refused.kind, refused.message), (ErrorKind::NotFound, format!("space {elsewhere} not found")));
    }
    assert!(test.enter(&ann, "default").await.unwrap().check(PrivilegeName::AgentsRead).is_err());
}

#[tokio::test]
async fn tokens_end_after_ninety_days_and_do_not_outlive_the_token_that_created_them() {
    let test = TestFleet::default();
    test.user("ann", &[("helpdesk", None)]).await;
    let ann = test.context("ann").await;
    let never = NewToken { expiration: Some("never".into()), ..NewToken::default() };
    assert_eq!(code(test.fleet.tokens().create_own(&ann, &never).await), "invalid");
    let short = NewToken { expiration: Some("1h".into()), ..NewToken::default() };
    let by_token = test.enter(&test.token(&ann, &short).await, "default").await.unwrap();
    let (successor, _) = test.fleet.tokens().create_own(&by_token, &NewToken::default()).await.unwrap();
    assert_eq!(successor.expires_at, Some(test.now().plus(Duration::from_secs(3_600))));

    let lasting = test.token(&ann, &NewToken::default()).await;
    test.clock.advance(Duration::from_secs(90 * 86_400 - 1));
    assert!(test.enter(&lasting, "default").await.is_ok());
    test.clock.advance(Duration::from_secs(1));
    assert_eq!(test.enter(&lasting, "default").await.unwrap_err().message, "the token has expired");

    let service =
        NewUser { kind: UserKind::ServiceAccount, name: "ci".into(), full_name: String::new(), password: None };
    test.fleet.users().create(&root().grant().unwrap(), &service).await.unwrap();
    let owner = test.fleet.users().find_to_change(&root(), "ci").await.unwrap();
    let (token, _) = test.fleet.tokens().create_for(&root(), &owner, &never).await.unwrap();
    assert_eq!(token.expires_at, None);
}

#[tokio::test]
async fn the_last_use_of_a_token_is_recorded_every_five_minutes() {
    let test = TestFleet::default();
    test.user("ann", &[("helpdesk", None)]).await;
    let token = test.token(&test.context("ann").await, &NewToken::default()).await;
    let last = async || {
        let ann = test.context("ann").await;
        test.fleet.tokens().list_own(&ann, PAGE).await.unwrap().items[0].last_used_at
    };
    assert_eq!(last().await, None);
    let first = test.now();
    test.enter(&token, "default").await.unwrap();
    test.clock.advance(Duration::from_secs(200));
    test.enter(&token, "default").await.unwrap();
    assert_eq!(last().await, Some(first));
    test.clock.advance(Duration::from_secs(100));
    test.enter(&token, "default").await.unwrap();
    assert_eq!(last().await, Some(test.now()));
}

#[tokio::test]
async fn a_setup_link_sets_a_password_once_within_an_hour() {
    let test = TestFleet::default();
    let setup = test.fleet.setup();
    let first = setup.ensure_administrator().await.unwrap().unwrap();
    assert_eq!(setup.ensure_administrator().await.unwrap(), None);
    assert_eq!(code(setup.use_link(&first, "short", Some(ADDRESS)).await), "invalid");
    let user = setup.use_link(&first, PASSWORD, Some(ADDRESS)).await.unwrap();
    assert_eq!(user.name, "admin");
    assert_eq!(code(setup.use_link(&first, PASSWORD, Some(ADDRESS)).await), "setup_link_invalid");
    let admin = test.context("admin").await;
    assert!(admin.lacks_of(root().entitlements()).is_empty());

    let found = test.fleet.users().find_to_change(&root(), "admin").await.unwrap();
    let (_, late) = setup.create_link(&found).await.unwrap();
    test.clock.advance(Duration::from_secs(3_600));
    assert_eq!(code(setup.use_link(&late, PASSWORD, Some(ADDRESS)).await), "setup_link_invalid");
    assert_eq!(code(setup.use_link("nonsense", PASSWORD, Some(ADDRESS)).await), "setup_link_invalid");
}

#[tokio::test]
async fn a_session_lasts_twelve_hours_and_ends_with_a_new_password() {
    let test = TestFleet::default();
    test.user("ann", &[("helpdesk", None)]).await;
    let session = async || {
        let cookie = test.fleet.sign_in().log_in("ann", PASSWORD, Some(ADDRESS)).await.unwrap().cookie;
        ApiKey::parse(&cookie).unwrap()
    };
    let key = session().await;
    let ann = test.enter(&Presented::Session(key.clone()), "default").await.unwrap();
    test.fleet.sign_in().log_out(&ann, &key).await.unwrap();
    assert_eq!(code(test.enter(&Presented::Session(key), "default").await), "unauthenticated");
    let key = session().await;
    test.clock.advance(Duration::from_secs(12 * 3_600 - 1));
    assert!(test.enter(&Presented::Session(key.clone()), "default").await.is_ok());
    test.clock.advance(Duration::from_secs(1));
    assert_eq!(code(test.enter(&Presented::Session(key), "default").await), "unauthenticated");
    let key = session().await;
    let wrong = test.fleet.users().change_own_password(&ann, "not the password", "another good one").await;
    assert_eq!(code(wrong), "invalid");
    test.fleet.users().change_own_password(&ann, PASSWORD, "another good one").await.unwrap();
    assert_eq!(code(test.enter(&Presented::Session(key), "default").await), "unauthenticated");
    assert!(test.enter(&password("ann", "another good one"), "default").await.is_ok());
}

#[tokio::test]
async fn a_session_cannot_guess_the_password_of_its_user() {
    let test = TestFleet::default();
    test.user("ann", &[("helpdesk", None)]).await;
    let cookie = test.fleet.sign_in().log_in("ann", PASSWORD, Some(ADDRESS)).await.unwrap().cookie;
    let ann = test.enter(&Presented::Session(ApiKey::parse(&cookie).unwrap()), "default").await.unwrap();
    let users = test.fleet.users();
    let mut codes = Vec::new();
    for _ in 0..12 {
        codes.push(code(users.change_own_password(&ann, "a guess", "another good one").await));
    }
    assert_eq!((codes[0], codes[11]), ("invalid", "too_many_failures"));
    test.clock.advance(Duration::from_secs(120));
    users.change_own_password(&ann, PASSWORD, "another good one").await.unwrap();
}

#[tokio::test]
async fn guessed_passwords_are_throttled_and_tokens_still_work() {
    let test = TestFleet::default();
    test.user("ann", &[("helpdesk", None)]).await;
    let token = test.token(&test.context("ann").await, &NewToken::default()).await;
    for _ in 0..10 {
        assert_eq!(code(test.enter(&password("bob", "guess"), "default").await), "unauthenticated");
    }
    test.user("eve", &[("helpdesk", None)]).await;
    let throttled = test.enter(&password("eve", PASSWORD), "default").await.unwrap_err();
    assert_eq!((throttled.kind, throttled.code), (ErrorKind::TooMany, "too_many_failures"));
    assert_eq!(throttled.retry_after.map(NonZeroU16::get), Some(30));
    // Ann logged in from there before.
    assert!(test.enter(&password("ann", PASSWORD), "default").await.is_ok());
    assert!(test.enter(&token, "default").await.is_ok());
}
