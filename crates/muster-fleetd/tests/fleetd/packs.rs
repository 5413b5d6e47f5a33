//! Packs: which hosts get which scheduled queries.

use std::time::Duration;

use muster_core::ErrorKind;
use muster_core::authorization::{Actor, BindingScope, Entitlement, OpContext, PrivilegeName, PrivilegeSet};
use muster_core::id::SpaceId;
use muster_fleet::labels::LabelDraft;
use muster_fleet::packs::{PackDraft, ScopedPack};
use serde_json::{Value, json};

use crate::setting::{Server, UUID, osquery_enroll};

const OTHER: &str = "5C4C4544-0042-3510-8052-B7C04F584433";
const QUERIES: &str = "queries:\n  ports: {query: SELECT * FROM listening_ports, interval: 600}\n";

fn administrator(space: &str) -> OpContext {
    OpContext::administrator(Actor::System).in_space(SpaceId::trusted(space))
}

fn pack(name: &str) -> PackDraft {
    PackDraft { name: name.into(), document: QUERIES.into(), ..PackDraft::default() }
}

async fn save(server: &Server, space: &str, draft: PackDraft) -> ScopedPack {
    server.fleet.packs().save(&administrator(space), draft).await.expect("a valid pack")
}

async fn packs(server: &Server, key: &str) -> Vec<String> {
    let config = server.osquery("config", &json!({"node_key": key})).await.json();
    config["packs"].as_object().expect("packs").keys().cloned().collect()
}

#[tokio::test]
async fn fl15_packs_reach_the_hosts_of_their_space_or_of_all() {
    let server = Server::start().await;
    let (secret, blue) = (server.secret().await, server.secret_in("blue").await);
    let (here, there) = (server.osquery_key(&secret, UUID).await, server.osquery_key(&blue, OTHER).await);
    save(&server, "default", PackDraft { is_of_all: true, ..pack("Global") }).await;
    save(&server, "blue", pack("team-blue")).await;
    assert_eq!(packs(&server, &here).await, ["Global"]);
    assert_eq!(packs(&server, &there).await, ["Global", "team-blue"]);
    let etag = async || server.osquery("config", &json!({"node_key": there, "etag": ""})).await.json()["etag"].clone();
    let before = etag().await;
    let same = server.osquery("config", &json!({"node_key": there, "etag": before})).await;
    assert_eq!(same.text, r#"{"etag":"ok"}"#);
    let saved = save(&server, "blue", PackDraft { document: QUERIES.replace("600", "60"), ..pack("team-blue") }).await;
    assert_eq!(saved.pack.version, 2);
    assert_ne!(etag().await, before);
    let reserved = server.fleet.packs().save(&administrator("blue"), pack("team-red")).await.expect_err("reserved");
    assert_eq!(reserved.field.as_deref(), Some("name"));
    save(&server, "default", PackDraft { is_of_all: true, ..pack("shared") }).await;
    let taken = server.fleet.packs().save(&administrator("blue"), pack("Shared")).await.expect_err("taken");
    assert_eq!(taken.code, "pack_exists");
    server.fleet.packs().delete(&administrator("blue"), "team-blue").await.expect("deleted");
    assert_eq!(packs(&server, &there).await, ["Global", "shared"]);
}

#[tokio::test]
async fn packs_reach_hosts_with_their_platform_and_labels() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let linux = server.osquery_key(&secret, UUID).await;
    let mut body = osquery_enroll(&secret, OTHER);
    body["host_details"]["os_version"] = json!({"name": "macOS", "platform": "darwin"});
    let mac = server.osquery("enroll", &body).await.json()["node_key"].as_str().expect("a key").to_owned();
    let context = administrator("default");
    let draft = LabelDraft { name: Some("chosen".into()), ..LabelDraft::default() };
    let grant = context.grant().expect("an administrator");
    let label = server.fleet.labels().create(&grant, draft, &[]).await.expect("a label").label;
    let labels = |labels: &[&str]| labels.iter().map(ToString::to_string).collect::<Vec<_>>();
    save(&server, "default", PackDraft { platforms: labels(&["darwin"]), ..pack("mac") }).await;
    save(&server, "default", PackDraft { labels: labels(&["Chosen"]), ..pack("labelled") }).await;
    save(&server, "default", PackDraft { labels: labels(&["All Linux", "chosen"]), ..pack("either") }).await;
    assert_eq!(packs(&server, &linux).await, ["either"]);
    assert_eq!(packs(&server, &mac).await, ["mac"]);
    server.fleet.labels().add_hosts(&grant, label.id.as_str(), &[OTHER.into()]).await.expect("added");
    assert_eq!(packs(&server, &mac).await, ["either", "labelled", "mac"]);
    // Once the changes have arrived, which make this server forget what it knows.
    let mut is_cached = false;
    for _ in 0..100 {
        let reads = server.reads();
        assert_eq!(packs(&server, &mac).await.len(), 3);
        is_cached = server.reads() == reads;
        if is_cached {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_cached, "a request reads nothing");
    let in_use = server.fleet.labels().delete(&grant, label.id.as_str()).await.expect_err("in use");
    assert_eq!(in_use.code, "label_in_use");
    let unknown = PackDraft { labels: labels(&["none"]), ..pack("x") };
    assert_eq!(server.fleet.packs().save(&context, unknown).await.expect_err("no label").kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_pack_replaces_only_the_version_that_the_caller_has_seen() {
    let server = Server::start().await;
    let context = administrator("default");
    let expecting = |expected: i64, sql: &str| PackDraft {
        document: QUERIES.replace("listening_ports", sql),
        expected: Some(expected),
        ..pack("p")
    };
    save(&server, "default", expecting(0, "a")).await;
    let code = async |draft: PackDraft| server.fleet.packs().save(&context, draft).await.expect_err("refused").code;
    assert_eq!(code(expecting(0, "b")).await, "pack_exists");
    assert_eq!(save(&server, "default", expecting(1, "b")).await.pack.version, 2);
    assert_eq!(code(expecting(1, "c")).await, "pack_changed");
    assert_eq!(code(PackDraft { expected: Some(1), ..pack("gone") }).await, "pack_changed");
    assert_eq!(save(&server, "default", PackDraft { expected: None, ..expecting(1, "c") }).await.pack.version, 3);
}

#[tokio::test]
async fn a_pack_of_all_spaces_requires_the_privilege_in_all_of_them() {
    let server = Server::start().await;
    let privileges: PrivilegeSet = [PrivilegeName::OsqueryRead, PrivilegeName::OsqueryWrite].into_iter().collect();
    let scope = BindingScope::Space(SpaceId::default());
    let context = OpContext::entitled(Actor::Local { uid: 1 }, [Entitlement { privileges, scope }]);
    server.fleet.packs().save(&context, pack("own")).await.expect("its own space");
    let all = PackDraft { is_of_all: true, ..pack("all") };
    let refused = server.fleet.packs().save(&context, all.clone()).await.expect_err("not everywhere");
    assert_eq!(refused.kind, ErrorKind::Forbidden);
    save(&server, "default", all).await;
    let listed = server.fleet.packs().list(&context.grant().expect("may read")).await.expect("a list");
    let listed: Vec<(Value, bool)> = listed.iter().map(|one| (one.pack.name.clone().into(), one.is_of_all)).collect();
    assert_eq!(listed, [("all".into(), true), ("own".into(), false)]);
    let refused = server.fleet.packs().delete(&context, "all").await.expect_err("not everywhere");
    assert_eq!(refused.kind, ErrorKind::Forbidden);
    assert_eq!(server.audited().await.iter().filter(|action| *action == "pack.save").count(), 2);
}
