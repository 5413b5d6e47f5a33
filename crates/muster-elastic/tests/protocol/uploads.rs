//! Uploads from agents (EA §7.2).

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use muster_core::file::FileStatus;
use muster_core::hex;
use muster_core::id::FileId;
use serde_json::{Value, json};

use crate::setting::{Ask, Enrolled, Got, Server, refused};

const CHUNK: usize = 4_194_304;
const PATH: &str = "/api/fleet/uploads";

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

fn request(agent: &Enrolled, size: usize) -> Value {
    json!({
        "action_id": "diagnose", "agent_id": agent.id, "src": "agent", "contents": null,
        "file": {"size": size, "name": "../../etc/passwd\u{1b}[31m.zip", "ext": "zip", "mime_type": "application/zip",
                 "hash": {"sha256": "", "md5": ""}},
    })
}

async fn begin(server: &Server, agent: &Enrolled, body: &Value) -> Got {
    server.get(Ask::post(PATH).key(&agent.token).json(body)).await
}

async fn begun(server: &Server, agent: &Enrolled, size: usize) -> String {
    let got = begin(server, agent, &request(agent, size)).await;
    assert_eq!(got.status, 200, "{got:?}");
    got.json()["upload_id"].as_str().expect("an id").to_owned()
}

async fn chunk(server: &Server, agent: &Enrolled, id: &str, number: &str, bytes: &[u8]) -> Got {
    let ask = Ask::put(&format!("{PATH}/{id}/{number}")).key(&agent.token);
    server.get(ask.header("X-Chunk-Sha2", hex::encode(&sha256(bytes))).body(bytes.to_vec())).await
}

async fn complete(server: &Server, agent: &Enrolled, id: &str, hash: &str) -> Got {
    let body = json!({"transithash": {"sha256": hash}});
    server.get(Ask::post(&format!("{PATH}/{id}")).key(&agent.token).json(&body)).await
}

fn transit(chunks: &[&[u8]]) -> String {
    hex::encode(&sha256(&chunks.iter().flat_map(|chunk| sha256(chunk)).collect::<Vec<_>>()))
}

#[tokio::test]
async fn ea128_ea131_ea132_ea133_chunks_are_accepted_in_any_order() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let (one, two, three) = (vec![1; CHUNK], vec![2; CHUNK], vec![3; 100]);
    let got = begin(&server, &agent, &request(&agent, 2 * CHUNK + 100)).await;
    assert_eq!((got.status, &got.json()["chunk_size"]), (200, &json!(CHUNK)));
    let id = got.json()["upload_id"].as_str().unwrap().to_owned();
    for (number, bytes) in [("2", &three), ("0", &one), ("1", &two)] {
        let got = chunk(&server, &agent, &id, number, bytes).await;
        assert_eq!((got.status, got.body.len()), (200, 0), "{got:?}");
    }
    let hash = transit(&[&one, &two, &three]);
    let got = complete(&server, &agent, &id, &hash.to_uppercase()).await;
    assert_eq!((got.status, got.json()), (200, json!({"status": "ok"})));
    let stored = server.fleet.store().upload(&FileId::trusted(id.as_str())).await.unwrap().unwrap();
    assert_eq!((stored.status, stored.transit_hash.as_deref()), (FileStatus::Ready, Some(hash.as_str())));
    assert_eq!(chunk(&server, &agent, &id, "0", &one).await.refusal(), refused(400, "ErrUploadStopped"));
    // D6: a completion whose response was lost is repeated.
    assert_eq!(complete(&server, &agent, &id, &hash).await.status, 200);
    assert_eq!(complete(&server, &agent, &id, &transit(&[])).await.refusal(), refused(400, "ErrStatusNoUploads"));
}

#[tokio::test]
async fn d6_repeated_begins_and_chunks_change_nothing() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let id = begun(&server, &agent, 10).await;
    assert_eq!(begun(&server, &agent, 10).await, id);
    for _ in 0..3 {
        assert_eq!(chunk(&server, &agent, &id, "0", b"0123456789").await.status, 200);
    }
    let chunks = server.fleet.store().chunks(&FileId::trusted(id.as_str())).await.unwrap();
    assert_eq!(chunks.len(), 1);
    assert_eq!(complete(&server, &agent, &id, &transit(&[b"0123456789"])).await.status, 200);
    // Another file for the same action is another upload.
    let got = begin(&server, &agent, &request(&agent, 11)).await;
    assert_eq!(got.refusal(), refused(400, "ErrStatusNoUploads"));
}

#[tokio::test]
async fn d6_concurrent_begins_create_one_upload() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let (one, two) = tokio::join!(begun(&server, &agent, 10), begun(&server, &agent, 10));
    assert_eq!(one, two);
}

#[tokio::test]
async fn ea129_uploads_belong_to_their_agent() {
    let server = Server::start().await;
    let (agent, other) = (server.enrolled().await, server.enrolled().await);
    let got = begin(&server, &other, &request(&agent, 10)).await;
    assert_eq!(got.refusal(), refused(403, "ErrAgentIdentity"));
    let id = begun(&server, &agent, 10).await;
    assert_eq!(chunk(&server, &other, &id, "0", b"0123456789").await.refusal(), refused(403, "ErrAgentIdentity"));
    assert_eq!(complete(&server, &other, &id, "00").await.refusal(), refused(403, "ErrAgentIdentity"));
}

#[tokio::test]
async fn ea130_d8_begin_requires_valid_fields() {
    let server = Server::with(|options| options.uploads.max_bytes = 1000, |_| {}).await;
    let agent = server.enrolled().await;
    for (pointer, value, word) in [
        ("/file/name", json!(""), "ErrFieldRequired"),
        ("/file/name", json!("  "), "ErrFieldRequired"),
        ("/file/mime_type", json!(null), "ErrFieldRequired"),
        ("/action_id", json!(""), "ErrFieldRequired"),
        ("/action_id", json!("../x"), "ErrFieldRequired"),
        ("/src", json!(""), "ErrFieldRequired"),
        ("/src", json!("../../secret"), "ErrFieldRequired"),
        ("/src", json!("AGENT"), "ErrFieldRequired"),
        ("/agent_id", json!(""), "ErrAgentIDMissing"),
        ("/agent_id", json!(null), "ErrAgentIDMissing"),
        ("/file/size", json!(null), "ErrFileSizeRequired"),
        ("/file/size", json!(0), "ErrInvalidFileSize"),
        ("/file/size", json!(-1), "ErrInvalidFileSize"),
        ("/file/size", json!(1001), "ErrFileSizeTooLarge"),
        ("/file/size", json!("10"), "BadRequest"),
    ] {
        let mut body = request(&agent, 10);
        *body.pointer_mut(pointer).unwrap() = value.clone();
        assert_eq!(begin(&server, &agent, &body).await.refusal(), refused(400, word), "{pointer} {value}");
    }
    let got = server.get(Ask::post(PATH).key(&agent.token)).await;
    assert_eq!(got.refusal(), refused(400, "ErrFileInfoBodyRequired"));
    assert_eq!(
        begin(&server, &agent, &json!({"agent_id": agent.id})).await.refusal(),
        refused(400, "ErrFieldRequired")
    );
}

#[tokio::test]
async fn ea20_oversized_begins_and_completions_are_413_and_chunks_400() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let mut body = request(&agent, 10);
    body["contents"] = json!("x".repeat(5 << 20));
    assert_eq!(begin(&server, &agent, &body).await.refusal(), refused(413, "ErrPayloadSizeTooLarge"));
    let id = begun(&server, &agent, 10).await;
    let got = complete(&server, &agent, &id, &"0".repeat(1024)).await;
    assert_eq!(got.refusal(), refused(413, "ErrPayloadSizeTooLarge"));
    let large = for_action(&agent, "large", 2 * CHUNK);
    let id = begin(&server, &agent, &large).await.json()["upload_id"].as_str().unwrap().to_owned();
    let got = chunk(&server, &agent, &id, "0", &vec![0; CHUNK + 1]).await;
    assert_eq!(got.refusal(), refused(400, "BadRequest"));
}

#[tokio::test]
async fn ea131_a_chunk_with_another_hash_or_number_is_refused() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let id = begun(&server, &agent, 10).await;
    let path = format!("{PATH}/{id}/0");
    let ask = || Ask::put(&path).key(&agent.token).body("0123456789");
    assert_eq!(server.get(ask()).await.refusal(), refused(400, "BadRequest"));
    assert_eq!(server.get(ask().header("x-chunk-sha2", "zz")).await.refusal(), refused(400, "BadRequest"));
    let wrong = server.get(ask().header("x-chunk-sha2", "0".repeat(64))).await;
    assert_eq!(wrong.refusal(), refused(400, "ErrHashMismatch"));
    assert!(server.fleet.store().chunks(&FileId::trusted(id.as_str())).await.unwrap().is_empty());
    let upper = ask().header("x-chunk-sha2", hex::encode(&sha256(b"0123456789")).to_uppercase());
    assert_eq!(server.get(upper).await.status, 200);
    for number in ["1", "-1", "9223372036854775807"] {
        assert_eq!(chunk(&server, &agent, &id, number, b"x").await.refusal(), refused(400, "ErrInvalidChunkNum"));
    }
    for number in ["x", "0x1", "99999999999999999999", "%00"] {
        assert_eq!(chunk(&server, &agent, &id, number, b"x").await.refusal(), refused(400, "BadRequest"), "{number}");
    }
}

#[tokio::test]
async fn ea132_a_failed_completion_closes_the_upload_and_removes_its_chunks() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let id = begun(&server, &agent, 10).await;
    assert_eq!(complete(&server, &agent, &id, "").await.refusal(), refused(400, "TransitHashRequired"));
    assert_eq!(complete(&server, &agent, &id, "00").await.refusal(), refused(400, "ErrMissingChunks"));
    assert_eq!(chunk(&server, &agent, &id, "0", b"0123456789").await.status, 200);
    assert_eq!(complete(&server, &agent, &id, &transit(&[b"x"])).await.refusal(), refused(400, "ErrFailValidation"));
    assert!(server.fleet.store().chunks(&FileId::trusted(id.as_str())).await.unwrap().is_empty());
    assert_eq!(chunk(&server, &agent, &id, "0", b"0123456789").await.refusal(), refused(400, "ErrUploadStopped"));
    let good = transit(&[b"0123456789"]);
    assert_eq!(complete(&server, &agent, &id, &good).await.refusal(), refused(400, "ErrStatusNoUploads"));
}

#[tokio::test]
async fn ea134_an_upload_expires_after_a_day() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let id = begun(&server, &agent, 10).await;
    server.clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(chunk(&server, &agent, &id, "0", b"0123456789").await.status, 200);
    server.clock.advance(Duration::from_secs(2));
    assert_eq!(chunk(&server, &agent, &id, "0", b"0123456789").await.refusal(), refused(400, "ErrUploadExpired"));
    assert_eq!(complete(&server, &agent, &id, "00").await.refusal(), refused(400, "ErrUploadExpired"));
}

#[tokio::test]
async fn d6_a_failed_upload_can_be_restarted() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let failed = begun(&server, &agent, 10).await;
    assert_eq!(chunk(&server, &agent, &failed, "0", b"0123456789").await.status, 200);
    assert_eq!(
        complete(&server, &agent, &failed, &transit(&[b"x"])).await.refusal(),
        refused(400, "ErrFailValidation")
    );
    let next = begun(&server, &agent, 11).await;
    assert_ne!(next, failed);
    assert_eq!(begun(&server, &agent, 11).await, next, "the same again is the same");
    assert_eq!(chunk(&server, &agent, &failed, "0", b"0123456789").await.refusal(), refused(400, "ErrInvalidFileID"));
    assert_eq!(chunk(&server, &agent, &next, "0", b"0123456789a").await.status, 200);
    assert_eq!(complete(&server, &agent, &next, &transit(&[b"0123456789a"])).await.status, 200);
}

#[tokio::test]
async fn ea134_an_expired_upload_can_be_restarted() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let expired = begun(&server, &agent, 10).await;
    assert_eq!(chunk(&server, &agent, &expired, "0", b"0123456789").await.status, 200);
    server.clock.advance(Duration::from_secs(24 * 3600 + 1));
    let (one, two) = tokio::join!(begun(&server, &agent, 10), begun(&server, &agent, 10));
    assert!(one == two && one != expired);
    assert!(server.fleet.store().chunks(&FileId::trusted(expired.as_str())).await.unwrap().is_empty());
    assert_eq!(chunk(&server, &agent, &one, "0", b"0123456789").await.status, 200);
    assert_eq!(complete(&server, &agent, &one, &transit(&[b"0123456789"])).await.status, 200);
    assert_eq!(begin(&server, &agent, &request(&agent, 10)).await.refusal(), refused(400, "ErrStatusNoUploads"));
}

#[tokio::test]
async fn unknown_uploads_are_400() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for id in ["nothing", "..%2F..%2Fetc", "%00", &"x".repeat(4096)] {
        assert_eq!(chunk(&server, &agent, id, "0", b"x").await.refusal(), refused(400, "ErrInvalidFileID"));
        assert_eq!(complete(&server, &agent, id, "00").await.refusal(), refused(400, "ErrInvalidFileID"));
    }
}

#[tokio::test]
async fn uploads_can_be_disabled() {
    let server = Server::with(|options| options.uploads.max_bytes = 0, |_| {}).await;
    let agent = server.enrolled().await;
    let got = begin(&server, &agent, &request(&agent, 10)).await;
    assert_eq!(got.refusal(), refused(403, "ErrFileFeatureDisable"));
}

fn for_action(agent: &Enrolled, action: &str, size: usize) -> Value {
    let mut body = request(agent, size);
    body["action_id"] = action.into();
    body
}

#[tokio::test]
async fn concurrent_uploads_are_limited_per_agent() {
    let server = Server::with(|options| options.uploads.max_open_per_agent = 2, |_| {}).await;
    let (agent, other) = (server.enrolled().await, server.enrolled().await);
    let first = begin(&server, &agent, &for_action(&agent, "one", 3)).await.json()["upload_id"].clone();
    assert_eq!(begin(&server, &agent, &for_action(&agent, "two", 3)).await.status, 200);
    let got = begin(&server, &agent, &for_action(&agent, "three", 3)).await;
    assert_eq!((got.refusal(), got.header("retry-after").is_empty()), (refused(429, "MaxLimit"), false));
    assert_eq!(
        begin(&server, &agent, &for_action(&agent, "one", 3)).await.json()["upload_id"],
        first,
        "the same again"
    );
    assert_eq!(begin(&server, &other, &for_action(&other, "three", 3)).await.status, 200, "another agent's");
    let id = first.as_str().unwrap();
    assert_eq!(chunk(&server, &agent, id, "0", b"abc").await.status, 200);
    assert_eq!(complete(&server, &agent, id, &transit(&[b"abc"])).await.status, 200);
    assert_eq!(begin(&server, &agent, &for_action(&agent, "three", 3)).await.status, 200);
    server.clock.advance(Duration::from_secs(24 * 3600 + 1));
    assert_eq!(begin(&server, &agent, &for_action(&agent, "four", 3)).await.status, 200, "the others are over");
}

#[tokio::test]
async fn stored_uploads_are_limited_per_agent_under_concurrency() {
    let server = Server::with(|options| options.uploads.max_bytes_per_agent = 100, |_| {}).await;
    let agent = server.enrolled().await;
    let bodies: Vec<Value> = (0..4).map(|number| for_action(&agent, &format!("a{number}"), 40)).collect();
    let (a, b, c, d) = tokio::join!(
        begin(&server, &agent, &bodies[0]),
        begin(&server, &agent, &bodies[1]),
        begin(&server, &agent, &bodies[2]),
        begin(&server, &agent, &bodies[3]),
    );
    let refusals: Vec<Got> = [a, b, c, d].into_iter().filter(|got| got.status != 200).collect();
    assert_eq!(refusals.len(), 2);
    assert_eq!(refusals[0].refusal(), refused(400, "ErrFileSizeTooLarge"));
    assert!(refusals[0].json()["message"].as_str().unwrap().contains("delete older ones"));
}

/// Stored bytes of an upload.
async fn stored(server: &Server, id: &str) -> i64 {
    let chunks = server.fleet.store().chunks(&FileId::trusted(id)).await.expect("readable");
    chunks.iter().map(|chunk| chunk.length).sum()
}

#[tokio::test]
async fn a_chunk_cannot_exceed_the_declared_size() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for (size, number, bytes) in
        [(1, "0", CHUNK), (10, "0", 11), (CHUNK + 1, "1", 2), (CHUNK + 1, "1", CHUNK), (2 * CHUNK, "1", CHUNK + 1)]
    {
        let request = for_action(&agent, &format!("a-{size}-{number}-{bytes}"), size);
        let id = begin(&server, &agent, &request).await.json()["upload_id"].as_str().unwrap().to_owned();
        let got = chunk(&server, &agent, &id, number, &vec![7; bytes]).await;
        assert_eq!(got.status, 400, "{size} {number} {bytes}: {got:?}");
        assert_eq!(stored(&server, &id).await, 0);
    }
    let request = for_action(&agent, "fits", CHUNK + 1);
    let id = begin(&server, &agent, &request).await.json()["upload_id"].as_str().unwrap().to_owned();
    assert_eq!(chunk(&server, &agent, &id, "1", b"x").await.status, 200);
    let got = chunk(&server, &agent, &id, "1", b"xy").await;
    let message = got.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("chunk 1") && message.contains("exceeds the 1 bytes") && message.contains("4194305"),
        "{message}"
    );
}

#[tokio::test]
async fn a_chunk_in_flight_when_the_upload_ends_changes_nothing() {
    use muster_fleet::uploads::Chunk;

    let server = Server::start().await;
    let agent = server.enrolled().await;
    let id = begun(&server, &agent, 5).await;
    assert_eq!(chunk(&server, &agent, &id, "0", b"first").await.status, 200);
    // The chunk has passed the check of the upload's state, and its bytes have not arrived yet.
    let entry = server.fleet.entry(&muster_core::id::AgentId::trusted(agent.id.as_str())).await.unwrap();
    let under_way = server.fleet.files().upload_for_chunk(&entry, &id, 0).await.unwrap();
    assert_eq!(complete(&server, &agent, &id, &transit(&[b"first"])).await.status, 200);
    let late =
        || Chunk { number: 0, sha256: sha256(b"other").try_into().unwrap(), data: bytes::Bytes::from_static(b"other") };
    let limits = muster_fleet::upload_limits::UploadLimits::default();
    let refused = server.fleet.files().put_chunk(&entry, &under_way, late(), &limits).await.unwrap_err();
    assert_eq!(refused.denial, Some(muster_core::denial::Denial::UploadStopped));
    let file = FileId::trusted(id.as_str());
    assert_eq!(server.fleet.store().chunk(&file, 0).await.unwrap().as_deref(), Some(&b"first"[..]));
    // The upload was removed, so no bytes are stored.
    let root = muster_core::authorization::OpContext::administrator(muster_core::authorization::Actor::System);
    let found = server.fleet.files().find_upload(&root, &id).await.unwrap();
    server.fleet.files().delete_upload(found).await.unwrap();
    server.fleet.files().put_chunk(&entry, &under_way, late(), &limits).await.unwrap_err();
    assert_eq!(stored(&server, &id).await, 0);
}

#[tokio::test]
async fn only_known_fields_of_a_begin_are_stored() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let mut request = request(&agent, 10);
    request["contents"] = json!([{"type": "x", "filler": "y".repeat(1 << 20)}]);
    assert_eq!(begin(&server, &agent, &request).await.status, 200);
    for (pointer, length) in [("/file/name", 1025), ("/file/mime_type", 256)] {
        let mut long = for_action(&agent, "long", 10);
        *long.pointer_mut(pointer).unwrap() = json!("n".repeat(length));
        let got = begin(&server, &agent, &long).await;
        assert_eq!(got.refusal(), refused(400, "ErrFieldRequired"), "{pointer}");
        *long.pointer_mut(pointer).unwrap() = json!("n".repeat(length - 1));
    }
}

#[tokio::test]
async fn uploads_are_refused_while_the_disk_is_nearly_full() {
    struct Nearly;
    impl muster_fleet::disk::Disk for Nearly {
        fn free_bytes(&self) -> Option<u64> {
            Some(1000)
        }

        fn is_full(&self) -> bool {
            false
        }

        fn release_reserve(&self) -> bool {
            false
        }

        fn restore_reserve(&self) -> bool {
            true
        }
    }
    let server = Server::with(|options| options.uploads.min_free_bytes = 900, |_| {}).await;
    let agent = server.enrolled().await;
    server.fleet.server_status().use_disk(std::sync::Arc::new(Nearly), false);
    let got = begin(&server, &agent, &for_action(&agent, "large", 101)).await;
    assert_eq!(got.refusal(), refused(429, "MaxLimit"));
    let id = begun(&server, &agent, 100).await;
    assert_eq!(chunk(&server, &agent, &id, "0", &[1; 100]).await.status, 200);
}

/// A chunk whose body never ends.
struct Stalled(Option<tokio::sync::oneshot::Sender<()>>);

impl http_body::Body for Stalled {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        if let Some(reads) = self.0.take() {
            let _ = reads.send(());
        }
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn concurrent_chunks_are_limited_per_agent() {
    let server = Server::start().await;
    let (agent, other) = (server.enrolled().await, server.enrolled().await);
    let (id, its) = (begun(&server, &agent, 3).await, begun(&server, &other, 3).await);
    let mut stalled = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let ask = Ask::put(&format!("{PATH}/{id}/0")).key(&agent.token).header("X-Chunk-Sha2", "0".repeat(64));
        let (request, peer) = ask.into_parts();
        let (reads, is_read) = tokio::sync::oneshot::channel();
        stalled.spawn(server.api.handle(request.map(|_| Stalled(Some(reads))), peer));
        is_read.await.expect("the chunk is read");
    }
    assert_eq!(chunk(&server, &agent, &id, "0", b"abc").await.refusal(), refused(429, "MaxLimit"));
    assert_eq!(chunk(&server, &other, &its, "0", b"abc").await.status, 200);
    stalled.shutdown().await;
    assert_eq!(chunk(&server, &agent, &id, "0", b"abc").await.status, 200);
}
