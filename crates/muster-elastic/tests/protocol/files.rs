//! Files for agents (EA §7.3) and the PGP key (EA §7.4).

use muster_core::credential::SecretHash;
use muster_core::file::DeliverableFile;
use muster_core::id::{AgentId, FileId};
use muster_store::{FileWrite, Write};
use serde_json::json;

use crate::setting::{Ask, Enrolled, Got, Server, refused};

/// A server with a file of 25 bytes in three chunks for one agent.
async fn with_file() -> (Server, Enrolled) {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let bytes: Vec<u8> = (b'a'..=b'y').collect();
    let file = DeliverableFile {
        id: FileId::trusted("f"),
        name: "list.txt".into(),
        mime_type: "text/plain".into(),
        size: 25,
        sha256: "ab".repeat(32),
        agents: vec![AgentId::trusted(agent.id.as_str())],
        created_at: muster_core::time::Timestamp::from_micros(0),
    };
    let chunks = bytes.chunks(10).zip(0..).map(|(data, number)| {
        Write::File(FileWrite::PutChunk {
            file: file.id.clone(),
            number,
            sha256: SecretHash::of(data).0,
            data: data.to_vec(),
        })
    });
    server
        .commit(std::iter::once(Write::File(FileWrite::InsertFile(Box::new(file.clone())))).chain(chunks).collect())
        .await;
    (server, agent)
}

async fn fetch(server: &Server, agent: &Enrolled, range: Option<&str>) -> Got {
    let ask = Ask::get("/api/fleet/file/f").key(&agent.token);
    server.get(range.into_iter().fold(ask, |ask, range| ask.header("range", range))).await
}

#[tokio::test]
async fn ea135_a_whole_file_is_served_with_its_headers() {
    let (server, agent) = with_file().await;
    let got = fetch(&server, &agent, None).await;
    assert_eq!((got.status, got.body.as_slice()), (200, &b"abcdefghijklmnopqrstuvwxy"[..]));
    assert_eq!((got.header("content-type"), got.header("content-length")), ("text/plain", "25"));
    assert_eq!((got.header("x-file-sha2"), got.header("accept-ranges")), ("ab".repeat(32).as_str(), "bytes"));
}

#[tokio::test]
async fn ea135_ranges_are_served() {
    let (server, agent) = with_file().await;
    for (range, status, body, content_range) in [
        ("bytes=0-0", 206, "a", "bytes 0-0/25"),
        ("bytes=8-11", 206, "ijkl", "bytes 8-11/25"),
        ("bytes=20-", 206, "uvwxy", "bytes 20-24/25"),
        ("bytes=-3", 206, "wxy", "bytes 22-24/25"),
        ("bytes=20-99", 206, "uvwxy", "bytes 20-24/25"),
        ("bytes=0-24,0-24", 200, "abcdefghijklmnopqrstuvwxy", ""),
    ] {
        let got = fetch(&server, &agent, Some(range)).await;
        assert_eq!((got.status, got.body.as_slice()), (status, body.as_bytes()), "{range}");
        assert_eq!(got.header("content-range"), content_range, "{range}");
    }
    for (range, message) in [
        ("bytes=25-", "range not satisfiable"),
        ("bytes=5-4", "range not satisfiable"),
        ("lines=1-2", "range not satisfiable"),
        ("bytes=0-1,3-4", "Multipart ranges not satisfiable"),
    ] {
        let got = fetch(&server, &agent, Some(range)).await;
        assert_eq!(got.refusal(), refused(416, "ErrRangeNotSatisfiable"), "{range}");
        assert_eq!(
            (got.json()["message"].as_str(), got.header("content-range")),
            (Some(message), "bytes */25"),
            "{range}"
        );
    }
}

#[tokio::test]
async fn a_file_is_served_only_to_its_agents() {
    let (server, _) = with_file().await;
    let other = server.enrolled().await;
    assert_eq!(fetch(&server, &other, None).await.refusal(), refused(404, "ErrFileForDeliveryNotFound"));
    for id in ["nothing", "..%2Ff", "%00", &"x".repeat(4096)] {
        let got = server.get(Ask::get(&format!("/api/fleet/file/{id}")).key(&other.token)).await;
        assert_eq!(got.refusal(), refused(404, "ErrFileForDeliveryNotFound"));
    }
    let enrollment = server.enrollment_key("k", None).await;
    let got = server.get(Ask::get("/api/fleet/file/f").key(&enrollment)).await;
    assert_eq!(got.refusal(), refused(404, "AgentNotFound"));
}

#[tokio::test]
async fn library_files_are_only_for_their_product() {
    let (server, agent) = with_file().await;
    let ask = Ask::get("/api/fleet/file/f?source=scripts").key(&agent.token);
    assert_eq!(server.get(ask.clone()).await.refusal(), refused(403, "ErrClientFileForbidden"));
    let other = ask.clone().header("X-elastic-product-origin", "fleet");
    assert_eq!(server.get(other).await.refusal(), refused(403, "ErrClientFileForbidden"));
    let endpoint = ask.header("X-elastic-product-origin", "endpoint-security");
    assert_eq!(server.get(endpoint).await.refusal(), refused(404, "ErrFileForDeliveryNotFound"));
}

#[tokio::test]
async fn ea136_the_pgp_key_is_served_to_everybody_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("default.pgp");
    let server = Server::with(|options| options.pgp_key = Some(path.clone()), |_| {}).await;
    let ask = Ask::get("/api/agents/upgrades/9.5.2/pgp-public-key");
    assert_eq!(server.get(ask.clone()).await.refusal(), refused(404, "NotFound"));
    std::fs::write(&path, "-----BEGIN PGP PUBLIC KEY BLOCK-----").unwrap();
    let got = server.get(ask.clone()).await;
    assert_eq!((got.status, got.body.as_slice()), (200, &b"-----BEGIN PGP PUBLIC KEY BLOCK-----"[..]));
    assert_eq!(server.get(ask.plain_http()).await.refusal(), refused(501, "ErrTLSRequired"));
    for version in ["9.5", "latest", "9.5.2.1", "..%2f.."] {
        let got = server.get(Ask::get(&format!("/api/agents/upgrades/{version}/pgp-public-key"))).await;
        assert_eq!(got.refusal(), refused(400, "BadRequest"), "{version}");
    }
}

#[tokio::test]
async fn concurrent_downloads_are_limited_per_agent() {
    let (server, agent) = with_file().await;
    let ask = || Ask::get("/api/fleet/file/f").key(&agent.token);
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(server.ask(ask()).await);
    }
    assert_eq!(server.get(ask()).await.refusal(), refused(429, "MaxLimit"));
    let other = server.enrolled().await;
    let got = server.get(Ask::get("/api/fleet/file/f").key(&other.token)).await;
    assert_eq!(got.refusal(), refused(404, "ErrFileForDeliveryNotFound"), "its own share is not the matter");
    stalled.pop();
    // The sending task notices at its next chunk that the receiver is gone.
    let freed = async {
        loop {
            match server.get(ask()).await.status {
                429 => tokio::task::yield_now().await,
                status => return status,
            }
        }
    };
    assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(20), freed).await, Ok(200));
}

#[tokio::test]
async fn packages_are_served_to_every_muster_agent_and_to_no_other() {
    let server = Server::start().await;
    let name = "muster-agent-0.2.0-linux-x86_64.tar.gz";
    let file = |id: &str| DeliverableFile {
        id: FileId::trusted(id),
        name: id.into(),
        mime_type: "application/octet-stream".into(),
        size: 3,
        sha256: "ab".repeat(32),
        agents: Vec::new(),
        created_at: muster_core::time::Timestamp::from_micros(0),
    };
    for id in [name, "notes"] {
        let (sha256, data) = (SecretHash::of(b"abc").0, b"abc".to_vec());
        let chunk = FileWrite::PutChunk { file: FileId::trusted(id), number: 0, sha256, data };
        let inserted = FileWrite::InsertFile(Box::new(file(id)));
        server.commit(vec![Write::File(inserted), Write::File(chunk)]).await;
    }
    let token = server.enrollment_key("k", None).await;
    let metadata = json!({"elastic": {"agent": {"build.original": "9.5.0 (muster-agent 0.1.0)"}}});
    let ours = server.enroll_with(&token, &json!({"type": "PERMANENT", "metadata": {"local": metadata}})).await;
    let other = server.enroll_with(&token, &json!({"type": "PERMANENT"})).await;
    let fetch = |agent: &Enrolled, id: &str| Ask::get(&format!("/api/fleet/file/{id}")).key(&agent.token);
    let got = server.get(fetch(&ours, name).header("range", "bytes=1-5")).await;
    assert_eq!((got.status, got.body.as_slice(), got.header("content-range")), (206, &b"bc"[..], "bytes 1-2/3"));
    assert_eq!(server.get(fetch(&other, name)).await.status, 404, "an Elastic Agent has no use for it");
    assert_eq!(server.get(fetch(&ours, "notes")).await.status, 404, "not a package");
}
