//! Uninstall tokens.

use muster_core::id::{PolicyId, SpaceId, UninstallTokenId};
use muster_core::policy::Policy;
use muster_core::uninstall_token::UninstallToken;
use muster_store::query::TokenSearch;
use muster_store::{PolicyWrite, Precondition, Store, UninstallTokenWrite, Write};

use super::sample::*;

fn token(id: &str, policy: &str, number: i64) -> UninstallToken {
    UninstallToken {
        id: UninstallTokenId::trusted(id),
        space: SpaceId::default(),
        policy_id: PolicyId::trusted(policy),
        number,
        hash: format!("hash of {id}"),
        sealed: b"\0sealed".to_vec(),
        created_at: at(number),
    }
}

fn insert(token: &UninstallToken) -> Write {
    UninstallTokenWrite::Insert(Box::new(token.clone())).into()
}

async fn listed(store: &impl Store, search: &TokenSearch) -> Vec<(String, Option<String>)> {
    let found = store.uninstall_tokens(&SpaceId::default(), search).await.unwrap();
    found.into_iter().map(|row| (row.id.to_string(), row.policy_name)).collect()
}

pub async fn the_newest_token_of_each_policy_is_listed(store: &impl Store) {
    let named = Policy { is_managed: false, name: "Web".into(), ..policy("p") };
    let hidden = Policy { is_managed: true, name: "Managed".into(), ..policy("m") };
    commit(store, [named, hidden].map(|policy| PolicyWrite::Insert(Box::new(policy)).into()).into()).await;
    let elsewhere = UninstallToken { space: SpaceId::trusted("red"), ..token("r", "red", 1) };
    let tokens =
        [token("p1", "p", 1), token("p2", "p", 2), token("gone", "deleted", 1), token("m1", "m", 1), elsewhere];
    commit(store, tokens.iter().map(insert).collect()).await;
    let expected = [("p2".to_owned(), Some("Web".to_owned())), ("gone".to_owned(), None)];
    assert_eq!(listed(store, &TokenSearch::All).await, expected);
    assert_eq!(store.uninstall_token(&tokens[0].id).await.unwrap().as_ref(), Some(&tokens[0]), "a former one");
    let newest = store.newest_uninstall_token(&PolicyId::trusted("p")).await.unwrap();
    assert_eq!(newest.as_ref(), Some(&tokens[1]));
    assert_eq!(store.newest_uninstall_token(&PolicyId::trusted("none")).await.unwrap(), None);
}

pub async fn mg82_tokens_are_found_by_policy_id_and_name(store: &impl Store) {
    let named = Policy { is_managed: false, name: "Mail_100%!".into(), ..policy("POL-1") };
    commit(store, vec![PolicyWrite::Insert(Box::new(named)).into(), insert(&token("a", "POL-1", 1))]).await;
    commit(store, vec![insert(&token("b", "pol_2", 1))]).await;
    let found = async |search| {
        let mut found: Vec<_> = listed(store, &search).await.into_iter().map(|(id, _)| id).collect();
        found.sort_unstable();
        found
    };
    let by_name = |part: &str| TokenSearch::PolicyIdOrName(part.into());
    assert_eq!(found(by_name("pol")).await, ["a", "b"]);
    assert_eq!(found(by_name("MAIL")).await, ["a"]);
    assert_eq!(found(by_name("%!")).await, ["a"]);
    assert_eq!(found(by_name("_")).await, ["a", "b"], "of the name and of the id");
    assert_eq!(found(TokenSearch::PolicyId("_".into())).await, ["b"]);
    assert_eq!(found(TokenSearch::PolicyId("mail".into())).await, Vec::<String>::new());
}

pub async fn a_number_is_taken_once(store: &impl Store) {
    commit(store, vec![insert(&token("a", "p", 1))]).await;
    assert!(matches!(refused(store, vec![insert(&token("b", "p", 1))]).await, Precondition::Exists(_)));
    commit(store, vec![insert(&token("b", "p", 2))]).await;
}
