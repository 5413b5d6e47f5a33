//! `muster rollout …`

use std::time::{Duration, Instant};

use crate::agents::fleet;
use crate::world::{fails, file, json, ok};

fn policy(name: &str, output: &str) -> (tempfile::TempDir, String) {
    file(
        "policy.yml",
        &format!("name: {name}\nconfig:\n  outputs: {{default: {{type: kafka, hosts: [\"{output}:9092\"]}}}}\n"),
    )
}

#[test]
fn rollout_is_previewed_created_paused_resumed_and_rolled_back() {
    let (_first, first) = policy("staged", "one");
    ok(&["policy", "apply", "-f", &first, "--yes"]);
    let (_directory, changed) = policy("staged", "two");
    let dry =
        ok(&["rollout", "create", "-f", &changed, "--waves", "canary,3agents,50,100", "--soak", "10m", "--dry-run"]);
    let lines: Vec<&str> = dry.lines().collect();
    assert!(lines[0].starts_with("would roll out a change of the policy \"staged\" (currently revision 1)"), "{dry}");
    assert_eq!(lines[1], "wave 1: tags canary for 600 s: 0 agents reached");
    assert_eq!(lines[4], "wave 4: 100 % for 600 s: 0 agents reached");
    fails(2, &["rollout", "create", "-f", &changed]);
    let approved = ["rollout", "create", "-f", &changed, "--approve", "--dry-run"];
    assert!(ok(&approved).contains("wave 1: 5 % for 1800 s, then approval: 0 agents reached"));

    let id = ok(&["rollout", "create", "-f", &changed, "--yes", "--output", "name"]).trim().to_owned();
    let shown = json(&["rollout", "show", &id]);
    assert_eq!((&shown["revision"], &shown["last_good_revision"]), (&2.into(), &1.into()));
    assert_eq!(shown["plan"]["waves"][0]["percent"], 5);
    let listed = json(&["rollout", "list"]);
    assert!(listed.as_array().unwrap().iter().any(|rollout| rollout["id"] == id.as_str()));

    let (_third, third) = policy("staged", "three");
    let told = fails(6, &["policy", "apply", "-f", &third, "--yes"]);
    assert!(told.contains("has an active rollout") && told.contains("muster rollout rollback"), "{told}");
    assert_eq!(ok(&["rollout", "pause", &id]).trim(), format!("{id}: paused"));
    let told = fails(6, &["rollout", "approve", &id]);
    assert!(told.contains("a rollout that is paused cannot be approved"), "{told}");
    ok(&["rollout", "resume", &id]);
    fails(2, &["rollout", "rollback", &id]);
    assert_eq!(ok(&["rollout", "rollback", &id, "--yes"]).trim(), format!("{id}: rolled_back"));
    assert_eq!(json(&["policy", "show", "staged"])["revision"], 3);
    let ended = json(&["rollout", "list", "--state", "rolled_back"]);
    assert!(ended.as_array().unwrap().iter().any(|rollout| rollout["id"] == id.as_str()), "{ended}");
    let halted = json(&["rollout", "list", "--state", "halted"]);
    assert!(halted.as_array().unwrap().iter().all(|rollout| rollout["state"] == "halted"), "{halted}");
    assert!(fails(2, &["rollout", "list", "--state", "stopped"]).contains("unknown state"));
    fails(3, &["rollout", "show", "nothing"]);
}

#[test]
fn plan_is_read_from_a_file_and_checked() {
    let (_first, first) = policy("planned", "one");
    ok(&["policy", "apply", "-f", &first, "--yes"]);
    let (_directory, changed) = policy("planned", "two");
    let refused = |text: &str| {
        let (_plan, plan) = file("plan.yml", text);
        fails(2, &["rollout", "create", "-f", &changed, "--plan", &plan, "--yes"])
    };
    let message = refused("waves: [{percent: 50}]");
    assert!(message.contains("waves: the last wave must contain 100 percent of the agents"), "{message}");
    let message = refused("waves: [{percent: 5, count: 3}, {percent: 100}]");
    assert!(message.contains("rollout.waves[0]: needs exactly one of percent, count and tags"), "{message}");
    assert!(refused("wave: []").contains("wave"));
    let text = "waves:\n  - {tags: [lab], soak_seconds: 60, needs_approval: true}\n  - {percent: 100}\ngate: {max_unhealthy_percent: 1}\n";
    let (_plan, plan) = file("plan.yml", text);
    let made = json(&["rollout", "create", "-f", &changed, "--plan", &plan, "--yes"]);
    let gate = &made["plan"]["gate"];
    assert_eq!((&gate["max_unhealthy_percent"], &gate["max_failed_percent"]), (&1.into(), &5.into()));
}

#[test]
fn managed_policy_with_secrets_is_rolled_out_with_force() {
    let text = |password: &str| {
        format!(
            "name: kept\nsettings: {{is_managed: true}}\nconfig:\n  outputs: {{default: {{type: kafka, hosts: [\"k:9092\"], password: \"{password}\"}}}}\n"
        )
    };
    let (_first, first) = file("policy.yml", &text(""));
    ok(&["policy", "apply", "-f", &first, "--yes"]);
    let (_second, second) = file("policy.yml", &text("$co.elastic.secret{PW}"));
    let create = ["rollout", "create", "-f", &second, "--secret", "PW=hunter2", "--yes"];
    let told = fails(1, &create);
    assert!(told.contains("is managed"), "{told}");
    ok(&[&create[..], &["--force"]].concat());
    assert_eq!(json(&["policy", "show", "kept"])["secret_names"], serde_json::json!(["PW"]));
}

#[test]
fn agents_are_upgraded_in_waves() {
    let (_policy, _agents) = fleet("upgraded in waves", &["waves-1", "waves-2"]);
    let both =
        ["rollout", "upgrade", "waves-1", "waves-2", "--version", "9.6.0", "--source-uri", "https://mirror.example/"];
    let dry = ok(&[&both[..], &["--waves", "1agents,100", "--soak", "1h", "--dry-run"]].concat());
    assert_eq!(dry.lines().next(), Some("would upgrade 2 agents to 9.6.0:"), "{dry}");
    assert!(dry.contains("wave 1: 1 agent for 3600 s: 1 agent reached"), "{dry}");
    fails(2, &both);
    let (_plan, plan) = file("plan.yml", "waves: [{count: 1, soak_seconds: 3600}, {percent: 100}]");
    let id = ok(&[&both[..], &["--plan", &plan, "--yes", "--output", "name"]].concat()).trim().to_owned();
    let end = Instant::now() + Duration::from_secs(30);
    while json(&["rollout", "show", &id]).get("action_ids").is_none() {
        assert!(Instant::now() < end, "the first wave has an action");
        std::thread::sleep(Duration::from_millis(100));
    }
    let shown = json(&["rollout", "show", &id]);
    assert_eq!((&shown["version"], &shown["started_waves"]), (&"9.6.0".into(), &1.into()));
    let action = json(&["action", "show", shown["action_ids"][0].as_str().unwrap()]);
    assert_eq!(action["action"]["nbAgentsActioned"], 1);
    assert!(ok(&["rollout", "list"]).contains("upgrade to 9.6.0"));
    ok(&["rollout", "pause", &id]);
    assert_eq!(ok(&["rollout", "rollback", &id, "--yes"]).trim(), format!("{id}: rolled_back"));
    let every =
        ["rollout", "upgrade", "--filter", "hostname:waves-1", "--include-inactive", "--version", "9.6.0", "--approve"];
    assert!(ok(&[&every[..], &["--dry-run"]].concat()).contains("then approval"));
    fails(3, &["rollout", "upgrade", "--filter", "hostname:nobody", "--version", "9.6.0", "--yes"]);
}
