//! The keys that are sealed in the database, and the master key that opens them.

use super::*;

fn set_mode(path: &camino::Utf8Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

async fn fingerprint(settings: &Config) -> Option<String> {
    let server = Server::start(settings).await.unwrap();
    let fingerprint = server.first_start.ca_fingerprint.clone();
    server.stop().await;
    fingerprint
}

#[tokio::test]
async fn ca_stays_the_same_over_restarts_and_its_file_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let settings = config(&directory, &[]);
    let first = fingerprint(&settings).await;
    let path = settings.data_dir.join("ca.crt");
    let written = fs_err::read(&path).unwrap();
    for found in [None, Some("of another fleet")] {
        fs_err::remove_file(&path).unwrap();
        if let Some(found) = found {
            fs_err::write(&path, found).unwrap();
        }
        assert_eq!(fingerprint(&settings).await, first);
        assert_eq!(fs_err::read(&path).unwrap(), written);
    }
    assert_eq!(first.unwrap().len(), 64);
    assert!(!settings.data_dir.join("ca.key").try_exists().unwrap());
}

#[tokio::test]
async fn master_key_of_another_fleet_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let settings = config(&directory, &[]);
    fingerprint(&settings).await;
    fs_err::write(settings.data_dir.join("master.key"), [9; 32]).unwrap();
    let told = Server::start(&settings).await.err().expect("the start is refused").to_string();
    assert!(told.contains("master.key is not the master key of this database"), "{told}");
    has_no_traces(&settings);
}

#[tokio::test]
async fn configured_master_key_file_is_read_and_never_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().join("key")).unwrap();
    let settings = config(&directory, &[&format!("master_key_file={path}")]);
    let refusal = async || Server::start(&settings).await.err().expect("the start is refused").to_string();
    assert!(refusal().await.contains("key does not exist"));
    fs_err::write(&path, [7; 32]).unwrap();
    set_mode(&path, 0o644);
    assert!(refusal().await.contains("readable by other users"));
    set_mode(&path, 0o600);
    let first = fingerprint(&settings).await;
    assert_eq!(fingerprint(&settings).await, first);
    assert!(!settings.data_dir.join("master.key").try_exists().unwrap());
    fs_err::write(&path, [8; 32]).unwrap();
    assert!(refusal().await.contains("key is not the master key of this database"));
}
