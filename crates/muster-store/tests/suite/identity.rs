//! Users, roles, bindings, tokens, sessions and spaces.

use muster_core::authorization::{BindingScope, BuiltIn, Entitlement, PrivilegeName, PrivilegeSet, Role, Selector};
use muster_core::credential::SecretHash;
use muster_core::id::{BindingId, KeyId, PolicyId, RoleId, SpaceId, TokenId, UserId};
use muster_core::identity::{
    ApiToken, Binding, FederatedId, PasswordHash, Session, SetupLink, Space, Subject, User, UserKind,
};
use muster_core::installer::Installer;
use muster_core::live_query::LiveQuery;
use muster_core::script::{ScriptRun, ScriptWork};
use muster_core::time::Timestamp;
use muster_store::query::Page;
use muster_store::{HostRunStore, IdentityWrite as W, LiveQueryWrite, Precondition, Store, Write};

use super::sample::*;

const PAGE: Page = Page { offset: 0, limit: 10 };

fn user(id: &str) -> User {
    User {
        id: UserId::trusted(id),
        kind: UserKind::Person,
        name: format!("name-{id}"),
        full_name: "Full Name".into(),
        password: Some(PasswordHash("$argon2id$x".into())),
        federated: Some(FederatedId { issuer: "https://id.example".into(), subject: format!("subject-{id}") }),
        locked_at: Some(at(3)),
        version: 1,
        created_at: at(1),
        created_by: "system".into(),
        updated_at: at(2),
    }
}

pub fn live(id: &str) -> User {
    User { locked_at: None, ..user(id) }
}

pub(super) fn binding(id: &str, subject: Subject, role: RoleId, scope: BindingScope) -> Binding {
    Binding { id: BindingId::trusted(id), subject, role, scope, created_at: at(1), created_by: "system".into() }
}

fn of_user(id: &str, user: &str, role: BuiltIn, scope: BindingScope) -> Binding {
    binding(id, Subject::User(UserId::trusted(user)), role.id(), scope)
}

pub(super) fn token(id: &str, owner: &str) -> ApiToken {
    ApiToken {
        id: TokenId::trusted(id),
        key_id: KeyId::trusted(format!("key-{id}")),
        hash: SecretHash([7; 32]),
        owner: UserId::trusted(owner),
        name: "a token".into(),
        privileges: [PrivilegeName::AgentsRead, PrivilegeName::AuditRead].into_iter().collect(),
        groups: Vec::new(),
        expires_at: Some(at(100)),
        login: None,
        created_at: at(1),
        created_by: "user:x".into(),
        last_used_at: None,
        revoked_at: None,
    }
}

pub(super) fn session(id: &str, user: &str, groups: &[&str]) -> Session {
    Session {
        key_id: KeyId::trusted(id),
        hash: SecretHash([9; 32]),
        user: UserId::trusted(user),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        created_at: at(1),
        expires_at: at(50),
        address: Some("192.0.2.7".to_owned()),
        last_used_at: None,
    }
}

fn role(id: &str) -> Role {
    Role {
        id: RoleId::trusted(id),
        name: format!("Role {id}"),
        description: "of a test".into(),
        privileges: [PrivilegeName::AgentsTag].into_iter().collect(),
        is_built_in: false,
        version: 1,
        updated_at: at(1),
    }
}

pub fn space(id: &str) -> Space {
    Space {
        id: SpaceId::trusted(id),
        name: id.to_uppercase(),
        description: "of a test".into(),
        version: 1,
        created_at: at(1),
        updated_at: at(2),
    }
}

fn insert(user: &User) -> Write {
    W::InsertUser(Box::new(user.clone())).into()
}

fn bind(binding: &Binding) -> Write {
    W::InsertBinding(Box::new(binding.clone())).into()
}

pub async fn a_user_comes_back_by_id_name_and_subject(store: &impl Store) {
    let written = user("a");
    let plain = User { password: None, federated: None, locked_at: None, kind: UserKind::ServiceAccount, ..user("b") };
    commit(store, vec![insert(&written), insert(&plain)]).await;
    assert_eq!(store.user(&written.id).await.unwrap().as_ref(), Some(&written));
    assert_eq!(store.user_by_subject("https://id.example", "subject-a").await.unwrap().as_ref(), Some(&written));
    assert_eq!(store.user_by_subject("https://id.example", "subject-b").await.unwrap(), None);
    let found = store.user_principal("name-b", &SpaceId::default()).await.unwrap().unwrap();
    assert_eq!((&found.user, found.entitlements.len(), found.has_space), (&plain, 0, true));
    assert_eq!(store.user_principal("nobody", &SpaceId::default()).await.unwrap(), None);
    let people = store.users(UserKind::Person, PAGE).await.unwrap();
    assert_eq!((people.items, people.total), (vec![written], 1));
    assert_eq!(store.users(UserKind::ServiceAccount, PAGE).await.unwrap().items, [plain]);
}

pub async fn names_of_users_are_taken_once_and_changes_start_from_the_newest(store: &impl Store) {
    let (a, b) = (live("a"), live("b"));
    commit(store, vec![insert(&a), insert(&b)]).await;
    let same_name = User { id: UserId::trusted("c"), federated: None, ..a.clone() };
    assert_eq!(refused(store, vec![insert(&same_name)]).await, Precondition::NameTaken("name-a".into()));
    assert!(matches!(refused(store, vec![insert(&a)]).await, Precondition::Exists(_) | Precondition::NameTaken(_)));
    let update = |user: &User| vec![W::UpdateUser(Box::new(user.clone())).into()];
    let renamed = User { name: "name-b".into(), version: 2, ..a.clone() };
    assert_eq!(refused(store, update(&renamed)).await, Precondition::NameTaken("name-b".into()));
    let changed = User { full_name: "Other".into(), locked_at: Some(at(9)), password: None, version: 2, ..a.clone() };
    commit(store, update(&changed)).await;
    assert_eq!(store.user(&a.id).await.unwrap(), Some(changed.clone()));
    assert!(matches!(refused(store, update(&changed)).await, Precondition::Changed(_)));
}

pub async fn a_deleted_user_is_gone_with_everything_of_it(store: &impl Store) {
    let bound = of_user("b", "a", BuiltIn::Auditor, BindingScope::System);
    let link = SetupLink {
        key_id: KeyId::trusted("l"),
        hash: SecretHash([1; 32]),
        user: UserId::trusted("a"),
        expires_at: at(9),
    };
    let writes = vec![
        insert(&live("a")),
        bind(&bound),
        W::InsertToken(Box::new(token("t", "a"))).into(),
        W::InsertSession(Box::new(session("s", "a", &[]))).into(),
        W::InsertSetupLink(Box::new(link.clone())).into(),
    ];
    commit(store, writes).await;
    assert_eq!(store.setup_link(&link.key_id).await.unwrap(), Some(link.clone()));
    let delete = || vec![W::DeleteUser { id: UserId::trusted("a") }.into()];
    commit(store, delete()).await;
    let space = SpaceId::default();
    assert!(store.token_principal(&KeyId::trusted("key-t"), &space).await.unwrap().is_none());
    assert!(store.session_principal(&KeyId::trusted("s"), &space).await.unwrap().is_none());
    assert_eq!(store.binding(&bound.id).await.unwrap(), None);
    assert_eq!(store.setup_link(&link.key_id).await.unwrap(), None);
    assert!(matches!(refused(store, delete()).await, Precondition::Missing(_)));
    let token = W::InsertToken(Box::new(token("u", "a")));
    assert!(matches!(refused(store, vec![token.into()]).await, Precondition::Missing(_)));
}

pub async fn a_principal_has_the_bindings_of_the_user_and_of_the_groups(store: &impl Store) {
    let blue = SpaceId::trusted("blue");
    let part = BindingScope::Part {
        space: blue.clone(),
        selector: Selector::Policies(vec![PolicyId::trusted("p"), PolicyId::trusted("q")]),
    };
    let own_role = role("own");
    let bindings = [
        of_user("b1", "a", BuiltIn::Helpdesk, part.clone()),
        binding("b2", Subject::User(UserId::trusted("a")), own_role.id.clone(), BindingScope::System),
        binding("b3", Subject::Group("ops".into()), BuiltIn::Auditor.id(), BindingScope::Space(blue.clone())),
        binding("b4", Subject::Group("other".into()), BuiltIn::Administrator.id(), BindingScope::System),
    ];
    let mut writes = vec![
        insert(&live("a")),
        W::InsertSpace(Box::new(space("blue"))).into(),
        W::InsertRole(Box::new(own_role.clone())).into(),
    ];
    writes.extend(bindings.iter().map(bind));
    writes.push(W::InsertToken(Box::new(token("t", "a"))).into());
    writes.push(W::InsertSession(Box::new(session("s", "a", &["ops", "it's \"quoted\""]))).into());
    commit(store, writes).await;

    let sorted = |mut all: Vec<Entitlement>| {
        all.sort_by_key(|one| format!("{one:?}"));
        all
    };
    let own = vec![
        Entitlement { privileges: BuiltIn::Helpdesk.privileges(), scope: part },
        Entitlement { privileges: own_role.privileges, scope: BindingScope::System },
    ];
    let group = Entitlement { privileges: BuiltIn::Auditor.privileges(), scope: BindingScope::Space(blue.clone()) };
    let (found, principal) = store.token_principal(&KeyId::trusted("key-t"), &blue).await.unwrap().unwrap();
    assert_eq!((found, principal.has_space, &principal.user), (token("t", "a"), true, &live("a")));
    assert_eq!(sorted(principal.entitlements), sorted(own.clone()));
    let (found, principal) =
        store.session_principal(&KeyId::trusted("s"), &SpaceId::trusted("red")).await.unwrap().unwrap();
    assert_eq!((found.groups.len(), principal.has_space), (2, false));
    assert_eq!(sorted(principal.entitlements), sorted([own, vec![group]].concat()));
    let of_a = store.bindings(Some(&UserId::trusted("a")), PAGE).await.unwrap();
    assert_eq!((of_a.items.as_slice(), of_a.total), (&bindings[..2], 2));
    assert_eq!(store.bindings(None, PAGE).await.unwrap().items, bindings);
}

pub async fn a_role_in_use_stays_and_a_changed_one_is_in_force_at_once(store: &impl Store) {
    let written = role("r");
    let bound = binding("b", Subject::User(UserId::trusted("a")), written.id.clone(), BindingScope::System);
    let insert_role = |role: &Role| -> Write { W::InsertRole(Box::new(role.clone())).into() };
    commit(store, vec![insert(&live("a")), insert_role(&written), bind(&bound)]).await;
    assert_eq!(store.role(&written.id).await.unwrap(), Some(written.clone()));
    let same_name = Role { id: RoleId::trusted("s"), ..written.clone() };
    assert_eq!(refused(store, vec![insert_role(&same_name)]).await, Precondition::NameTaken("Role r".into()));
    let lowered = Role { privileges: PrivilegeSet::default(), version: 2, ..written.clone() };
    let update = || vec![W::UpdateRole(Box::new(lowered.clone())).into()];
    commit(store, update()).await;
    let principal = store.user_principal("name-a", &SpaceId::default()).await.unwrap().unwrap();
    assert_eq!(principal.entitlements[0].privileges, PrivilegeSet::default());
    assert!(matches!(refused(store, update()).await, Precondition::Changed(_)));
    let delete = || vec![W::DeleteRole { id: RoleId::trusted("r") }.into()];
    assert!(matches!(refused(store, delete()).await, Precondition::InUse(_)));
    commit(store, vec![W::DeleteBinding { id: bound.id.clone() }.into()]).await;
    commit(store, delete()).await;
    assert_eq!(store.roles().await.unwrap(), []);
    assert!(matches!(refused(store, vec![bind(&bound)]).await, Precondition::Missing(_)), "a role that is gone");
}

pub async fn the_last_administrator_stays(store: &impl Store) {
    let everywhere = || BindingScope::System;
    let (first, second) = (
        of_user("b1", "a", BuiltIn::Administrator, everywhere()),
        of_user("b2", "b", BuiltIn::Administrator, everywhere()),
    );
    let service = User { kind: UserKind::ServiceAccount, ..live("s") };
    let writes = vec![
        insert(&live("a")),
        insert(&live("b")),
        insert(&service),
        bind(&first),
        bind(&second),
        bind(&of_user("b3", "s", BuiltIn::Administrator, everywhere())),
        bind(&binding("b4", Subject::Group("g".into()), BuiltIn::Administrator.id(), everywhere())),
        W::KeepsAdministrator.into(),
    ];
    commit(store, writes).await;
    let without = |write: W| vec![write.into(), W::KeepsAdministrator.into()];
    commit(store, without(W::DeleteBinding { id: first.id.clone() })).await;
    let ends = [
        W::DeleteBinding { id: second.id.clone() },
        W::DeleteUser { id: UserId::trusted("b") },
        W::UpdateUser(Box::new(User { locked_at: Some(at(1)), version: 2, ..live("b") })),
    ];
    for end in ends {
        assert_eq!(refused(store, without(end)).await, Precondition::LastAdministrator);
    }
    assert!(store.binding(&second.id).await.unwrap().is_some());
}

pub async fn tokens_are_revoked_used_and_listed_newest_first(store: &impl Store) {
    let old = token("old", "a");
    let new = ApiToken { created_at: at(5), expires_at: None, ..token("new", "a") };
    let other = token("other", "b");
    let mut writes = vec![insert(&live("a")), insert(&live("b"))];
    writes.extend([&old, &new, &other].map(|token| Write::from(W::InsertToken(Box::new(token.clone())))));
    commit(store, writes).await;
    let of_a = store.tokens(Some(&UserId::trusted("a")), PAGE).await.unwrap();
    assert_eq!((of_a.items, of_a.total), (vec![new.clone(), old.clone()], 2));
    assert_eq!(store.tokens(None, PAGE).await.unwrap().total, 3);
    let revoke = |now: Timestamp| vec![W::RevokeToken { id: old.id.clone(), now }.into()];
    commit(store, revoke(at(7))).await;
    commit(store, revoke(at(8))).await;
    let used = |now: Timestamp| vec![W::UseToken { id: old.id.clone(), now }.into()];
    commit(store, used(at(6))).await;
    commit(store, used(at(4))).await;
    let found = store.token(&old.id).await.unwrap().unwrap();
    assert_eq!((found.revoked_at, found.last_used_at), (Some(at(7)), Some(at(6))));
    let missing = W::RevokeToken { id: TokenId::trusted("none"), now: at(1) };
    assert!(matches!(refused(store, vec![missing.into()]).await, Precondition::Missing(_)));
    commit(store, vec![W::Expire { now: at(1), keep_tokens_from: at(8) }.into()]).await;
    assert_eq!(store.token(&old.id).await.unwrap(), None, "revoked before");
    assert!(store.token(&new.id).await.unwrap().is_some() && store.token(&other.id).await.unwrap().is_some());
}

pub async fn sessions_and_links_end(store: &impl Store) {
    let link = |key: &str| SetupLink {
        key_id: KeyId::trusted(key),
        hash: SecretHash([1; 32]),
        user: UserId::trusted("a"),
        expires_at: at(50),
    };
    let put_link = |key: &str| -> Write { W::InsertSetupLink(Box::new(link(key))).into() };
    let put = |key: &str| -> Write { W::InsertSession(Box::new(session(key, "a", &[]))).into() };
    commit(store, vec![insert(&live("a")), put("s1"), put("s2"), put_link("l1"), put_link("l2")]).await;
    let is_live =
        async |key: &str| store.session_principal(&KeyId::trusted(key), &SpaceId::default()).await.unwrap().is_some();
    let listed = async |user: &str, now: i64| {
        let found = store.sessions(&UserId::trusted(user), at(now)).await.unwrap();
        found.into_iter().map(|session| session.key_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed("a", 0).await, ["s1", "s2"]);
    assert!(listed("a", 50).await.is_empty() && listed("b", 0).await.is_empty());
    let used = |now: i64| vec![W::UseSession { key_id: KeyId::trusted("s2"), now: at(now) }.into()];
    commit(store, used(9)).await;
    commit(store, used(8)).await;
    let found = store.sessions(&UserId::trusted("a"), at(0)).await.unwrap();
    assert_eq!(found.iter().map(|one| one.last_used_at).collect::<Vec<_>>(), [None, Some(at(9))]);
    assert_eq!(found[0].address.as_deref(), Some("192.0.2.7"));
    let has_link = async |key: &str| store.setup_link(&KeyId::trusted(key)).await.unwrap().is_some();
    assert!(!has_link("l1").await && has_link("l2").await, "a new link replaces the one before");
    commit(store, vec![W::DeleteSession { key_id: KeyId::trusted("s1") }.into()]).await;
    assert!(!is_live("s1").await && is_live("s2").await);
    let use_link = || vec![W::UseSetupLink { key_id: KeyId::trusted("l2") }.into()];
    commit(store, use_link()).await;
    assert_eq!(refused(store, use_link()).await, Precondition::KeyRefused);
    commit(store, vec![put_link("l3"), W::EndSessions { user: UserId::trusted("a") }.into()]).await;
    assert!(!is_live("s2").await && !has_link("l3").await);
    commit(store, vec![put("s4"), put_link("l4")]).await;
    commit(store, vec![W::Expire { now: at(49), keep_tokens_from: at(0) }.into()]).await;
    assert!(is_live("s4").await && has_link("l4").await);
    commit(store, vec![W::Expire { now: at(50), keep_tokens_from: at(0) }.into()]).await;
    assert!(!is_live("s4").await && !has_link("l4").await);
}

pub async fn spaces_are_created_changed_and_deleted_when_empty(store: &impl Store) {
    let put = |space: &Space| vec![W::InsertSpace(Box::new(space.clone())).into()];
    let blue = space("blue");
    commit(store, put(&blue)).await;
    assert!(matches!(refused(store, put(&blue)).await, Precondition::Exists(_)));
    let update = |space: &Space| vec![W::UpdateSpace(Box::new(space.clone())).into()];
    let renamed = Space { name: "Renamed".into(), version: 2, ..blue.clone() };
    commit(store, update(&renamed)).await;
    assert!(matches!(refused(store, update(&renamed)).await, Precondition::Changed(_)));
    let default = Space { name: "Ours".into(), version: 1, ..Space::default_space() };
    commit(store, update(&default)).await;
    assert!(matches!(refused(store, update(&default)).await, Precondition::Changed(_)));
    assert_eq!(store.spaces().await.unwrap(), [renamed.clone(), default]);
    assert_eq!(store.space(&blue.id).await.unwrap(), Some(renamed));

    let bound = of_user("b", "a", BuiltIn::Auditor, BindingScope::Space(blue.id.clone()));
    commit(store, vec![insert(&live("a")), bind(&bound)]).await;
    let mut inside = policy("p");
    inside.space = blue.id.clone();
    commit(store, vec![muster_store::PolicyWrite::Insert(Box::new(inside)).into()]).await;
    let delete = || vec![W::DeleteSpace { id: blue.id.clone() }.into()];
    assert!(matches!(refused(store, delete()).await, Precondition::InUse(_)));
    let there = |id: &SpaceId| vec![W::HasSpace { id: id.clone() }.into()];
    commit(store, there(&blue.id)).await;
    commit(store, there(&SpaceId::default())).await;
    commit(store, vec![muster_store::PolicyWrite::Delete { id: PolicyId::trusted("p") }.into()]).await;
    let query = LiveQuery { space: blue.id.clone(), ..super::live_queries::query("q", 0) };
    let insert = LiveQueryWrite::Insert { query: Box::new(query.clone()), targets: Vec::new() };
    let run = ScriptRun { space: blue.id.clone(), ..super::scripts::run("r", 5, 0) };
    let installer = Installer { space: blue.id.clone(), ..super::installs::installer("i", "1") };
    commit(store, vec![insert.into(), super::scripts::insert_run(&run, &[])]).await;
    commit(store, vec![super::installs::insert_installer(&installer)]).await;
    assert!(matches!(refused(store, delete()).await, Precondition::InUse(_)), "an installer");
    commit(store, vec![muster_store::InstallerWrite::Delete { id: installer.id.clone(), now: at(9) }.into()]).await;
    commit(store, delete()).await;
    assert!(matches!(refused(store, there(&blue.id)).await, Precondition::Missing(_)));
    let found = HostRunStore::<ScriptWork>::run_in(store, &blue.id, &run.id).await.unwrap();
    assert_eq!(found, None, "nor scripts");
    let inherited = store.live_query_in(&blue.id, &query.id).await.unwrap();
    assert_eq!(inherited, None, "a new space with this id must not have it");
    assert_eq!(store.space(&blue.id).await.unwrap(), None);
    assert_eq!(store.binding(&bound.id).await.unwrap(), None);
    assert!(matches!(refused(store, delete()).await, Precondition::Missing(_)));
    assert!(matches!(refused(store, vec![bind(&bound)]).await, Precondition::Missing(_)), "a space that is gone");
}

pub async fn views_belong_to_a_person_and_a_space(store: &impl Store) {
    commit(store, vec![insert(&live("ann")), insert(&live("bob"))]).await;
    let red = SpaceId::trusted("red");
    let put = |user: &str, space: &SpaceId, name: &str, query: &str| -> Write {
        let (name, query) = (name.to_owned(), query.to_owned());
        W::PutView { user: UserId::trusted(user), space: space.clone(), name, query }.into()
    };
    let default = SpaceId::default();
    commit(
        store,
        vec![put("ann", &default, "b", "q=1"), put("ann", &default, "A", "q=2"), put("ann", &red, "b", "q=3")],
    )
    .await;
    commit(store, vec![put("ann", &default, "b", "q=4"), put("bob", &default, "b", "q=5")]).await;
    assert!(matches!(refused(store, vec![put("eve", &red, "b", "q=6")]).await, Precondition::Missing(_)));
    let of = async |user: &str, space: &SpaceId| store.views(&UserId::trusted(user), space).await.unwrap();
    let pair = |name: &str, query: &str| (name.to_owned(), query.to_owned());
    assert_eq!(of("ann", &default).await, [pair("A", "q=2"), pair("b", "q=4")]);
    let delete = W::DeleteView { user: UserId::trusted("ann"), space: red.clone(), name: "b".into() };
    commit(store, vec![delete.into(), W::DeleteUser { id: UserId::trusted("bob") }.into()]).await;
    assert!(of("ann", &red).await.is_empty() && of("bob", &default).await.is_empty());
    assert_eq!(of("ann", &default).await.len(), 2);
}
