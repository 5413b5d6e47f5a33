//! Artifacts of policies (EA §7.1).

use aws_lc_rs::digest::{SHA256, digest};
use muster_core::file::Artifact;
use muster_store::{FileWrite, Write};
use serde_json::json;

use crate::setting::{Ask, Enrolled, Server, refused};

const LISTED: &str = "00000000000000000000000000000000000000000000000000000000000000aa";
const MISSING: &str = "00000000000000000000000000000000000000000000000000000000000000bb";

fn path(id: &str, sha2: &str) -> String {
    format!("/api/fleet/artifacts/{id}/{sha2}")
}

async fn with_artifact(encoded_sha256: Option<String>) -> (Server, Enrolled) {
    let server = Server::start().await;
    let manifest = |sha2| json!({"decoded_sha256": sha2});
    let inputs = json!([
        {"type": "log"},
        {"type": "endpoint", "artifact_manifest": {"artifacts": {"trust": manifest(LISTED), "gone": manifest(MISSING)}}},
    ]);
    let policy = server.policy_with("p", json!({"id": "p", "revision": 1, "outputs": {}, "inputs": inputs})).await;
    let token = server.enrollment_key("k", Some(&policy)).await;
    let agent = server.enroll_with(&token, &json!({"type": "PERMANENT"})).await;
    let body = b"encoded bytes".to_vec();
    let hash = muster_core::hex::encode(digest(&SHA256, &body).as_ref());
    let artifact = Artifact {
        identifier: "trust".into(),
        decoded_sha256: LISTED.into(),
        decoded_size: 99,
        encoded_sha256: encoded_sha256.unwrap_or(hash),
        compression: "zlib".into(),
        created_at: muster_core::time::Timestamp::from_micros(0),
    };
    server.commit(vec![Write::File(FileWrite::PutArtifact { artifact: Box::new(artifact), body })]).await;
    (server, agent)
}

#[tokio::test]
async fn ea125_ea126_artifacts_of_the_policy_are_served_in_encoded_form() {
    let (server, agent) = with_artifact(None).await;
    for sha2 in [LISTED.to_owned(), LISTED.to_uppercase()] {
        let got = server.get(Ask::get(&path("trust", &sha2)).key(&agent.token)).await;
        assert_eq!((got.status, got.body.as_slice()), (200, &b"encoded bytes"[..]));
        assert_eq!((got.header("content-type"), got.header("content-encoding")), ("application/octet-stream", ""));
    }
    for (id, sha2) in [("trust", MISSING), ("other", LISTED), ("..%2ftrust", LISTED)] {
        let got = server.get(Ask::get(&path(id, sha2)).key(&agent.token)).await;
        assert_eq!(got.refusal(), refused(403, "Forbidden"), "{id}");
        assert_eq!(got.json()["message"], "agent not authorized for artifact");
    }
}

#[tokio::test]
async fn ea125_an_agent_without_a_policy_gets_no_artifacts() {
    let (server, _) = with_artifact(None).await;
    let agent = server.enrolled().await;
    let got = server.get(Ask::get(&path("trust", LISTED)).key(&agent.token)).await;
    assert_eq!(
        (got.refusal(), got.json()["message"].as_str()),
        (refused(403, "Forbidden"), Some("agent has no policy ID"))
    );
}

#[tokio::test]
async fn ea127_a_missing_artifact_is_404() {
    let (server, agent) = with_artifact(None).await;
    let got = server.get(Ask::get(&path("gone", MISSING)).key(&agent.token)).await;
    assert_eq!(got.refusal(), refused(404, "NotFound"));
}

#[tokio::test]
async fn corrupt_artifacts_are_not_sent_and_bad_hashes_are_400() {
    let (server, agent) = with_artifact(Some("00".repeat(32))).await;
    assert_eq!(server.get(Ask::get(&path("trust", LISTED)).key(&agent.token)).await.status, 500);
    for sha2 in ["short", &"g".repeat(64), &"0".repeat(65)] {
        let got = server.get(Ask::get(&path("trust", sha2)).key(&agent.token)).await;
        assert_eq!(got.refusal(), refused(400, "BadRequest"), "{sha2}");
    }
}

#[tokio::test]
async fn an_enrollment_key_cannot_fetch_artifacts() {
    let (server, _) = with_artifact(None).await;
    let token = server.enrollment_key("other", None).await;
    let got = server.get(Ask::get(&path("trust", LISTED)).key(&token)).await;
    assert_eq!(got.refusal(), refused(404, "AgentNotFound"));
}
