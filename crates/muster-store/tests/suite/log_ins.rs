//! OpenID providers, completed logins, and logins of devices.

use muster_core::authorization::{BindingScope, BuiltIn, PrivilegeName};
use muster_core::credential::SecretHash;
use muster_core::id::{KeyId, ProviderId, SpaceId, TokenId, UserId};
use muster_core::identity::{
    ApiToken, Approval, Decision, DeviceLogIn, FederatedId, Login, MOST_DEVICE_LOG_INS, NewUsers, OidcProvider,
    OidcSettings, Subject, User, UserCode,
};
use muster_store::{IdentityWrite as W, LogInWrite, Precondition, Store, Write};

use super::identity::{binding, live, session, token};
use super::sample::*;

fn provider(id: &str) -> OidcProvider {
    OidcProvider {
        id: ProviderId::trusted(id),
        issuer: "https://id.example".into(),
        settings: OidcSettings {
            client_id: "muster".into(),
            url: "https://fleet.example".into(),
            scopes: vec!["openid".into(), "groups".into()],
            user_name_claim: "preferred_username".into(),
            groups_claim: "groups".into(),
            group_prefix: "corp:".into(),
            new_users: NewUsers::Create,
        },
        sealed_secret: Some(vec![1, 2, 3]),
        version: 1,
        created_at: at(1),
        updated_at: at(2),
    }
}

pub async fn a_provider_comes_back_and_changes_start_from_the_newest(store: &impl Store) {
    let (written, public) = (provider("corp"), OidcProvider { sealed_secret: None, ..provider("b") });
    let insert = |one: &OidcProvider| -> Write { W::InsertProvider(Box::new(one.clone())).into() };
    commit(store, vec![insert(&written), insert(&public)]).await;
    assert_eq!(store.oidc_provider(&written.id).await.unwrap().as_ref(), Some(&written));
    assert_eq!(store.oidc_providers().await.unwrap(), [public, written.clone()]);
    assert!(matches!(refused(store, vec![insert(&written)]).await, Precondition::Exists(_)));
    let changed = OidcProvider { version: 2, sealed_secret: None, updated_at: at(9), ..written.clone() };
    let update = || vec![W::UpdateProvider(Box::new(changed.clone())).into()];
    commit(store, update()).await;
    assert_eq!(store.oidc_provider(&written.id).await.unwrap(), Some(changed.clone()));
    assert!(matches!(refused(store, update()).await, Precondition::Changed(_)));
}

pub async fn a_deleted_provider_ends_the_sessions_and_tokens_of_its_users(store: &impl Store) {
    let other = User {
        federated: Some(FederatedId { issuer: "https://other.example".into(), subject: "s".into() }),
        ..live("b")
    };
    let with_groups = |id: &str, owner: &str| ApiToken { groups: vec!["ops".into()], ..token(id, owner) };
    commit(
        store,
        vec![
            W::InsertProvider(Box::new(provider("corp"))).into(),
            W::InsertUser(Box::new(live("a"))).into(),
            W::InsertUser(Box::new(other)).into(),
            W::InsertSession(Box::new(session("s-a", "a", &["ops"]))).into(),
            W::InsertSession(Box::new(session("s-b", "b", &["ops"]))).into(),
            W::InsertToken(Box::new(with_groups("t-a", "a"))).into(),
            W::InsertToken(Box::new(token("own", "a"))).into(),
            W::InsertToken(Box::new(with_groups("t-b", "b"))).into(),
        ],
    )
    .await;
    let (id, issuer) = (ProviderId::trusted("corp"), "https://id.example".to_owned());
    let delete = || vec![W::DeleteProvider { id: id.clone(), issuer: issuer.clone(), now: at(9) }.into()];
    commit(store, delete()).await;
    let space = SpaceId::default();
    assert!(store.session_principal(&KeyId::trusted("s-a"), &space).await.unwrap().is_none());
    assert!(store.session_principal(&KeyId::trusted("s-b"), &space).await.unwrap().is_some());
    let revoked = async |id: &str| store.token(&TokenId::trusted(id)).await.unwrap().unwrap().revoked_at;
    assert_eq!((revoked("t-a").await, revoked("own").await, revoked("t-b").await), (Some(at(9)), None, None));
    assert!(matches!(refused(store, delete()).await, Precondition::Missing(_)));
}

pub async fn mg165_a_token_has_the_rights_of_its_groups(store: &impl Store) {
    let bound = binding("b", Subject::Group("ops".into()), BuiltIn::Auditor.id(), BindingScope::System);
    let in_group = ApiToken { groups: vec!["ops".into()], ..token("t", "a") };
    let writes = vec![
        W::InsertUser(Box::new(live("a"))).into(),
        W::InsertBinding(Box::new(bound)).into(),
        W::InsertToken(Box::new(in_group.clone())).into(),
    ];
    commit(store, writes).await;
    let found = store.token_principal(&in_group.key_id, &SpaceId::default()).await.unwrap().unwrap();
    assert_eq!((&found.0, found.1.entitlements.len()), (&in_group, 1));
    assert_eq!(found.1.entitlements[0].privileges, BuiltIn::Auditor.privileges());
}

pub async fn a_subject_belongs_to_one_user(store: &impl Store) {
    let taken = User { version: 2, federated: live("a").federated, ..live("b") };
    commit(store, vec![W::InsertUser(Box::new(live("a"))).into(), W::InsertUser(Box::new(live("b"))).into()]).await;
    let update = vec![W::UpdateUser(Box::new(taken)).into()];
    assert!(matches!(refused(store, update).await, Precondition::Exists(_)));
}

pub async fn a_log_in_is_completed_once(store: &impl Store) {
    let complete = |state: &str| vec![LogInWrite::Complete { state: state.into(), expires_at: at(10) }.into()];
    commit(store, complete("x")).await;
    assert_eq!(refused(store, complete("x")).await, Precondition::KeyRefused);
    commit(store, complete("y")).await;
    commit(store, vec![W::Expire { now: at(11), keep_tokens_from: at(0) }.into()]).await;
    commit(store, complete("x")).await;
}

fn device(id: &str, code: &str) -> DeviceLogIn {
    DeviceLogIn {
        key_id: KeyId::trusted(id),
        hash: SecretHash([3; 32]),
        user_code: UserCode::parse(code).unwrap(),
        device: "laptop".into(),
        address: Some("192.0.2.9".into()),
        decision: None,
        created_at: at(1),
        expires_at: at(20),
    }
}

fn insert(one: &DeviceLogIn) -> Vec<Write> {
    vec![LogInWrite::InsertDevice(Box::new(one.clone())).into()]
}

pub async fn a_device_is_decided_once_and_taken_once(store: &impl Store) {
    let (first, second) = (device("k1", "BCDF-GHJK"), DeviceLogIn { address: None, ..device("k2", "BCDF-GHJL") });
    commit(store, vec![W::InsertUser(Box::new(live("a"))).into()]).await;
    commit(store, insert(&first)).await;
    commit(store, insert(&second)).await;
    assert!(matches!(refused(store, insert(&device("k3", "BCDF-GHJK"))).await, Precondition::Exists(_)));
    let approval = Approval {
        user: UserId::trusted("a"),
        privileges: [PrivilegeName::AgentsRead].into_iter().collect(),
        groups: vec!["ops".into()],
        expires_at: at(50),
        login: Login::Session(KeyId::trusted("s")),
    };
    let decide = |one: &DeviceLogIn, decision: &Decision| -> Vec<Write> {
        vec![LogInWrite::DecideDevice { user_code: one.user_code.clone(), decision: decision.clone() }.into()]
    };
    let approved = Decision::Approved(approval.clone());
    let of_nobody = Decision::Approved(Approval { user: UserId::trusted("x"), ..approval });
    assert!(matches!(refused(store, decide(&first, &of_nobody)).await, Precondition::Missing(_)));
    commit(store, decide(&first, &approved)).await;
    commit(store, decide(&second, &Decision::Denied)).await;
    for one in [&first, &second] {
        assert_eq!(refused(store, decide(one, &approved)).await, Precondition::KeyRefused);
    }
    let found = store.device_by_key(&first.key_id).await.unwrap();
    assert_eq!(found, Some(DeviceLogIn { decision: Some(approved), ..first.clone() }));
    let found = store.device_by_code(&second.user_code).await.unwrap();
    assert_eq!(found, Some(DeviceLogIn { decision: Some(Decision::Denied), ..second }));
    let take = || vec![LogInWrite::TakeDevice { key_id: first.key_id.clone() }.into()];
    commit(store, take()).await;
    assert_eq!(refused(store, take()).await, Precondition::KeyRefused);
}

pub async fn log_ins_of_devices_are_bounded_and_those_that_ended_make_room(store: &impl Store) {
    const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
    let numbered = |number: u64| {
        let letter = |place: u32| char::from(LETTERS[(number / 20u64.pow(place) % 20) as usize]);
        device(&format!("k{number}"), &(0..8).map(letter).collect::<String>())
    };
    let all: Vec<Write> = (0..MOST_DEVICE_LOG_INS).flat_map(|number| insert(&numbered(number))).collect();
    commit(store, all).await;
    let one_more = numbered(MOST_DEVICE_LOG_INS);
    assert!(matches!(refused(store, insert(&one_more)).await, Precondition::InUse(_)));
    let later = DeviceLogIn { created_at: at(21), expires_at: at(40), ..one_more };
    commit(store, insert(&later)).await;
    assert_eq!(store.device_by_key(&KeyId::trusted("k0")).await.unwrap(), None);
}
