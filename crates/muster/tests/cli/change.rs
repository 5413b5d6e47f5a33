//! `muster change …`

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::world::{command, fails, json, new_policy, ok};

#[test]
fn changes_are_listed_after_a_number() {
    let policy = new_policy("changed");
    let listed = json(&["change", "list", "--after", "0"]);
    let rows = listed.as_array().unwrap();
    let row = rows.iter().find(|row| row["kind"] == "policy" && row["id"] == policy.as_str()).unwrap();
    let after = row["seq"].to_string();
    let later = json(&["change", "list", "--after", &after]);
    assert!(!later.as_array().unwrap().contains(row));
    let names = ok(&["change", "list", "--after", "0", "--output", "name"]);
    assert!(names.lines().any(|id| id == policy), "{names}");
    assert!(fails(6, &["change", "list", "--after", "999999999"]).contains("are not in the log"));
}

#[test]
fn changes_are_printed_as_they_are_made() {
    let before = json(&["change", "list", "--after", "0"]);
    let last = before.as_array().unwrap().last().map_or(0, |row| row["seq"].as_i64().unwrap()).to_string();
    let words = ["change", "watch", "--after", &last, "--output", "json"];
    let mut watch = command(&words).stdout(Stdio::piped()).spawn().unwrap();
    let policy = new_policy("watched");
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut rows = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    assert!(rows.any(|row| row["kind"] == "policy" && row["id"] == policy.as_str()));
    watch.kill().unwrap();
    watch.wait().unwrap();
}
