//! `muster store copy`, over stores without a server.

use camino::{Utf8Path, Utf8PathBuf};
use muster_store::{INSTALLATION, Options, SettingWrite, SqlStore, Store as _};
use serde_json::Value;

use crate::world::{fails, ok, run, world};

/// A data directory with the database of a fleet, and room for others beside it.
fn fleet() -> (tempfile::TempDir, Utf8PathBuf) {
    let keep = tempfile::tempdir().unwrap();
    let root = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
    std::fs::create_dir(root.join("data")).unwrap();
    std::fs::write(root.join("data/lock"), "").unwrap();
    let store = SqlStore::open(root.join("data/muster.db").as_std_path(), &Options::default()).unwrap();
    let put = SettingWrite::Put { name: INSTALLATION.into(), value: "f".into() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.commit(vec![put.into()])).unwrap();
    (keep, root)
}

fn copy<'w>(from: &'w Utf8Path, to: &'w Utf8Path, more: &[&'w str]) -> Vec<&'w str> {
    [&["store", "copy", "--from", from.as_str(), "--to", to.as_str()], more].concat()
}

#[test]
fn a_copy_prints_counts_and_digests_and_what_remains_to_be_done() {
    let (_keep, root) = fleet();
    let (data, there) = (root.join("data"), root.join("there"));
    let counted: Value = serde_json::from_str(&ok(&copy(&data, &there, &["--dry-run", "--output", "json"]))).unwrap();
    assert!(!there.exists(), "a dry run creates nothing");
    let settings = |report: &Value| {
        let mut tables = report["tables"].as_array().unwrap().iter();
        tables.find(|table| table["table"] == "settings").unwrap().clone()
    };
    assert_eq!((&settings(&counted)["rows"], &counted["dry_run"]), (&Value::from(1), &Value::from(true)));

    let ran = run(&copy(&data, &there, &["--output", "json"]));
    let copied: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &settings(&copied)["rows"], &copied["continued"]), (0, &Value::from(1), &Value::from(false)));
    assert!(ran.err.contains(&format!("copy {data}/master.key to {there}")), "{}", ran.err);

    let back = root.join("back.db");
    let text = ok(&copy(&there.join("muster.db"), &back, &[]));
    assert!(text.contains(settings(&copied)["digest"].as_str().unwrap()), "{text}");
    assert!(text.contains("1 rows copied and verified"), "{text}");
    let refused = fails(1, &copy(&data, &back, &[]));
    assert!(refused.contains("is not empty: it contains the fleet f"), "{refused}");
}

#[test]
fn a_copy_needs_a_fleet_that_no_server_uses() {
    let (_keep, root) = fleet();
    let running = Utf8PathBuf::from_path_buf(world().data()).unwrap();
    for refused in [fails(1, &copy(&running, &root, &[])), fails(1, &copy(&root.join("data"), &running, &[]))] {
        assert!(refused.contains("is in use by another server"), "{refused}");
    }
    assert!(fails(3, &copy(&root.join("none"), &root.join("b.db"), &[])).contains("does not exist"));
    let elsewhere = Utf8Path::new("mysql://u@h/d");
    assert!(fails(2, &copy(elsewhere, &root.join("b.db"), &[])).contains("postgres://USER@HOST:PORT/DATABASE"));
}
