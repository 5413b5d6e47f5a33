//! A directory that holds a fleet's keys, but no longer its database.

use std::collections::BTreeMap;

use muster_store::Options;

use super::*;

/// A directory in which a server ran, and its settings.
async fn used(more: &[&str]) -> (tempfile::TempDir, Config) {
    let directory = tempfile::tempdir().unwrap();
    let settings = config(&directory, more);
    Server::start(&settings).await.unwrap().stop().await;
    (directory, settings)
}

fn remove_database(settings: &Config) {
    for name in ["muster.db", "muster.db-wal", "muster.db-shm"] {
        match fs_err::remove_file(settings.data_dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
    }
}

async fn refusal(settings: &Config) -> String {
    Server::start(settings).await.err().expect("the start is refused").to_string()
}

fn files(settings: &Config) -> BTreeMap<String, Vec<u8>> {
    let entries = fs_err::read_dir(&settings.data_dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.display().to_string(), fs_err::read(path).unwrap())).collect()
}

#[tokio::test]
async fn lost_database_is_rejected_and_the_directory_is_left_unchanged() {
    let (_keep, settings) = used(&[]).await;
    remove_database(&settings);
    for (found, content) in [("is missing", None), ("is empty", Some(b""))] {
        if let Some(content) = content {
            fs_err::write(settings.data_dir.join("muster.db"), content).unwrap();
        }
        let before = files(&settings);
        let told = refusal(&settings).await;
        for part in [&format!("muster.db {found}"), "fleet-id", "\nhint: restore ", "--new-fleet"] {
            assert!(told.contains(part), "{part} is missing in {told}");
        }
        assert_eq!(files(&settings), before);
        has_no_traces(&settings);
    }
}

#[tokio::test]
async fn a_directory_of_a_shared_fleet_asks_for_its_database() {
    let (_keep, settings) = used(&[]).await;
    remove_database(&settings);
    fs_err::write(settings.data_dir.join("node-id"), "n").unwrap();
    let told = refusal(&settings).await;
    assert!(told.contains("is in a PostgreSQL database") && told.contains("--database"), "{told}");
    assert!(!told.contains("--new-fleet"), "{told}");
}

#[tokio::test]
async fn database_without_a_fleet_is_rejected() {
    let (_keep, settings) = used(&[]).await;
    remove_database(&settings);
    let path = settings.data_dir.join("muster.db");
    SqlStore::open(path.as_std_path(), &Options::default()).unwrap().close().await;
    let told = refusal(&settings).await;
    assert!(told.contains("muster.db contains no fleet") && told.contains("--new-fleet"), "{told}");
}

/// Each of the files tells of a fleet: the mark where the certificate comes from outside, the CA where the mark was not
/// restored.
#[tokio::test]
async fn each_file_of_a_fleet_identifies_it() {
    for kept in ["fleet-id", "ca.crt", "master.key"] {
        let (_keep, settings) = used(&[]).await;
        for (path, _) in files(&settings) {
            if !path.ends_with(&format!("/{kept}")) {
                fs_err::remove_file(path).unwrap();
            }
        }
        let told = refusal(&settings).await;
        assert!(told.contains(&format!("but {kept} shows")), "{told}");
        assert_eq!(settings.data_dir.join("master.key").try_exists().unwrap(), kept == "master.key");
    }
}

#[tokio::test]
async fn new_fleet_starts_with_a_new_ca_and_is_marked() {
    let (_keep, settings) = used(&[]).await;
    let read = |name: &str| fs_err::read(settings.data_dir.join(name)).unwrap();
    let (ca, mark) = (read("ca.crt"), read("fleet-id"));
    remove_database(&settings);
    let told = Config { new_fleet: true, ..settings.clone() };
    let server = Server::start(&told).await.unwrap();
    assert!(server.first_start.enrollment_token.is_some());
    let status: serde_json::Value = {
        let socket = UnixStream::connect(server.data.join("admin.sock")).await.unwrap();
        let answer = ask(socket, "/api/status").await;
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    };
    server.stop().await;
    assert_ne!(read("ca.crt"), ca, "agents of the lost fleet reach nothing that rejects them");
    assert_ne!(read("fleet-id"), mark);
    assert_eq!(String::from_utf8(read("fleet-id")).unwrap().trim_end(), status["uuid"].as_str().unwrap());
    // With the flag or without it, the new fleet stays.
    let mark = read("fleet-id");
    for settings in [told, settings.clone()] {
        let server = Server::start(&settings).await.unwrap();
        assert_eq!(server.first_start.enrollment_token, None);
        server.stop().await;
    }
    assert_eq!(read("fleet-id"), mark);
}

/// Killed before the CA was made: nobody can have enrolled.
#[tokio::test]
async fn interrupted_first_start_is_continued() {
    let directory = tempfile::tempdir().unwrap();
    let settings = config(&directory, &[]);
    let data = DataDir::open(&settings.data_dir).unwrap();
    data.master_key(&muster_fleet::system::SystemEntropy::default()).unwrap();
    drop(data);
    // `LostMasterKey` is for a database without its key; an empty one with its key is a beginning.
    fs_err::write(settings.data_dir.join("muster.db"), b"").unwrap();
    let server = Server::start(&settings).await.unwrap();
    assert!(server.first_start.enrollment_token.is_some());
    server.stop().await;
}
