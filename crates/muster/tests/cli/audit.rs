//! `muster audit …`

use crate::world::{command, fails, finish, json, new_policy, ok};

#[test]
fn audit_events_are_listed_and_the_log_is_verified() {
    let policy = new_policy("audited");
    let subject = format!("policy:{policy}");
    let listed = json(&["audit", "list", "--subject", &subject]);
    assert_eq!((&listed[0]["action"], listed.as_array().unwrap().len()), (&"policy.create".into(), 1));
    let table = ok(&["audit", "list", "--action", "policy.create", "--limit", "1"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    let actor = listed[0]["actor"].as_str().unwrap();
    let by = ok(&["audit", "list", "--actor", actor, "--subject", &subject, "--output", "name"]);
    assert_eq!(by.trim(), listed[0]["seq"].to_string());
    let before = ["audit", "list", "--subject", &subject, "--until", "2020-01-01T00:00:00Z", "--output", "name"];
    assert_eq!(ok(&before), "");
    fails(2, &["audit", "list", "--since", "yesterday"]);
    let told = ok(&["audit", "verify"]);
    assert!(told.starts_with("intact     yes\n"), "{told}");
    let head = ok(&["audit", "verify", "--output", "name"]);
    assert_eq!(head.trim().len(), 64, "{head}");
}

#[test]
fn audit_events_of_a_space_are_listed_and_exported() {
    ok(&["space", "create", "audited-lab"]);
    let policy = json(&["policy", "create", "in-the-audited-lab", "--space", "audited-lab"]);
    let subject = format!("policy:{}", policy["id"].as_str().unwrap());
    let listed = json(&["audit", "list", "--space", "audited-lab"]);
    assert_eq!((&listed[0]["subject"], &listed[0]["space"]), (&subject.into(), &"audited-lab".into()));
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let of_default = json(&["audit", "list", "--space", "default", "--limit", "1000"]);
    let spaces = of_default.as_array().unwrap().iter().map(|event| &event["space"]);
    assert!(spaces.into_iter().all(|space| space == "default"), "{of_default}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lab.jsonl");
    ok(&["audit", "export", "--space", "audited-lab", "--out", path.to_str().unwrap()]);
    let told = verify(&[path.to_str().unwrap(), "--output", "json"]);
    let report: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((&report["lines"], &report["space"]), (&1.into(), &"audited-lab".into()));
    ok(&["policy", "delete", "in-the-audited-lab", "--space", "audited-lab", "--yes"]);
    ok(&["space", "delete", "audited-lab", "--yes"]);
}

/// Runs `muster audit verify` where there is no server.
fn verify(words: &[&str]) -> crate::world::Ran {
    let words = [&["audit", "verify"], words].concat();
    finish(command(&words).env("MUSTER_DATA_DIR", "/nonexistent"))
}

#[test]
fn m25_an_exported_file_is_verified_without_a_server() {
    new_policy("exported");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let file = path.to_str().unwrap();
    ok(&["audit", "export", "--out", file]);
    let told = verify(&[file, "--output", "json"]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(told.err.contains("--public-key"), "the signature alone does not show whose it is: {}", told.err);
    let report: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    let fingerprint = report["fingerprint"].as_str().unwrap();
    assert_eq!(verify(&[file, "--public-key", fingerprint]).err, "");
    assert_eq!(verify(&[file, "--public-key", "00"]).code, 1);
    assert!(fails(1, &["audit", "export", "--out", file]).contains("already exists"));

    let text = std::fs::read_to_string(&path).unwrap();
    let early = directory.path().join("early.jsonl");
    let period = ["--since", "2020-01-01T00:00:00Z", "--until", "2021-01-01T00:00:00Z"];
    ok(&[&["audit", "export", "--out", early.to_str().unwrap()], &period[..]].concat());
    let report: serde_json::Value =
        serde_json::from_str(&verify(&[early.to_str().unwrap(), "--output", "json"]).out).unwrap();
    assert_eq!((&report["lines"], &report["until"]), (&0.into(), &"2021-01-01T00:00:00.000Z".into()));
    std::fs::remove_file(early).unwrap();

    let changed = text.replacen("policy.create", "policy.delete", 1);
    let line = 1 + text.lines().position(|line| line.contains("policy.create")).unwrap();
    std::fs::write(&path, changed).unwrap();
    let told = verify(&[file]);
    assert_eq!(told.code, 1);
    assert!(told.err.contains(&format!("line {line}, event {}", line - 1)), "{}", told.err);
    assert!(told.out.starts_with("intact     no\n"), "{}", told.out);
    assert_eq!(verify(&["/nonexistent/file"]).code, 3);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no partial file is left");
}
