//! `muster backup …`. What agents notice of a restore is in `tests/kill/backup.rs`.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::{fails, ok, world};

#[test]
fn a_backup_is_restored_with_the_key_in_it_or_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (plain, whole) = (path("plain.tar"), path("whole.tar"));
    let key = world().data().join("master.key");
    ok(&["backup", "create", "--out", &plain]);
    ok(&["backup", "create", "--out", &whole, "--include-master-key"]);
    assert!(fails(1, &["backup", "create", "--out", &whole]).contains("already exists"));
    let told = ok(&["backup", "restore", &whole, "--data-dir", &path("a")]);
    assert!(told.starts_with("restored fleet "), "{told}");
    ok(&["backup", "restore", &plain, "--data-dir", &path("b"), "--master-key-file", key.to_str().unwrap()]);
    for restored in ["a", "b"] {
        let restored = std::fs::read(directory.path().join(restored).join("master.key")).unwrap();
        assert_eq!(restored, std::fs::read(&key).unwrap());
    }
    let other = path("other.key");
    std::fs::write(&other, [7; 32]).unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    let wrong = fails(1, &["backup", "restore", &plain, "--data-dir", &path("w"), "--master-key-file", &other]);
    assert!(wrong.contains("the master key does not belong to this backup"), "{wrong}");
    for file in ["master.key", "muster.db"] {
        assert!(!directory.path().join("w").join(file).try_exists().unwrap(), "{file}");
    }
    assert!(fails(2, &["backup", "restore", &plain]).contains("--data-dir is required"));
    fails(3, &["backup", "restore", &path("none"), "--data-dir", &path("c")]);
    fails(2, &["backup", "restore", &plain, "--data-dir", &path("c"), "--database", "mysql://x"]);
    let nowhere = ["--database", "postgres://nobody@127.0.0.1:1/none"];
    fails(1, &[&["backup", "restore", &plain, "--data-dir", &path("c")], &nowhere[..]].concat());
}
