//! Every listing in every form; what agents say is harmless; a pipe may close.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::agents::fleet;
use crate::world::{command, json, new_policy, ok, run, world, yaml};

/// Headings of a table, or of a wide one.
fn headings(words: &[&str], form: &str) -> String {
    let table = ok(&[words, &["--output", form]].concat());
    table.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_list_supports_every_output_format() {
    let (policy, agents) = fleet("forms", &["forms-1"]);
    ok(&["agent", "tag", &agents[0].id, "--tag", "formed"]);
    let listings: [(&[&str], &str, &str, &str); 4] = [
        (&["agent", "list"], "id", "ID HOST STATUS POLICY REVISION VERSION LAST CHECK-IN", "TAGS"),
        (&["policy", "list"], "id", "ID NAME REVISION AGENTS UPDATED", "NAMESPACE"),
        (&["enrollment-key", "list"], "id", "ID NAME FAMILY ACTIVE POLICY USES EXPIRES", "LAST USED"),
        (&["action", "list"], "actionId", "ID TYPE STATUS AGENTS ACKED FAILED CREATED", "COMPLETED"),
    ];
    for (words, id, columns, wide) in listings {
        assert_eq!(headings(words, "table"), columns);
        let more = headings(words, "wide");
        assert!(more.starts_with(columns) && more.contains(wide), "{more}");
        let (as_json, as_yaml) = (json(words), yaml(words));
        let has = |list: &serde_json::Value| list.as_array().unwrap().iter().any(|item| item[id].is_string());
        assert!(has(&as_json) && has(&as_yaml), "{words:?}: {as_json}");
        let names = ok(&[words, &["--output", "name"]].concat());
        assert!(!names.is_empty() && names.lines().all(|name| !name.contains(' ')), "{words:?}: {names}");
    }
    let revisions: &[&str] = &["policy", "revisions", "forms"];
    assert_eq!(headings(revisions, "table"), "REVISION CREATED BY");
    assert_eq!(json(revisions)[0]["revision"], yaml(revisions)[0]["revision"]);
    assert_eq!(ok(&[revisions, &["-o", "name"]].concat()), "1\n");
    assert_eq!(json(&["policy", "show", "forms"])["id"], policy);
}

#[test]
fn every_object_supports_every_output_format() {
    let (policy, agents) = fleet("single", &["single-1"]);
    let agent = agents[0].id.as_str();
    let action = ok(&["agent", "log-level", agent, "--level", "debug"]);
    let action = action.trim();
    let things: [(&[&str], &str, &str); 4] = [
        (&["agent", "show", agent], agent, "/id"),
        (&["policy", "show", "single"], &policy, "/id"),
        (&["action", "show", action], action, "/action/actionId"),
        (&["status"], "available", "/server"),
    ];
    for (words, id, path) in things {
        for form in ["table", "wide"] {
            let lines = ok(&[words, &["--output", form]].concat());
            assert!(lines.lines().next().is_some_and(|line| line.ends_with(id)), "{words:?}: {lines}");
        }
        assert_eq!(json(words).pointer(path).unwrap(), id);
        assert_eq!(yaml(words).pointer(path).unwrap(), id);
        assert_eq!(ok(&[words, &["--output", "name"]].concat()).trim_end(), id);
    }
    let shown = json(&["action", "show", action]);
    assert_eq!(shown["results"][0]["agent_id"], agent);
    assert!(ok(&["action", "show", action]).contains("queued"), "people see each agent's answer");
    assert!(json(&["status"])["agents"]["all"].as_u64().unwrap() >= 1);
}

/// A number of `status` is that of `agent list` with the same word.
#[test]
fn status_counts_agents_by_the_words_of_the_list() {
    let text = ok(&["status"]).to_lowercase();
    for status in muster_core::status::Status::ALL {
        let word = status.as_str();
        let is_counted = text.lines().any(|line| line.split([' ', ':']).next() == Some(word));
        assert!(is_counted, "{word}: {text}");
    }
    let counts = &json(&["status"])["agents"];
    for word in ["updating", "enrolling", "unenrolling"] {
        assert!(counts[word].is_u64(), "{word}: {counts}");
    }
}

#[test]
fn data_from_agents_cannot_control_the_terminal() {
    let host = "evil\u{1b}[2J\u{9b}31m\u{202e}txt";
    let (_, agents) = fleet("steering", &[host]);
    agents[0].check_in();
    let id = agents[0].id.as_str();
    let steering = |text: &str| text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'));
    for words in [&["agent", "list"][..], &["agent", "show", id], &["agent", "list", "--filter", "tags:steering"]] {
        for form in ["table", "wide", "json", "yaml", "name"] {
            let out = ok(&[words, &["--output", form]].concat());
            assert!(!steering(&out), "{words:?} {form}: {out:?}");
            assert!(form == "name" || out.contains("evil"), "{out}");
        }
    }
    let shown = json(&["agent", "show", id]);
    assert_eq!(shown["local_metadata"]["host"]["hostname"], host, "JSON is escaped, not changed");
    ok(&["agent", "log-level", id, "--level", "info"]);
    let action = agents[0].take("SETTINGS", Some("no \u{1b}]0;pwned\u{7} luck"));
    let waited = run(&["action", "wait", action["id"].as_str().unwrap()]);
    assert_eq!(waited.code, 1);
    assert!(waited.err.contains("luck") && !steering(&waited.err), "{:?}", waited.err);
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    for name in ["piped-a", "piped-b"] {
        new_policy(name);
    }
    let policy = json(&["policy", "show", "piped-a"])["id"].as_str().unwrap().to_owned();
    let commands: [&[&str]; 6] = [
        &["policy", "list", "--output", "json"],
        &["policy", "show", "piped-a"],
        &["agent", "list"],
        &["completions", "bash"],
        &["status"],
        &["enrollment-key", "create", "--policy", &policy],
    ];
    for words in commands {
        // Closed before it writes: the hardest case of `| head -1`.
        let mut child = command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{words:?}");
    }
    // Closed after the first line.
    let mut child = command(&["completions", "zsh"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("muster"), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn truncated_lists_print_a_note() {
    fleet("cut", &["cut-1", "cut-2", "cut-3"]);
    let ran = run(&["agent", "list", "--filter", "tags:cut", "--limit", "2", "--output", "name"]);
    assert_eq!(ran.out.lines().count(), 2);
    assert_eq!(ran.err, "muster: showing 2 of 3 agents\n  hint: raise --limit, or narrow --filter\n");
    for limit in ["3", "1000", "10000"] {
        let ran = run(&["agent", "list", "--filter", "tags:cut", "--limit", limit, "--output", "name"]);
        assert_eq!((ran.out.lines().count(), ran.err.as_str()), (3, ""));
    }
    let ids: Vec<String> = ["cut-1", "cut-2"].map(|host| ok(&["agent", "log-level", host, "--level", "info"])).into();
    let ran = run(&["action", "list", "--limit", "1", "--output", "name"]);
    assert_eq!(ran.out.lines().count(), 1);
    assert!(ran.err.starts_with("muster: showing the newest 1 of "), "{}", ran.err);
    let all = ok(&["action", "list", "--limit", "5000", "--latest", "1h", "--output", "name"]);
    assert!(ids.iter().all(|id| all.contains(id.trim())), "{all}");
}

#[test]
fn an_output_to_which_the_server_may_not_connect_is_shown_with_a_warning() {
    let output = serde_json::json!({
        "id": "near", "name": "near", "type": "elasticsearch", "hosts": ["https://localhost:9200"],
        "secrets": {"service_token": "t"},
    });
    let client = muster_client::Client::unix(world().data().join("admin.sock")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let made = runtime.block_on(client.create_output(output.as_object().unwrap())).unwrap();
    assert!(made.warnings[0].contains("outgoing.allow_local_targets"), "{:?}", made.warnings);
    let told = run(&["output", "show", "near"]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(told.err.contains("warning: hosts: the server cannot create keys"), "{}", told.err);
    let far =
        serde_json::json!({"hosts": ["https://es.example:9200"], "warnings": made.warnings, "service_token": "t"});
    let moved = runtime.block_on(client.update_output("near", far.as_object().unwrap())).unwrap();
    assert!(moved.warnings.is_empty(), "{:?}", moved.warnings);
    runtime.block_on(client.delete_output("near")).unwrap();
}
