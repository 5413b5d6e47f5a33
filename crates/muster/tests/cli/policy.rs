//! `muster policy …`

use std::io::Write as _;
use std::process::Stdio;

use crate::agents::fleet;
use crate::world::{command, fails, file, json, new_policy, ok, yaml};

fn web(name: &str, extra: &str) -> String {
    format!(
        "name: {name}
description: Web servers
tags: [front]
settings:
  inactivity_timeout: 3600
config:
  outputs:
    default:
      type: elasticsearch
      hosts: [\"https://es.example:9200\"]
      api_key: $co.elastic.secret{{KEY}}
  inputs:
    - {{id: hello, type: process, command: /usr/bin/sleep, args: [\"3600\"]}}
{extra}"
    )
}

fn revision(name: &str) -> i64 {
    json(&["policy", "show", name])["revision"].as_i64().unwrap()
}

#[test]
fn applying_twice_is_a_no_op() {
    let (_directory, path) = file("web.yml", &web("twice", ""));
    let apply = ["policy", "apply", "-f", &path, "--secret", "KEY=id:secret"];
    assert_eq!(ok(&[&apply[..], &["--dry-run"]].concat()), "would create the policy \"twice\"\n");
    fails(3, &["policy", "show", "twice"]);
    assert_eq!(ok(&apply), "created the policy \"twice\", revision 1\n");
    let before = json(&["policy", "show", "twice"]);
    assert_eq!((&before["description"], &before["inactivity_timeout"]), (&"Web servers".into(), &3600.into()));
    assert_eq!(ok(&apply), "no changes to the policy \"twice\", revision 1\n", "the secret is the same");
    let again = ["policy", "apply", "-f", &path];
    assert_eq!(ok(&again), "no changes to the policy \"twice\", revision 1\n");
    let dry = ok(&[&again[..], &["--dry-run"]].concat());
    assert_eq!(dry, "the policy \"twice\" is up to date (revision 1)\n");
    assert_eq!(json(&["policy", "show", "twice"]), before, "not even its times change");
}

#[test]
fn a_dry_run_prints_every_change_and_makes_none() {
    let (_directory, path) = file("web.yml", &web("plan", ""));
    ok(&["policy", "apply", "-f", &path, "--secret", "KEY=x"]);
    std::fs::write(&path, web("plan", "    - {id: more, type: logfile}\n").replace("Web servers", "Shop")).unwrap();
    let dry = ok(&["policy", "apply", "-f", &path, "--dry-run"]);
    let lines: Vec<&str> = dry.lines().collect();
    assert_eq!(lines[0], "would update the policy \"plan\" (currently revision 1):");
    assert!(lines[1].starts_with("PATH"), "{dry}");
    assert!(lines[2].starts_with("/config/inputs/more  -"), "{dry}");
    assert!(lines[3].starts_with("/description") && lines[3].contains("\"Web servers\"  \"Shop\""), "{dry}");
    assert_eq!((lines.len(), revision("plan")), (4, 1));
    assert_eq!(ok(&["policy", "apply", "-f", &path]), "updated the policy \"plan\", revision 2\n");
    let changed = json(&["policy", "apply", "-f", &path]);
    assert_eq!((&changed["revision"], &changed["description"]), (&2.into(), &"Shop".into()));
}

#[test]
fn a_removed_line_is_removed_from_the_policy_and_settings_stay() {
    let (_directory, path) = file("web.yml", &web("shrink", ""));
    ok(&["policy", "apply", "-f", &path, "--secret", "KEY=x"]);
    std::fs::write(&path, "name: shrink\n").unwrap();
    let dry = ok(&["policy", "apply", "-f", &path, "--dry-run"]);
    assert!(dry.contains("/description") && dry.contains("/tags") && !dry.contains("/config"), "{dry}");
    let policy = json(&["policy", "apply", "-f", &path]);
    assert_eq!((policy.get("description"), &policy["inactivity_timeout"]), (None, &3600.into()));
    assert_eq!(policy["config"]["inputs"][0]["id"], "hello");
    assert!(ok(&["policy", "apply", "-f", &path]).starts_with("no changes to the policy "));
}

#[test]
fn errors_are_reported_with_file_line_and_column() {
    let text = "name: places\nsettings:\n  monitoring_enabled: [logs, metric]\nconfig:\n  inputs:\n    - {type: process, command: /x, id: a}\n";
    let (_directory, path) = file("places.yml", text);
    let told = fails(2, &["policy", "apply", "-f", &path]);
    assert!(told.contains(&format!("{path}:3:30: settings.monitoring_enabled.1: unknown signal `metric`")), "{told}");
    let secret =
        "name: places\nconfig:\n  inputs:\n    - type: x\n      enabled: false\n      id: $co.elastic.secret{NONE}\n";
    std::fs::write(&path, secret).unwrap();
    let told = fails(2, &["policy", "apply", "-f", &path]);
    assert!(told.contains(&format!("{path}:6:7: config.inputs.0.id: the policy has no secret `NONE`")), "{told}");
    std::fs::write(&path, "name: places\nconfig:\n  outputs:\n    default: {type: elastic}\n").unwrap();
    for dry in [&["--dry-run"][..], &[]] {
        let told = fails(2, &[&["policy", "apply", "-f", &path][..], dry].concat());
        assert!(told.contains(&format!("{path}:4:15: config.outputs.default.type: ")), "{told}");
    }
    fails(3, &["policy", "show", "places"]);
}

#[test]
fn warnings_are_printed_with_their_position_and_do_not_fail() {
    let text = "name: warned\nconfig:\n  agent.monitoring: {enabled: true, logs: true}\n  inputs:\n    - {type: process, command: /x}\n";
    let (_directory, path) = file("warned.yml", text);
    // The last two change nothing: the warnings are about the policy as it is.
    for dry in [&["--dry-run"][..], &[], &[], &["--dry-run"]] {
        let ran = crate::world::run(&[&["policy", "apply", "-f", &path][..], dry].concat());
        let told = format!("muster: warning: {path}:3:3: config.agent.monitoring: monitoring is disabled");
        assert!(ran.code == 0 && ran.err.contains(&told), "{}", ran.err);
    }
    assert_eq!(json(&["policy", "show", "warned", "--full"])["agent"]["monitoring"]["enabled"], false);
}

#[test]
fn null_resets_settings_and_is_shown_in_the_dry_run() {
    let set = "name: nulls\nsettings: {unenroll_timeout: 60, inactivity_timeout: 30, is_protected: true, is_managed: false}\n";
    let (_directory, path) = file("nulls.yml", set);
    ok(&["policy", "apply", "-f", &path]);
    assert_eq!(json(&["policy", "show", "nulls"])["unenroll_timeout"], 60);
    let null = "name: nulls\nsettings: {unenroll_timeout: null, inactivity_timeout: null, is_protected: null}\n";
    std::fs::write(&path, null).unwrap();
    let dry = ok(&["policy", "apply", "-f", &path, "--dry-run"]);
    assert!(
        ["/unenroll_timeout    60", "/inactivity_timeout", "/is_protected"].iter().all(|path| dry.contains(path)),
        "{dry}"
    );
    let policy = json(&["policy", "apply", "-f", &path]);
    assert_eq!(
        (&policy["unenroll_timeout"], &policy["inactivity_timeout"]),
        (&serde_json::Value::Null, &1_209_600.into())
    );
    assert_eq!(policy["is_protected"], serde_json::Value::Null);
    assert!(ok(&["policy", "apply", "-f", &path]).starts_with("no changes to the policy "));
}

#[test]
fn a_policy_is_read_from_standard_input() {
    let mut child =
        command(&["policy", "apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"name: piped-in\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "created the policy \"piped-in\", revision 1\n");
}

#[test]
fn a_change_for_many_agents_requires_confirmation() {
    let (_directory, path) = file("many.yml", "name: many\n");
    ok(&["policy", "apply", "-f", &path]);
    let (_, one) = fleet("many-other", &["many-1", "many-2"]);
    let ids: Vec<&str> = one.iter().map(|agent| agent.id.as_str()).collect();
    ok(&[&["agent", "reassign", "--policy", "many", "--yes"], &ids[..]].concat());
    ok(&["policy", "apply", "-f", &path]);
    std::fs::write(&path, "name: many\nconfig: {inputs: [{id: a, type: process, command: /x}]}\n").unwrap();
    let told = fails(2, &["policy", "apply", "-f", &path]);
    assert!(told.contains("Update the policy \"many\" of 2 agents? Nothing was changed"), "{told}");
    assert_eq!(revision("many"), 1);
    assert_eq!(ok(&["policy", "apply", "-f", &path, "--yes"]), "updated the policy \"many\", revision 2\n");
}

#[test]
fn secrets_are_never_printed() {
    let (_directory, path) = file("web.yml", &web("hush", ""));
    let (_other, key) = file("key.txt", "hunter2hunter2\n");
    ok(&["policy", "apply", "-f", &path, "--secret", &format!("KEY=@{key}")]);
    let shown = [
        ok(&["policy", "show", "hush"]),
        ok(&["policy", "show", "hush", "-o", "json"]),
        ok(&["policy", "show", "hush", "--full"]),
    ];
    assert!(shown.iter().all(|text| !text.contains("hunter2")), "{shown:?}");
    assert!(shown[0].contains("secrets        KEY"), "{}", shown[0]);
    let told = fails(2, &["policy", "apply", "-f", &path, "--secret", "hunter2"]);
    assert!(told.contains("--secret expects NAME=VALUE") && !told.contains("hunter2"), "{told}");
}

#[test]
fn the_rendered_policy_is_shown_as_a_tree() {
    let (_directory, path) = file("web.yml", &web("whole", ""));
    ok(&["policy", "apply", "-f", &path, "--secret", "KEY=x"]);
    let full = ["policy", "show", "whole", "--full"];
    let (as_json, as_yaml) = (json(&full), yaml(&full));
    assert_eq!(as_json, as_yaml);
    assert_eq!(as_json["inputs"][0]["command"], "/usr/bin/sleep");
    let table: serde_json::Value = serde_saphyr::from_str(&ok(&full)).unwrap();
    assert_eq!(table, as_json, "a table can't show a tree: YAML does");
    assert_eq!(ok(&[&full[..], &["-o", "name"]].concat()).trim(), json(&full[..3])["id"]);
    assert_eq!(json(&[&full[..], &["--revision", "1"]].concat())["revision"], 1);
    fails(3, &[&full[..], &["--revision", "9"]].concat());
}

#[test]
fn revisions_are_compared_and_rolled_back() {
    let (_directory, path) = file("back.yml", "name: back\nconfig: {inputs: [{id: a, type: process, command: /x}]}\n");
    ok(&["policy", "apply", "-f", &path]);
    std::fs::write(&path, "name: back\nconfig: {inputs: [{id: b, type: process, command: /x}]}\n").unwrap();
    ok(&["policy", "apply", "-f", &path]);
    assert_eq!(ok(&["policy", "revisions", "back", "-o", "name"]), "2\n1\n");
    let diff = json(&["policy", "diff", "back", "1", "2"]);
    assert_eq!((&diff["from"], &diff["to"]), (&1.into(), &2.into()));
    assert_eq!(yaml(&["policy", "diff", "back", "1"]), diff, "without a second one: the newest");
    let table = ok(&["policy", "diff", "back", "1"]);
    assert!(table.starts_with("PATH") && table.contains("/inputs/"), "{table}");
    assert!(ok(&["policy", "diff", "back", "1", "-o", "name"]).lines().all(|path| path.starts_with('/')));

    let dry = ok(&["policy", "rollback", "back", "--to", "1", "--dry-run"]);
    assert!(dry.starts_with("would roll the policy \"back\" of 0 agents back to revision 1:\nPATH"), "{dry}");
    fails(2, &["policy", "rollback", "back", "--to", "1"]);
    assert_eq!(revision("back"), 2);
    let rolled = json(&["policy", "rollback", "back", "--to", "1", "--yes"]);
    assert_eq!((&rolled["revision"], &rolled["config"]["inputs"][0]["id"]), (&3.into(), &"a".into()));
    assert_eq!(json(&["policy", "diff", "back", "1", "3"])["changes"].as_array().map(Vec::len), Some(0));
}

#[test]
fn policies_are_created_listed_and_deleted() {
    let made = json(&["policy", "create", "by hand", "--description", "It's here", "--namespace", "prod"]);
    assert_eq!((&made["description"], &made["namespace"]), (&"It's here".into(), &"prod".into()));
    let id = made["id"].as_str().unwrap();
    assert_eq!(json(&["policy", "show", id]), json(&["policy", "show", "by hand"]));
    assert_eq!(ok(&["policy", "list", "--filter", "name:\"by hand\"", "-o", "name"]).trim(), id);
    let dry = ok(&["policy", "delete", "by hand", "--dry-run"]);
    assert_eq!(dry, "would delete the policy \"by hand\" and its enrollment keys\n");
    let told = fails(2, &["policy", "delete", "by hand"]);
    assert!(told.contains("Delete the policy \"by hand\" and its enrollment keys? Nothing was changed"), "{told}");
    ok(&["policy", "show", "by hand"]);
    assert_eq!(ok(&["policy", "delete", "by hand", "--yes"]), "deleted the policy \"by hand\"\n");
    fails(3, &["policy", "show", id]);
    assert!(ok(&["policy", "create", "by hand again"]).contains("name           by hand again"));
}

#[test]
fn more_policies_than_fit_on_a_page_are_all_listed() {
    let names: Vec<String> = (0..101).map(|number| format!("page-{number}")).collect();
    let ids: Vec<String> = names.iter().map(|name| new_policy(name)).collect();
    let listed = ok(&["policy", "list", "--filter", "name:page-*", "-o", "name"]);
    assert_eq!(listed.lines().count(), 101);
    assert!(ids.iter().all(|id| listed.contains(id)));
    let keys = ok(&["enrollment-key", "list", "-o", "name"]);
    assert!(keys.lines().count() > 101, "every policy has a key");
}

#[test]
fn a_dry_run_fails_like_the_change_itself() {
    let (_directory, bad) = file("bad.yml", "name: tried\nconfig: {inputs: [{id: a}]}\n");
    let meant = fails(2, &["policy", "apply", "-f", &bad]);
    assert_eq!(fails(2, &["policy", "apply", "-f", &bad, "--dry-run"]), meant);
    let (_directory, good) = file("good.yml", "name: tried\n");
    assert_eq!(ok(&["policy", "apply", "-f", &good, "--dry-run"]), "would create the policy \"tried\"\n");
    let plan = json(&["policy", "apply", "-f", &good, "--dry-run"]);
    assert_eq!((&plan["outcome"], &plan["previous_revision"]), (&"created".into(), &serde_json::Value::Null));
    fails(3, &["policy", "show", "tried"]);
    ok(&["policy", "apply", "-f", &good]);
    let (_directory, other) = file("other.yml", "name: tried\ndescription: other\n");
    let plan = json(&["policy", "apply", "-f", &other, "--dry-run"]);
    assert_eq!(
        (&plan["previous_revision"], &plan["changes"][0]["path"]),
        (&1.into(), &"/description".into()),
        "{plan}"
    );
    fails(2, &["policy", "apply", "-f", &bad, "--dry-run"]);
    fails(3, &["policy", "rollback", "tried", "--to", "9", "--dry-run"]);
    let (_, agents) = fleet("tried in use", &["tried-1"]);
    fails(6, &["policy", "delete", "tried in use", "--dry-run"]);
    ok(&["agent", "unenroll", &agents[0].id, "--force"]);
    ok(&["policy", "delete", "tried in use", "--dry-run"]);
    ok(&["policy", "show", "tried in use"]);
    assert_eq!(json(&["policy", "show", "tried"])["revision"], 1);
}

#[test]
fn managed_policies_are_changed_only_with_force() {
    let apply = |text: &str, more: &[&str]| {
        let (_directory, path) = file("managed.yml", text);
        crate::world::run(&[&["policy", "apply", "-f", &path], more].concat())
    };
    let managed = "name: managed\nsettings: {is_managed: true}\n";
    assert_eq!(apply(managed, &[]).code, 0);
    let changed = format!("{managed}description: other\n");
    for more in [&[][..], &["--dry-run"]] {
        let ran = apply(&changed, more);
        assert!(ran.code != 0 && ran.err.contains("with force"), "{}", ran.err);
    }
    assert_eq!(apply(&changed, &["--force"]).code, 0);
    let (_, agents) = fleet("guests", &["guest-1"]);
    let reassign = ["agent", "reassign", &agents[0].id, "--policy", "managed"];
    for more in [&[][..], &["--dry-run"]] {
        assert!(fails(1, &[&reassign, more].concat()).contains("with force"));
    }
    ok(&[&reassign[..], &["--force"]].concat());
    ok(&["agent", "reassign", &agents[0].id, "--policy", "guests", "--force"]);
    fails(1, &["policy", "delete", "managed", "--yes"]);
    ok(&["policy", "rollback", "managed", "--to", "1", "--force", "--yes"]);
    ok(&["policy", "delete", "managed", "--yes", "--force"]);
}

#[test]
fn mg154_versions_for_automatic_upgrades_are_set_and_shown() {
    let made = json(&["policy", "create", "upgrading", "--auto-upgrade", "9.5.2=90", "--auto-upgrade", "9.6.0=10%"]);
    assert_eq!(made["required_versions"][1], serde_json::json!({"version": "9.6.0", "percentage": 10.0}));
    let shown = ok(&["policy", "show", "upgrading"]);
    assert!(shown.contains("9.5.2=90, 9.6.0=10"), "{shown}");
    assert!(fails(2, &["policy", "create", "wrong", "--auto-upgrade", "9.5.2"]).contains("VERSION=PERCENT"));
    let refused = fails(2, &["policy", "create", "wrong", "--auto-upgrade", "9.5.2=60", "--auto-upgrade", "9.6.0=50"]);
    assert!(refused.contains("exceed 100"), "{refused}");
}
