//! Servers over one PostgreSQL database, each with a data directory of its own.

use muster_store::testing::Cluster;
use serde_json::Value;

use super::*;

/// The URL of an empty database.
async fn database() -> String {
    let schema = || Cluster::shared().address(&Cluster::shared().schema());
    tokio::task::spawn_blocking(schema).await.unwrap()
}

/// A server's directory, and its settings.
fn server(database: &str, more: &[&str]) -> (tempfile::TempDir, Config) {
    let directory = tempfile::tempdir().unwrap();
    let database = format!("database={database}");
    let settings = config(&directory, &[&[database.as_str()], more].concat());
    (directory, settings)
}

fn copy_key(from: &Config, to: &Config) {
    fs_err::create_dir_all(&to.data_dir).unwrap();
    fs_err::copy(from.data_dir.join("master.key"), to.data_dir.join("master.key")).unwrap();
}

async fn hosts_and_revision(server: &Server) -> (Value, i64) {
    let context = OpContext::administrator(Actor::System);
    let policy = server.fleet.policies().find_by_name(&context, "Default policy").await.unwrap();
    let newest = server.fleet.policies().revision(&policy, policy.revision).await.unwrap();
    (newest.compiled["fleet"]["hosts"].clone(), newest.revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn second_server_needs_the_database_and_the_master_key_only() {
    let database = database().await;
    let (_one, first) = server(&database, &[]);
    let (_two, second) = server(&database, &[]);
    let one = Server::start(&first).await.unwrap();
    let told = Server::start(&second).await.err().expect("it has no master key").to_string();
    assert!(told.contains("the database contains a fleet, but") && told.contains("copy master.key"), "{told}");
    copy_key(&first, &second);
    let two = Server::start(&second).await.unwrap();
    assert_eq!(one.first_start.ca_fingerprint, two.first_start.ca_fingerprint);
    assert_eq!(one.first_start.installation, two.first_start.installation);
    assert_eq!(two.first_start.enrollment_token, None, "there is one default policy");
    // The test's client trusts the file that the server wrote.
    assert!(agent(&two, "/api/status").await.contains("HEALTHY"));
    let nodes = one.fleet.nodes().list(&OpContext::administrator(Actor::System).grant().unwrap()).await.unwrap();
    assert_eq!(nodes.live.len(), 2);
    assert!(nodes.live.iter().all(|node| !node.version.is_empty() && node.addresses.len() == 1), "{nodes:?}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn external_url_of_one_server_is_used_by_all_and_their_certificates_cover_it() {
    let database = database().await;
    let (_one, first) = server(&database, &[]);
    let (_two, second) = server(&database, &["external_url=https://fleet.example:8220"]);
    let one = Server::start(&first).await.unwrap();
    let (own, revision) = hosts_and_revision(&one).await;
    assert_eq!((own.as_array().unwrap().len(), revision), (1, 1));
    copy_key(&first, &second);
    let certificate = || fs_err::read(first.data_dir.join("server.crt")).unwrap();
    let before = certificate();
    let two = Server::start(&second).await.unwrap();
    let shared = (serde_json::json!(["https://fleet.example:8220"]), 2);
    assert_eq!(hosts_and_revision(&one).await, shared);
    let renewed = async || {
        while certificate() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed()).await.expect("the running server learns of the new host");
    one.stop().await;
    let one = Server::start(&first).await.unwrap();
    assert_eq!(hosts_and_revision(&one).await, shared, "a server without the key changes nothing");
    assert_eq!(one.fleet.urls().first().as_deref(), Some("https://fleet.example:8220"));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_server_is_not_ready_and_closes_its_connections() {
    let database = database().await;
    let (_one, first) = server(&database, &[]);
    let (_two, second) = server(&database, &[]);
    let one = Server::start(&first).await.unwrap();
    copy_key(&first, &second);
    let two = Server::start(&second).await.unwrap();
    let context = OpContext::administrator(Actor::System);
    let nodes = two.fleet.nodes().list(&context.grant().unwrap()).await.unwrap();
    let other = nodes.live.iter().find(|node| node.id != nodes.this).unwrap().id.clone();
    two.fleet.nodes().drain(&two.fleet.nodes().find(&context, other.as_str()).await.unwrap()).await.unwrap();
    let drains = async || {
        while !admin(&one, "/readyz").await.contains("draining") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), drains()).await.expect("it is told");
    let mut stream = agent_stream(&one).await;
    stream.write_all(b"GET /api/status HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut status = String::new();
    // To the end: the server closes the connection although the client would keep it.
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut status));
    read.await.expect("the connection is closed").unwrap();
    assert!(status.starts_with("HTTP/1.1 404"), "{status}");
    assert!(admin(&two, "/readyz").await.ends_with("ok\n"));
    one.stop().await;
    two.stop().await;
}
