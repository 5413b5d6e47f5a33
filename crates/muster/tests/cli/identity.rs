//! `muster user`, `role`, `token`, `space` and `context`, and the connection over TCP with a token.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::world::{Ran, command, fails, file, finish, json, ok, world};

const PASSWORD: &str = "correct horse battery";

fn url() -> String {
    format!("http://{}", world().admin)
}

/// Runs `muster` against the admin listener with a token.
fn remote(token: &str, words: &[&str]) -> Ran {
    finish(command(&[words, &["--url", &url(), "--token", token]].concat()).env_remove("MUSTER_DATA_DIR"))
}

/// Runs `muster` with a line on stdin.
fn typing(line: &str, words: &[&str]) -> Ran {
    let mut command = command(words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{line}").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

fn new_token(owner: &str, role: &str, more: &[&str]) -> String {
    ok(&["user", "create", owner, "--service-account"]);
    ok(&["role", "bind", role, "--user", owner]);
    ok(&[&["token", "create", "--owner", owner], more].concat()).trim().to_owned()
}

#[test]
fn a_token_works_over_tcp_until_it_is_revoked() {
    let token = new_token("cli-token", "helpdesk", &["--name", "of the test", "--expires", "1h"]);
    let listed = remote(&token, &["agent", "list"]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    let refused = remote(&token, &["policy", "create", "x"]);
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("policies.create"), "{}", refused.err);
    let status = remote(&token, &["status"]);
    assert!(status.code == 0 && status.out.contains("online"), "{} {}", status.out, status.err);
    assert!(status.err.contains("refusals.read"), "{}", status.err);
    let own = remote(&token, &["token", "list", "--output", "json"]);
    let own: Value = serde_json::from_str(&own.out).unwrap();
    assert_eq!((&own[0]["name"], own.as_array().unwrap().len()), (&"of the test".into(), 1));
    assert_eq!(own[0].get("token"), None, "only the creation shows it");
    let id = own[0]["id"].as_str().unwrap();
    ok(&["token", "revoke", id, "--dry-run"]);
    assert_eq!(remote(&token, &["agent", "list"]).code, 0);
    ok(&["token", "revoke", id, "--yes"]);
    let revoked = remote(&token, &["agent", "list"]);
    assert_eq!(revoked.code, 4, "{}", revoked.err);
    assert!(revoked.err.contains("the token is revoked"), "{}", revoked.err);
    assert_eq!(json(&["token", "list", "--owner", "cli-token"])[0]["active"], false);
    assert!(ok(&["token", "list", "--all"]).contains("of the test"));
}

/// Reading a key by its id shows its token, which is another privilege than the one to revoke it.
#[test]
fn a_key_is_shown_and_revoked_without_the_privilege_to_read_its_token() {
    ok(&["enrollment-key", "create", "--name", "cli-leaked"]);
    let token = new_token("cli-operator", "fleet-operator", &[]);
    let shown = remote(&token, &["enrollment-key", "show", "cli-leaked", "--output", "json"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!((&shown["name"], shown.get("api_key")), (&"cli-leaked".into(), None));
    assert!(json(&["enrollment-key", "show", "cli-leaked"])["api_key"].is_string(), "administrators see it");
    let revoked = remote(&token, &["enrollment-key", "revoke", shown["id"].as_str().unwrap(), "--yes"]);
    assert_eq!(revoked.code, 0, "{}", revoked.err);
    assert_eq!(json(&["enrollment-key", "show", "cli-leaked"])["active"], false);
    let refused =
        remote(&new_token("cli-guest", "helpdesk", &[]), &["enrollment-key", "revoke", "cli-leaked", "--yes"]);
    assert_eq!(refused.code, 4, "{}", refused.err);
}

#[test]
fn a_user_gets_a_password_by_a_link_or_from_an_administrator() {
    ok(&["user", "create", "cli-ann", "--full-name", "Ann Lee"]);
    let cells = ok(&["user", "setup-link", "cli-ann", "--output", "csv"]);
    assert!(
        cells.starts_with("TOKEN,EXPIRES\r\n") && cells.lines().nth(1).is_some_and(|row| row.len() > 40),
        "{cells}"
    );
    let told = ok(&["user", "setup-link", "cli-ann"]);
    let page = format!("http://{}/setup?token=", world().admin);
    let link = told.lines().find_map(|line| line.trim().strip_prefix(&page)).unwrap_or_else(|| panic!("{told}"));
    assert!(link.len() > 40 && !link.contains(['=', '+', '/']), "percent-encoded: {link}");
    let link = ok(&["user", "setup-link", "cli-ann", "--output", "json"]);
    let link: Value = serde_json::from_str(&link).unwrap();
    let token = link["token"].as_str().unwrap();
    let set = typing(PASSWORD, &["user", "setup", token, "--password-stdin"]);
    assert_eq!((set.code, set.out.as_str()), (0, "cli-ann: password set\n"), "{}", set.err);
    let again = typing(PASSWORD, &["user", "setup", token, "--password-stdin"]);
    assert_eq!(again.code, 4, "{}", again.err);
    assert!(again.err.contains("hint: on the server's host, run: muster user setup-link"), "{}", again.err);
    let reset = typing("another good one", &["user", "reset-password", "CLI-ANN", "--password-stdin"]);
    assert_eq!(reset.code, 0, "{}", reset.err);
    let short = typing("short", &["user", "reset-password", "cli-ann", "--password-stdin"]);
    assert_eq!(short.code, 2, "{}", short.err);
    assert!(fails(2, &["user", "reset-password", "cli-ann"]).contains("--password-stdin"));
    assert_eq!(json(&["user", "show", "cli-ann"])["has_password"], true);
    ok(&["user", "lock", "cli-ann"]);
    assert!(!ok(&["user", "list", "--service-accounts"]).contains("cli-ann"));
    let table = ok(&["user", "list"]);
    assert!(table.lines().any(|line| line.starts_with("cli-ann") && line.contains("locked")), "{table}");
    ok(&["user", "unlock", "cli-ann"]);
    ok(&["user", "delete", "cli-ann", "--dry-run"]);
    ok(&["user", "delete", "cli-ann", "--yes"]);
    fails(3, &["user", "show", "cli-ann"]);
    assert!(fails(6, &["user", "delete", "admin", "--yes"]).contains("without an administrator"));
}

#[test]
fn roles_and_spaces_are_managed() {
    let role = json(&[
        "role",
        "create",
        "Cli Tagger",
        "--description",
        "Tags",
        "--privilege",
        "agents.read",
        "--privilege",
        "agents.tag",
    ]);
    assert_eq!(role["id"], "cli-tagger");
    let change = ["--privilege", "agents.read", "--description", "Reads", "--output", "json"];
    let role = ok(&[&["role", "update", "cli-tagger"], &change[..]].concat());
    let role: Value = serde_json::from_str(&role).unwrap();
    assert_eq!((&role["name"], &role["privileges"]), (&"Cli Tagger".into(), &serde_json::json!(["agents.read"])));
    fails(2, &["role", "create", "x", "--privilege", "agents.rule"]);
    fails(6, &["role", "delete", "helpdesk", "--yes"]);
    ok(&["space", "create", "cli-lab", "--name", "Laboratory"]);
    ok(&["user", "create", "cli-bob", "--service-account"]);
    let place = ["--in-space", "cli-lab", "--tag", "web"];
    let binding = json(&[&["role", "bind", "cli-tagger", "--user", "cli-bob"], &place[..]].concat());
    let shown = ok(&["role", "bindings", "--user", "cli-bob"]);
    assert!(shown.contains("space cli-lab, tags web"), "{shown}");
    let (_directory, file) = file("bound.yml", "name: bound\n");
    ok(&["policy", "apply", "-f", &file]);
    let policy = json(&["policy", "show", "bound"])["id"].as_str().unwrap().to_owned();
    let bind = ["role", "bind", "helpdesk", "--group", "cli-ops", "--in-space", "default", "--policy"];
    ok(&[&bind[..], &["bound"]].concat());
    fails(6, &[&bind[..], &["bound"]].concat());
    fails(3, &[&bind[..], &["nosuch"]].concat());
    let shown = ok(&["role", "bindings", "--output", "wide"]);
    assert!(shown.contains("cli-ops") && shown.contains(&format!("space default, policies {policy}")), "{shown}");
    fails(6, &["role", "delete", "cli-tagger", "--yes"]);
    ok(&["role", "unbind", binding["id"].as_str().unwrap(), "--dry-run"]);
    ok(&["role", "unbind", binding["id"].as_str().unwrap(), "--yes"]);
    ok(&["role", "delete", "cli-tagger", "--dry-run"]);
    ok(&["role", "delete", "cli-tagger", "--yes"]);
    let change = ["--name", "Lab", "--description", "of the test", "--output", "yaml"];
    let space = ok(&[&["space", "update", "cli-lab"], &change[..]].concat());
    assert!(space.contains("name: Lab") && space.contains("description: of the test"), "{space}");
    fails(2, &["space", "create", "Upper"]);
    fails(6, &["space", "delete", "default", "--yes"]);
    let policy = json(&["policy", "create", "in-the-lab", "--space", "cli-lab"]);
    assert!(fails(6, &["space", "delete", "cli-lab", "--yes"]).contains("is not empty"));
    fails(3, &["policy", "show", policy["id"].as_str().unwrap()]);
    ok(&["policy", "delete", "in-the-lab", "--space", "cli-lab", "--yes"]);
    ok(&["space", "delete", "cli-lab", "--yes"]);
    fails(3, &["agent", "list", "--space", "cli-lab"]);
}

#[test]
fn contexts_name_servers_with_credentials() {
    let token = new_token("cli-context", "auditor", &[]);
    let directory = tempfile::tempdir().unwrap();
    let with =
        |words: &[&str]| finish(command(words).env_remove("MUSTER_DATA_DIR").env("XDG_CONFIG_HOME", directory.path()));
    let added = with(&["context", "add", "one", "--url", &url(), "--token", &token]);
    assert_eq!(added.code, 0, "{}", added.err);
    assert_eq!(with(&["agent", "list"]).code, 0);
    let listed = with(&["context", "list", "--output", "json"]);
    assert!(listed.out.contains("\"has_token\": true") && !listed.out.contains(&token), "{}", listed.out);
    with(&["context", "add", "two", "--url", "http://127.0.0.1:1"]);
    assert_eq!(with(&["agent", "list"]).code, 5, "the newest context is the current one");
    assert_eq!(with(&["agent", "list", "--context", "one"]).code, 0);
    assert_eq!(with(&["context", "use", "one"]).code, 0);
    assert_eq!(with(&["agent", "list"]).code, 0);
    assert_eq!(with(&["agent", "list", "--url", &url()]).code, 4, "a URL needs a token of its own");
    assert_eq!(with(&["context", "use", "three"]).code, 3);
    assert_eq!(with(&["context", "remove", "one"]).code, 0);
    assert_eq!(with(&["context", "add", "four"]).code, 2);
}
