//! Uploads, files for agents, chunks, artifacts.

use muster_core::credential::SecretHash;
use muster_core::file::{ChunkInfo, FileStatus};
use muster_core::id::FileId;
use muster_store::{FileWrite, Precondition, Store, Write};

use super::sample::*;

fn id(id: &str) -> FileId {
    FileId::trusted(id)
}

fn status(file: &str, status: FileStatus, transit_hash: Option<&str>) -> Write {
    Write::File(FileWrite::UploadStatus { id: id(file), status, transit_hash: transit_hash.map(str::to_owned) })
}

pub async fn an_upload_comes_back_by_id_and_by_order(store: &impl Store) {
    let written = upload("u", "x", "a");
    commit(store, vec![Write::File(FileWrite::InsertUpload(Box::new(written.clone())))]).await;
    assert_eq!(store.upload(&id("u")).await.unwrap().as_ref(), Some(&written));
    assert_eq!(store.upload_for(&action_id("x"), &agent_id("a")).await.unwrap(), Some(written));
    assert_eq!(store.upload_for(&action_id("x"), &agent_id("b")).await.unwrap(), None);
}

pub async fn d6_an_agent_has_one_upload_for_an_action(store: &impl Store) {
    commit(store, vec![Write::File(FileWrite::InsertUpload(Box::new(upload("u", "x", "a"))))]).await;
    let again = refused(store, vec![Write::File(FileWrite::InsertUpload(Box::new(upload("v", "x", "a"))))]).await;
    assert!(matches!(again, Precondition::Exists(_)), "{again:?}");
    commit(
        store,
        vec![
            Write::File(FileWrite::InsertUpload(Box::new(upload("v", "x", "b")))),
            Write::File(FileWrite::InsertUpload(Box::new(upload("w", "y", "a")))),
        ],
    )
    .await;
}

pub async fn uploads_are_listed_newest_first(store: &impl Store) {
    for (name, n) in [("u", 1), ("v", 3), ("w", 2)] {
        let mut upload = upload(name, name, "a");
        upload.started_at = at(n);
        commit(store, vec![Write::File(FileWrite::InsertUpload(Box::new(upload)))]).await;
    }
    let listed = store.uploads(&agent_id("a")).await.unwrap();
    assert_eq!(listed.iter().map(|upload| upload.id.as_str()).collect::<Vec<_>>(), ["v", "w", "u"]);
}

pub async fn d6_a_new_upload_takes_the_place_of_a_failed_or_removed_one(store: &impl Store) {
    let insert = |name: &str| vec![Write::File(FileWrite::InsertUpload(Box::new(upload(name, "x", "a"))))];
    for (name, next, end) in [("u", "v", FileStatus::UploadError), ("v", "w", FileStatus::Deleted)] {
        commit(store, [insert(name), vec![status(name, end, None)]].concat()).await;
        // A chunk that was under way when it ended.
        commit(store, vec![chunk(name, 0, b"late")]).await;
        commit(store, insert(next)).await;
        assert_eq!(store.upload(&id(name)).await.unwrap(), None);
        assert_eq!(store.chunks(&id(name)).await.unwrap(), []);
        assert_eq!(store.upload_for(&action_id("x"), &agent_id("a")).await.unwrap().unwrap().id, id(next));
        commit(store, vec![status(next, FileStatus::Deleted, None)]).await;
    }
    commit(store, [insert("y"), vec![status("y", FileStatus::Ready, Some("abcd"))]].concat()).await;
    let complete = refused(store, insert("z")).await;
    assert!(matches!(complete, Precondition::Exists(_)), "{complete:?}");
}

pub async fn ea134_uploads_of_an_age_are_found_by_state(store: &impl Store) {
    for (name, n, state) in [
        ("old", 1, FileStatus::AwaitingUpload),
        ("older", 0, FileStatus::AwaitingUpload),
        ("young", 5, FileStatus::AwaitingUpload),
        ("ready", 2, FileStatus::Ready),
        ("gone", 0, FileStatus::Deleted),
    ] {
        let mut upload = upload(name, name, "a");
        upload.started_at = at(n);
        commit(store, vec![Write::File(FileWrite::InsertUpload(Box::new(upload))), status(name, state, None)]).await;
    }
    let found = async |state, n, limit| -> Vec<String> {
        let found = store.uploads_begun_before(state, at(n), limit).await.unwrap();
        found.into_iter().map(|upload| upload.id.to_string()).collect()
    };
    assert_eq!(found(FileStatus::AwaitingUpload, 5, 10).await, ["older", "old"]);
    assert_eq!(found(FileStatus::AwaitingUpload, 5, 1).await, ["older"]);
    assert_eq!(found(FileStatus::Ready, 2, 10).await, Vec::<String>::new());
    assert_eq!(found(FileStatus::Ready, 3, 10).await, ["ready"]);
}

pub async fn ea131_chunks_come_in_any_order_and_are_listed_in_order(store: &impl Store) {
    commit(store, vec![chunk("u", 2, b"three"), chunk("u", 0, b"one"), chunk("v", 0, b"other")]).await;
    commit(store, vec![chunk("u", 1, b"")]).await;
    let expected = [(0, b"one".as_slice()), (1, b""), (2, b"three")].map(|(number, data)| ChunkInfo {
        number,
        length: data.len() as i64,
        sha256: SecretHash::of(data).0,
    });
    assert_eq!(store.chunks(&id("u")).await.unwrap(), expected);
    assert_eq!(store.chunk(&id("u"), 2).await.unwrap().as_deref(), Some(b"three".as_slice()));
    assert_eq!(store.chunk(&id("u"), 3).await.unwrap(), None);
}

pub async fn d6_a_chunk_again_changes_nothing_and_another_one_replaces_it(store: &impl Store) {
    commit(store, vec![chunk("u", 0, b"bytes")]).await;
    commit(store, vec![chunk("u", 0, b"bytes"), chunk("u", 0, b"bytes")]).await;
    assert_eq!(store.chunk(&id("u"), 0).await.unwrap().as_deref(), Some(b"bytes".as_slice()));
    commit(store, vec![chunk("u", 0, b"others")]).await;
    assert_eq!(store.chunk(&id("u"), 0).await.unwrap().as_deref(), Some(b"others".as_slice()));
    assert_eq!(store.chunks(&id("u")).await.unwrap()[0].length, 6);
}

pub async fn a_whole_chunk_comes_back(store: &impl Store) {
    let data: Vec<u8> = (0..muster_core::file::CHUNK_BYTES).map(|n| (n % 251) as u8).collect();
    commit(store, vec![chunk("u", 0, &data)]).await;
    assert!(store.chunk(&id("u"), 0).await.unwrap() == Some(data));
}

pub async fn a_complete_upload_keeps_its_chunks_and_a_failed_one_does_not(store: &impl Store) {
    for (name, action) in [("u", "x"), ("v", "y"), ("w", "z")] {
        commit(
            store,
            vec![Write::File(FileWrite::InsertUpload(Box::new(upload(name, action, "a")))), chunk(name, 0, b"bytes")],
        )
        .await;
    }
    commit(
        store,
        vec![
            status("u", FileStatus::Ready, Some("abcd")),
            status("v", FileStatus::UploadError, None),
            status("w", FileStatus::Deleted, None),
        ],
    )
    .await;
    let ready = store.upload(&id("u")).await.unwrap().unwrap();
    assert_eq!((ready.status, ready.transit_hash.as_deref()), (FileStatus::Ready, Some("abcd")));
    assert_eq!(store.chunks(&id("u")).await.unwrap().len(), 1);
    for (name, expected) in [("v", FileStatus::UploadError), ("w", FileStatus::Deleted)] {
        assert_eq!(store.upload(&id(name)).await.unwrap().unwrap().status, expected);
        assert_eq!(store.chunks(&id(name)).await.unwrap(), []);
    }
    let missing = refused(store, vec![status("none", FileStatus::Ready, None)]).await;
    assert!(matches!(missing, Precondition::Missing(_)), "{missing:?}");
}

pub async fn a_file_for_agents_comes_back(store: &impl Store) {
    let written = file("f", &["b", "a"]);
    commit(store, vec![Write::File(FileWrite::InsertFile(Box::new(written.clone()))), chunk("f", 0, b"bytes")]).await;
    assert_eq!(store.file(&id("f")).await.unwrap(), Some(written));
    assert_eq!(store.file(&id("none")).await.unwrap(), None);
    let again = refused(store, vec![Write::File(FileWrite::InsertFile(Box::new(file("f", &[]))))]).await;
    assert!(matches!(again, Precondition::Exists(_)), "{again:?}");
}

pub async fn ea126_an_artifact_is_found_by_name_and_hash_and_can_be_replaced(store: &impl Store) {
    let put = |artifact: &muster_core::file::Artifact, body: &[u8]| {
        vec![Write::File(FileWrite::PutArtifact { artifact: Box::new(artifact.clone()), body: body.to_vec() })]
    };
    let mut written = artifact("list", "aa");
    commit(store, put(&written, b"\x78\x01")).await;
    assert_eq!(store.artifact("list", "aa").await.unwrap(), Some((written.clone(), b"\x78\x01".to_vec())));
    assert_eq!(store.artifact("list", "bb").await.unwrap(), None);
    (written.encoded_sha256, written.decoded_size) = ("ef".repeat(32), 15);
    commit(store, put(&written, b"new")).await;
    assert_eq!(store.artifact("list", "aa").await.unwrap(), Some((written, b"new".to_vec())));
}

fn is_open(file: &str, chunks: Option<Vec<ChunkInfo>>) -> Write {
    FileWrite::UploadIsOpen { id: id(file), chunks }.into()
}

pub async fn a_closed_upload_takes_no_chunk_in_the_commit_that_asks(store: &impl Store) {
    let put = |name: &str| vec![is_open(name, None), chunk(name, 0, b"late")];
    for (name, end) in [("u", FileStatus::Ready), ("v", FileStatus::UploadError), ("w", FileStatus::Deleted)] {
        commit(
            store,
            vec![FileWrite::InsertUpload(Box::new(upload(name, name, "a"))).into(), chunk(name, 0, b"bytes")],
        )
        .await;
        commit(store, put(name)).await;
        let before = store.chunks(&id(name)).await.unwrap();
        commit(store, vec![status(name, end, None)]).await;
        let late = refused(store, [put(name), vec![chunk(name, 1, b"more")]].concat()).await;
        assert!(matches!(late, Precondition::Changed(_)), "{late:?}");
        let kept = if end == FileStatus::Ready { before } else { Vec::new() };
        assert_eq!(store.chunks(&id(name)).await.unwrap(), kept, "{name}");
    }
    let gone = refused(store, put("nobody's")).await;
    assert!(matches!(gone, Precondition::Missing(_)), "{gone:?}");
    assert_eq!(store.chunks(&id("nobody's")).await.unwrap(), []);
}

pub async fn an_upload_ends_on_the_chunks_that_were_decided_on(store: &impl Store) {
    commit(store, vec![FileWrite::InsertUpload(Box::new(upload("u", "x", "a"))).into(), chunk("u", 0, b"bytes")]).await;
    let decided_on = store.chunks(&id("u")).await.unwrap();
    commit(store, vec![chunk("u", 0, b"other")]).await;
    let end = |chunks| vec![is_open("u", Some(chunks)), status("u", FileStatus::Ready, Some("abcd"))];
    let stale = refused(store, end(decided_on)).await;
    assert!(matches!(stale, Precondition::Changed(_)), "{stale:?}");
    assert_eq!(store.upload(&id("u")).await.unwrap().unwrap().status, FileStatus::AwaitingUpload);
    commit(store, end(store.chunks(&id("u")).await.unwrap())).await;
    assert_eq!(store.upload(&id("u")).await.unwrap().unwrap().status, FileStatus::Ready);
}

pub async fn what_an_agent_may_upload_is_counted_in_the_commit(store: &impl Store) {
    use muster_store::{UploadLimit, UploadQuota};
    let roomy = UploadQuota { bytes: 9, open_since: at(5), max_open: 10, max_records: 10, max_bytes: 100 };
    let begin = |name: &str, quota| {
        let fits = FileWrite::UploadFits { agent: agent_id("a"), action: action_id(name), quota }.into();
        let upload = muster_core::file::Upload { started_at: at(10), ..upload(name, name, "a") };
        vec![fits, FileWrite::InsertUpload(Box::new(upload)).into()]
    };
    // Nine bytes each: two open, one complete, one over in time, one removed, and another agent's.
    for (name, n, end) in [
        ("open", 10, None),
        ("open-too", 10, None),
        ("ready", 0, Some(FileStatus::Ready)),
        ("over", 4, None),
        ("removed", 10, Some(FileStatus::Deleted)),
    ] {
        let upload = muster_core::file::Upload { started_at: at(n), ..upload(name, name, "a") };
        commit(store, vec![FileWrite::InsertUpload(Box::new(upload)).into()]).await;
        if let Some(end) = end {
            commit(store, vec![status(name, end, None)]).await;
        }
    }
    commit(store, vec![FileWrite::InsertUpload(Box::new(upload("other", "other", "b"))).into()]).await;
    for (quota, limit) in [
        (UploadQuota { max_open: 2, ..roomy }, UploadLimit::Open),
        (UploadQuota { max_records: 5, ..roomy }, UploadLimit::Records),
        (UploadQuota { max_bytes: 35, ..roomy }, UploadLimit::Bytes),
        (UploadQuota { bytes: u64::MAX, ..roomy }, UploadLimit::Bytes),
    ] {
        let over = refused(store, begin("new", quota)).await;
        assert!(matches!(over, Precondition::OverLimit(found) if found == limit), "{over:?}");
    }
    let exact = UploadQuota { max_open: 3, max_records: 6, max_bytes: 36, ..roomy };
    commit(store, begin("new", exact)).await;
    // The one for the same action does not count.
    let again = refused(store, begin("new", exact)).await;
    assert!(matches!(again, Precondition::Exists(_)), "{again:?}");
}

pub async fn few_records_of_closed_uploads_are_kept_of_an_agent(store: &impl Store) {
    for n in 0..110 {
        let name = format!("u{n:03}");
        let mut upload = upload(&name, &name, "a");
        upload.started_at = at(n);
        commit(store, vec![FileWrite::InsertUpload(Box::new(upload)).into(), status(&name, FileStatus::Deleted, None)])
            .await;
    }
    commit(store, vec![FileWrite::InsertUpload(Box::new(upload("last", "last", "a"))).into()]).await;
    let kept = store.uploads(&agent_id("a")).await.unwrap();
    assert_eq!(kept.len(), 101);
    assert!(kept.iter().any(|upload| upload.id == id("u109")) && !kept.iter().any(|upload| upload.id == id("u009")));
}
