//! Uploads from agents, and files and artifacts for agents.

use axum::body::Body;
use axum::http::{Method, Request};
use muster_core::file::{FileStatus, Upload};
use muster_core::id::{ActionId, AgentId, FileId};
use muster_store::{FileWrite, Write};
use serde_json::{Value, json};

use crate::support::{Api, administrator};

async fn upload(api: &Api, action: &str, name: &str, bytes: &[u8]) {
    let id = FileId::trusted("upload-1");
    let begun = Upload {
        id: id.clone(),
        action_id: ActionId::trusted(action),
        agent_id: AgentId::trusted("a"),
        source: "agent".into(),
        name: name.into(),
        mime_type: "text/html".into(),
        size: bytes.len() as i64,
        status: FileStatus::AwaitingUpload,
        started_at: api.now(),
        transit_hash: None,
    };
    let chunk = Write::File(FileWrite::PutChunk { file: id.clone(), number: 0, sha256: [0; 32], data: bytes.to_vec() });
    let done = Write::File(FileWrite::UploadStatus { id, status: FileStatus::Ready, transit_hash: Some("00".into()) });
    api.fleet.store().commit(vec![Write::File(FileWrite::InsertUpload(Box::new(begun))), chunk, done]).await.unwrap();
}

#[tokio::test]
async fn diagnostics_are_listed_downloaded_and_deleted() {
    let api = Api::new();
    api.agent("a", None).await;
    let id = api.post("/agents/a/request_diagnostics", json!({})).await.ok()["actionId"].clone();
    let waiting = api.get("/agents/a/uploads").await.ok()["items"].clone();
    assert_eq!((&waiting[0]["status"], &waiting[0]["actionId"]), (&json!("IN_PROGRESS"), &id));
    upload(&api, id.as_str().unwrap(), "../e\r\nvil.zip", b"bundle").await;
    let ready = api.get("/agents/a/uploads").await.ok()["items"].clone();
    assert_eq!(ready.as_array().unwrap().len(), 1);
    assert_eq!((&ready[0]["status"], &ready[0]["size"]), (&json!("READY"), &json!(6)));
    let path = ready[0]["filePath"].as_str().unwrap().strip_prefix("/api/fleet").unwrap().to_owned();
    assert_eq!(api.get(&format!("{path}?dryRun=true")).await.refused(400)["field"], "dryRun");
    let file = api.get(&path).await;
    let disposition = file.headers["content-disposition"].to_str().unwrap().to_owned();
    // HTML from an agent must not run in the browser of a signed-in user.
    let csp = file.headers["content-security-policy"].to_str().unwrap();
    assert!(csp.contains("default-src 'none'") && csp.contains("sandbox"), "{csp}");
    assert_eq!(disposition, "attachment; filename*=UTF-8''%2E%2E%5Fe%5F%5Fvil%2Ezip");
    assert_eq!(file.headers["content-type"], "application/octet-stream");
    assert_eq!(file.ok(), "bundle");
    assert_eq!(api.audit().await.last().unwrap(), "file.download");
    assert_eq!(api.delete("/agents/files/upload-1").await.ok(), json!({"id": "upload-1", "deleted": true}));
    api.get(&path).await.refused(404);
    assert_eq!(api.get("/agents/a/uploads").await.ok()["items"][0]["status"], "DELETED");
}

async fn post_bytes(api: &Api, path: &str, content_type: &str, body: Vec<u8>) -> Value {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/api/fleet{path}"))
        .header("content-type", content_type)
        .extension(administrator())
        .body(Body::from(body))
        .unwrap();
    api.send(request).await.ok()["item"].clone()
}

#[tokio::test]
async fn a_file_for_an_agent_is_stored_in_chunks() {
    let api = Api::new();
    api.agent("a", None).await;
    let bytes = vec![7; 9 << 20];
    let made = post_bytes(&api, "/agents/a/files?name=tool.bin", "application/x-tool", bytes).await;
    assert_eq!(
        (&made["name"], &made["mime_type"], &made["size"]),
        (&json!("tool.bin"), &json!("application/x-tool"), &json!(9 << 20))
    );
    let id = FileId::trusted(made["id"].as_str().unwrap());
    let stored = api.fleet.store().file(&id).await.unwrap().unwrap();
    assert_eq!(stored.agents, [AgentId::trusted("a")]);
    let lengths: Vec<i64> = api.fleet.store().chunks(&id).await.unwrap().iter().map(|chunk| chunk.length).collect();
    assert_eq!(lengths, [4 << 20, 4 << 20, 1 << 20]);
    api.post("/agents/a/files", json!({})).await.refused(400);
    api.post("/agents/a/files?name=a%2Fb", json!({})).await.refused(400);
}

#[tokio::test]
async fn artifacts_are_accepted_raw_or_in_a_form() {
    let api = Api::new();
    let raw = post_bytes(&api, "/artifacts?name=list-v1", "application/octet-stream", b"abc".to_vec()).await;
    assert_eq!(raw["decoded_sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!((&raw["encoded_sha256"], &raw["compression_algorithm"]), (&raw["decoded_sha256"], &json!("none")));
    let form = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"list-v2\"\r\n\r\nabc\r\n--x--\r\n";
    let sent = post_bytes(&api, "/artifacts?compression=zlib", "multipart/form-data; boundary=x", form.into()).await;
    assert_eq!((&sent["identifier"], &sent["decoded_sha256"]), (&json!("list-v2"), &raw["decoded_sha256"]));
    assert_ne!(sent["encoded_sha256"], sent["decoded_sha256"]);
    let hash = sent["decoded_sha256"].as_str().unwrap();
    assert!(api.fleet.store().artifact("list-v2", hash).await.unwrap().is_some());
}

#[tokio::test]
async fn packages_are_stored_under_their_names_and_replaced_only_after_a_deletion() {
    let api = Api::new();
    let name = "muster-agent-0.2.0-linux-x86_64.tar.gz";
    let stored =
        post_bytes(&api, &format!("/agent_packages?name={name}"), "application/octet-stream", b"abc".to_vec()).await;
    assert_eq!((&stored["id"], &stored["size"]), (&json!(name), &json!(3)));
    assert_eq!(api.audit().await.last().unwrap(), "package.store");
    let again =
        post_bytes(&api, &format!("/agent_packages?name={name}"), "application/octet-stream", b"abc".to_vec()).await;
    assert_eq!(again, stored, "the same content changes nothing");
    let file = api.fleet.store().file(&FileId::trusted(name)).await.unwrap().unwrap();
    assert!(file.agents.is_empty(), "for every agent");
    refused(&api, name, 409).await;
    // Only after a deletion, as when the upload was cut.
    let path = format!("/agent_packages/{name}");
    api.delete(&format!("{path}?dryRun=true")).await.ok();
    api.delete(&path).await.ok();
    assert_eq!(api.audit().await.last().unwrap(), "package.delete");
    api.delete(&path).await.refused(404);
    api.delete("/agent_packages/tool.bin").await.refused(404);
    let other = format!("/agent_packages?name={name}");
    let stored = post_bytes(&api, &other, "application/octet-stream", b"whole".to_vec()).await;
    assert_eq!(stored["size"], 5);
    for bad in ["elastic-agent-9.6.0-linux-x86_64.tar.gz", "muster-agent-0.2-linux-x86_64.tar.gz", "x.manifest.json"] {
        refused(&api, bad, 400).await;
    }
}

async fn refused(api: &Api, name: &str, status: u16) {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/api/fleet/agent_packages?name={name}"))
        .header("content-type", "application/octet-stream")
        .extension(administrator())
        .body(Body::from("other"))
        .unwrap();
    api.send(request).await.refused(status);
}
