//! `muster agent …`

use std::time::Duration;

use muster_core::time::Timestamp;

use crate::agents::fleet;
use crate::world::{fails, json, new_policy, ok};

fn shown(agent: &str) -> serde_json::Value {
    json(&["agent", "show", agent])
}

fn count(filter: &str) -> usize {
    ok(&["agent", "list", "--filter", filter, "--output", "name"]).lines().count()
}

#[test]
fn agents_are_listed_by_filter_and_shown_by_id_or_host_name() {
    let (policy, agents) = fleet("look", &["look-1", "look-2"]);
    assert_eq!(count("tags:look"), 2);
    assert_eq!(count(&format!("policy_id:\"{policy}\" and not status:error")), 2);
    assert_eq!(count(&format!("tags:look and id:\"{}\"", agents[0].id)), 1);
    assert_eq!(count("status:(offline or error) and tags:\"look\""), 0);
    assert_eq!(shown("look-2")["id"], agents[1].id.as_str());
    agents[0].check_in();
    let details = ok(&["agent", "show", "look-1"]);
    for part in
        ["\nhost            look-1\n", "\ncomponents      log-default HEALTHY\n", "\npolicy          look\n", &policy]
    {
        assert!(details.contains(part), "{part} is missing in\n{details}");
    }
}

#[test]
fn host_names_ignore_case_and_include_unenrolled_agents() {
    let (_, agents) = fleet("cases", &["Cases-1.Example", "cases-2"]);
    assert_eq!(shown("cases-1.example")["id"], agents[0].id.as_str());
    ok(&["agent", "unenroll", "CASES-2", "--force"]);
    let gone = shown("cases-2");
    assert_eq!((&gone["id"], &gone["status"]), (&agents[1].id.as_str().into(), &"unenrolled".into()));
    // The one that came after it is meant from then on.
    let (_, next) = fleet("cases again", &["cases-2"]);
    assert_eq!(shown("cases-2")["id"], next[0].id.as_str());
    assert_eq!(count("hostname:\"CASES-1.example\""), 1);
    fails(3, &["agent", "show", "cases-3"]);
    fails(3, &["agent", "unenroll", "cases-1.example", "cases-3", "--yes"]);
}

#[test]
fn lists_are_read_page_by_page_to_the_end() {
    let hosts: Vec<String> = (0..12).map(|number| format!("piece-{number}")).collect();
    fleet("pieces", &hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let list = ["agent", "list", "--filter", "tags:pieces", "-o", "name"];
    assert_eq!(ok(&list).lines().count(), 12);
    let ran = crate::world::run(&[&list[..], &["--limit", "5"]].concat());
    assert_eq!(ran.out.lines().count(), 5);
    assert!(ran.err.contains("5 of 12 agents"), "{}", ran.err);
}

#[test]
fn an_ambiguous_host_name_is_an_error() {
    let (_, agents) = fleet("twins", &["twin", "twin"]);
    let told = fails(2, &["agent", "unenroll", "twin"]);
    assert!(
        told.contains("2 agents have the host name \"twin\"") && told.contains("pass the id of one of them"),
        "{told}"
    );
    assert!(agents.iter().all(|agent| told.contains(&agent.id)), "{told}");
}

#[test]
fn agents_are_unenrolled_or_revoked() {
    let (_, agents) = fleet("leave", &["leave-1", "leave-2", "leave-3"]);
    let dry = ok(&["agent", "unenroll", "--filter", "tags:leave", "--dry-run"]);
    assert_eq!(dry, "would unenroll 3 agents\n");
    assert_eq!(
        ok(&["agent", "unenroll", "leave-1", "--force", "--dry-run"]),
        "would unenroll 1 agent and immediately revoke access keys\n"
    );
    assert!(agents.iter().all(|agent| shown(&agent.id)["unenrollment_started_at"].is_null()));

    let told = fails(2, &["agent", "unenroll", "--filter", "tags:leave"]);
    assert!(
        told.contains("Unenroll 3 agents? Nothing was changed: cannot ask for confirmation without a terminal"),
        "{told}"
    );
    assert!(told.contains("\n  hint: pass --yes to confirm, or --dry-run"), "{told}");
    assert!(agents.iter().all(|agent| shown(&agent.id)["unenrollment_started_at"].is_null()));

    let action = ok(&["agent", "unenroll", "leave-1"]);
    assert_eq!(agents[0].take("UNENROLL", None)["id"], action.trim());
    assert_eq!(shown(&agents[0].id)["status"], "unenrolled");
    assert_eq!(count("tags:leave"), 2);

    ok(&["agent", "unenroll", "leave-2", "leave-3", "--force", "--yes", "--reason", "stolen with the van"]);
    let recorded = ok(&["audit", "list", "--action", "action.create", "--limit", "100", "--output", "json"]);
    assert!(recorded.contains("\"reason\": \"stolen with the van\""), "{recorded}");
    for agent in &agents[1..] {
        let agent = shown(&agent.id);
        assert_eq!((&agent["active"], &agent["access_api_key_id"]), (&false.into(), &serde_json::Value::Null));
    }
    // An agent that left can't be told to leave: the reason comes at once.
    let told = fails(1, &["agent", "unenroll", &agents[0].id]);
    assert!(told.contains(&agents[0].id), "{told}");
}

#[test]
fn agents_are_reassigned_to_another_policy_or_to_none() {
    let (_, agents) = fleet("move", &["move-1", "move-2"]);
    let other = new_policy("move target");
    let dry = ok(&["agent", "reassign", "--filter", "tags:move", "--policy", "move target", "--dry-run"]);
    assert_eq!(dry, "would assign 2 agents to the policy \"move target\"\n");
    assert_ne!(shown("move-1")["policy_id"], other);
    ok(&["agent", "reassign", "move-1", "--policy", "move target"]);
    ok(&["agent", "reassign", "--filter", "tags:move", "--policy", &other, "--yes"]);
    assert!(agents.iter().all(|agent| shown(&agent.id)["policy_id"] == other));
    ok(&["agent", "reassign", "move-2", "--no-policy"]);
    assert!(shown("move-2")["policy_id"].is_null());
    fails(3, &["agent", "reassign", "move-1", "--policy", "no such policy"]);
}

#[test]
fn agents_are_upgraded() {
    let (_, agents) = fleet("rise", &["rise-1", "rise-2"]);
    let upgrade = |more: &[&str]| ok(&[&["agent", "upgrade", "--version", "9.5.3"], more].concat());
    assert_eq!(upgrade(&["--filter", "tags:rise", "--dry-run"]), "would upgrade 2 agents to 9.5.3\n");
    assert!(agents[0].check_in().iter().all(|action| action["type"] != "UPGRADE"));
    let action = upgrade(&["rise-1", "--source-uri", "https://artifacts.example/"]);
    let action = json(&["action", "show", action.trim()]);
    assert_eq!((&action["action"]["type"], &action["action"]["version"]), (&"UPGRADE".into(), &"9.5.3".into()));
    assert_eq!(agents[0].take("UPGRADE", None)["data"]["version"], "9.5.3");
    let enrolled = Timestamp::parse_rfc3339(shown("rise-2")["enrolled_at"].as_str().unwrap()).unwrap();
    let start = enrolled.plus(Duration::from_secs(30 * 86_400)).to_string();
    let action = upgrade(&["rise-2", "--rollout", "4h", "--start", &start]);
    let action = json(&["action", "show", action.trim()]);
    assert_eq!(action["action"]["hasRolloutPeriod"], true);
    assert!(action["action"]["startTime"].as_str().unwrap().starts_with(&start[..19]));
    fails(2, &["agent", "upgrade", "rise-2", "--version", "9.5.3", "--start", "tomorrow"]);
}

#[test]
fn tags_are_added_and_removed() {
    fleet("label", &["label-1", "label-2"]);
    let both = ["--filter", "tags:label"];
    let dry = ok(&[&["agent", "tag", "--tag", "a", "--tag", "b", "--dry-run"], &both[..]].concat());
    assert_eq!(dry, "would add a, b to 2 agents\n");
    assert_eq!(count("tags:label and tags:a"), 0);
    assert_eq!(ok(&[&["agent", "tag", "--tag", "a", "-t", "b", "--yes"], &both[..]].concat()), "tagged 2 agents\n");
    assert_eq!(count("tags:label and tags:a and tags:b"), 2);
    ok(&[&["agent", "tag", "--tag", "c, d", "--yes"], &both[..]].concat());
    assert_eq!(count("tags:label and tags:c and tags:d"), 2, "a comma separates tags");
    fails(2, &[&["agent", "tag", "--tag", "e,", "--yes"], &both[..]].concat());
    assert_eq!(ok(&["agent", "untag", "label-1", "--tag", "a"]), "untagged 1 agent\n");
    assert_eq!(count("tags:label and tags:a"), 1);
    fails(2, &[&["agent", "untag", "--tag", "a"], &both[..]].concat());
    assert_eq!(count("tags:label and tags:a"), 1);
}

#[test]
fn log_levels_are_set_and_reset() {
    let (_, agents) = fleet("loud", &["loud-1", "loud-2"]);
    let dry = ok(&["agent", "log-level", "loud-1", "loud-2", "--level", "debug", "--dry-run"]);
    assert_eq!(dry, "would set the log level of 2 agents to debug\n");
    let action = ok(&["agent", "log-level", "loud-1", "loud-2", "--level", "debug", "--yes"]);
    let taken = agents[0].take("SETTINGS", None);
    assert_eq!((&taken["id"], &taken["data"]["log_level"]), (&action.trim().into(), &"debug".into()));
    ok(&["agent", "log-level", "loud-2", "--level", "reset"]);
    agents[1].get(|action| action["type"] == "SETTINGS" && action["data"]["log_level"].is_null());
}

#[test]
fn diagnostics_are_requested() {
    let (_, agents) = fleet("probe", &["probe-1", "probe-2"]);
    let dry = ok(&["agent", "diagnostics", "--filter", "tags:probe", "--dry-run"]);
    assert_eq!(dry, "would request diagnostics from 2 agents\n");
    ok(&["agent", "diagnostics", "probe-1", "--cpu"]);
    assert_eq!(agents[0].take("REQUEST_DIAGNOSTICS", None)["data"]["additional_metrics"][0], "CPU");
    fails(2, &["agent", "diagnostics", "probe-1", "--download", "."]);
    fails(2, &["agent", "diagnostics", "--filter", "tags:probe", "--wait", "--download", "."]);
}

#[test]
fn deleted_agents_no_longer_exist() {
    let (_, agents) = fleet("gone", &["gone-1", "gone-2", "gone-3"]);
    let all = ["agent", "delete", "--filter", "tags:gone"];
    let dry = ok(&[&all[..], &["--dry-run"]].concat());
    assert_eq!(dry, "would delete 3 agents with their keys, results and files\n");
    fails(2, &all);
    assert_eq!(count("tags:gone"), 3);
    assert_eq!(ok(&["agent", "delete", "gone-1"]), "deleted 1 agent\n");
    fails(3, &["agent", "show", &agents[0].id]);
    assert_eq!(ok(&[&all[..], &["--yes"]].concat()), "deleted 2 agents\n");
    assert_eq!(count("tags:gone"), 0);
}

#[test]
fn agents_that_are_not_eligible_are_listed() {
    let (_, agents) = fleet("some", &["some-1", "some-2"]);
    ok(&["agent", "unenroll", "some-1", "--force"]);
    let ids: Vec<&str> = agents.iter().map(|agent| agent.id.as_str()).collect();
    let ran = crate::world::run(&[&["agent", "log-level", "--level", "info", "--yes"], &ids[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains(&format!("1 of 2 agents not eligible; agent {}", ids[0])), "{}", ran.err);
    let shown = ok(&["action", "show", ran.out.trim()]);
    assert!(shown.contains("failed") && shown.contains(ids[0]), "{shown}");
    ok(&["agent", "unenroll", "some-2", "--force"]);
    let ran = crate::world::run(&[&["agent", "log-level", "--level", "info", "--yes"], &ids[..]].concat());
    assert_eq!(ran.code, 1, "no agent takes it: {}", ran.err);
}

#[test]
fn a_dry_run_of_an_action_fails_like_the_action_and_changes_nothing() {
    let (_, agents) = fleet("try", &["try-1", "try-2"]);
    new_policy("try target");
    let one = agents[0].id.as_str();
    for (code, words, reason) in [
        (2, &["agent", "upgrade", one, "--version", "banana"][..], "version: \"banana\" is not a version like 9.5.2"),
        (2, &["agent", "upgrade", "--filter", "tags:try", "--version", "banana", "--yes"], "is not a version"),
        (2, &["agent", "upgrade", one, "--version", "9.6.0", "--rollout", "5m"], "rollout_duration_seconds"),
        (2, &["agent", "upgrade", one, "--version", "9.6.0", "--start", "soon"], "start_time"),
        (1, &["agent", "upgrade", one, "--version", "9.5.2"], "is not newer than"),
        (1, &["agent", "reassign", one, "--policy", "try"], "already has policy"),
        (3, &["agent", "reassign", one, "--policy", "none such"], "no policy with the name or id"),
        (2, &["agent", "tag", one, "--tag", " "], "a tag has"),
    ] {
        let meant = fails(code, words);
        let tried = fails(code, &[words, &["--dry-run"]].concat());
        assert!(meant.contains(reason) && tried.contains(reason), "{words:?}: {meant}{tried}");
    }
    assert!(agents[0].check_in().iter().all(|action| action["type"] != "UPGRADE"));
    // Agents that are not eligible are reported.
    ok(&["agent", "unenroll", "try-1", "--force"]);
    let two = agents[1].id.as_str();
    let ran = crate::world::run(&["agent", "log-level", one, two, "--level", "info", "--dry-run"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "would set the log level of 1 agent to info\n"), "{}", ran.err);
    assert!(ran.err.contains(&format!("1 of 2 agents not eligible; agent {one}: ")), "{}", ran.err);
    let told = fails(1, &["agent", "log-level", one, "--level", "info", "--dry-run"]);
    assert_eq!(told, fails(1, &["agent", "log-level", one, "--level", "info"]));
}

#[test]
fn actions_without_targets_exit_with_3_also_in_a_dry_run() {
    for words in [
        &["agent", "unenroll", "--filter", "tags:nobody-has-this"][..],
        &["agent", "reassign", "--filter", "tags:nobody-has-this", "--no-policy"],
        &["agent", "upgrade", "--filter", "tags:nobody-has-this", "--version", "9.6.0"],
        &["agent", "tag", "--filter", "tags:nobody-has-this", "--tag", "x"],
        &["agent", "delete", "--filter", "tags:nobody-has-this"],
    ] {
        for more in ["--yes", "--dry-run"] {
            let told = fails(3, &[words, &[more]].concat());
            assert!(told.contains("no agent matches"), "{told}");
        }
    }
}

#[test]
fn policies_are_shown_by_name_and_a_missing_policy_as_a_dash() {
    let (policy, _) = fleet("by name", &["named-1", "named-2"]);
    ok(&["agent", "reassign", "named-2", "--no-policy"]);
    let row = |words: &[&str], of: &str| -> String {
        ok(words)
            .lines()
            .find(|line| line.contains(of))
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let list = ["agent", "list", "--filter", "tags:\"by name\""];
    assert!(row(&list, "named-1").contains("named-1 updating by name ") || row(&list, "named-1").contains(" by name "));
    assert!(!ok(&list).contains(&policy), "the id is for wide tables and programs");
    assert!(ok(&[&list[..], &["-o", "wide"]].concat()).contains(&policy));
    assert!(row(&list, "named-2").split(' ').nth(3) == Some("-"), "{}", row(&list, "named-2"));
    assert_eq!(json(&list)[0].get("policy"), None, "programs get the API's own fields");
    assert!(ok(&["agent", "show", "named-2"]).contains("\npolicy          -\n"));
    let keys = ["enrollment-key", "list", "--filter", &format!("policy_id:\"{policy}\"")];
    assert!(ok(&keys).contains("by name") && !ok(&keys).contains(&policy), "{}", ok(&keys));
    assert!(ok(&["enrollment-key", "create", "--policy", &policy]).contains("\npolicy  by name\n"));
    let action = ok(&["agent", "reassign", "named-2", "--policy", &policy]);
    assert!(ok(&["action", "show", action.trim()]).contains("\npolicy     by name\n"));
    // More policies than are asked for one by one.
    for name in ["many a", "many b", "many c", "many d"] {
        fleet(name, &[&name.replace(' ', "-")]);
    }
    let all = ok(&["agent", "list", "--filter", "tags:(\"many a\" or \"many b\" or \"many c\" or \"many d\")"]);
    assert!(["many a", "many b", "many c", "many d"].iter().all(|name| all.contains(name)), "{all}");
}

#[test]
fn filters_combine_fields_with_and_or_and_not() {
    let (policy, agents) = fleet("joined", &["joined-1", "joined-2", "joined-3"]);
    ok(&["agent", "tag", "joined-1", "--tag", "left"]);
    ok(&["agent", "reassign", "joined-3", "--no-policy"]);
    let left = agents[0].id.as_str();
    assert_eq!(count(&format!("tags:left or id:\"{}\"", agents[1].id)), 2);
    assert_eq!(count(&format!("tags:joined and (policy_id:\"{policy}\" or status:error)")), 2);
    assert_eq!(count(&format!("tags:joined and not (tags:left or not policy_id:\"{policy}\")")), 1);
    assert_eq!(count("tags:joined and not policy_id:*"), 1);
    assert_eq!(
        ok(&["agent", "list", "--filter", "tags:left or status:error and tags:joined", "-o", "name"]).trim(),
        left
    );
}

#[test]
fn agents_are_pinned_to_a_revision_of_a_policy() {
    fleet("pinned", &["pinned-1"]);
    let assign = ["agent", "reassign", "pinned-1", "--policy", "pinned"];
    let told = fails(2, &[&assign[..], &["--revision", "9"]].concat());
    assert!(told.contains("policy_revision: the policy \"pinned\" has no revision 9; the newest is 1"), "{told}");
    ok(&[&assign[..], &["--revision", "1"]].concat());
    assert_eq!(shown("pinned-1")["target_revision"], 1);
    ok(&assign);
    assert_eq!(shown("pinned-1").get("target_revision"), None);
}

#[test]
fn agents_are_migrated_to_another_server() {
    let (_, agents) = fleet("mover", &["mover-1", "mover-2"]);
    let (_directory, token) = crate::world::file("token.txt", "b3RoZXI6dG9rZW4=\n");
    let words = ["--to", "https://other.example:8220", "--enrollment-token", &format!("@{token}")];
    let migrate = |more: &[&'static str]| [&["agent", "migrate"], more, &words[..]].concat();
    let dry = ok(&migrate(&["--filter", "tags:mover", "--dry-run"]));
    assert_eq!(dry, "would move 2 agents to the server https://other.example:8220\n");
    let setting = ["mover-1", "--setting", "replace_token=r", "--setting", "insecure=true"];
    ok(&[&migrate(&setting)[..], &["--dry-run"]].concat());
    assert!(agents.iter().all(|agent| agent.check_in().iter().all(|action| action["type"] != "MIGRATE")));
    for more in [&["--dry-run"][..], &[]] {
        let told =
            fails(2, &[&["agent", "migrate", "mover-1", "--to", "other", "--enrollment-token", "t"], more].concat());
        assert!(told.contains("uri: \"other\" is not a URL: it has no scheme"), "{told}");
        let told = fails(2, &[&migrate(&["mover-1", "--setting", "colour=red"])[..], more].concat());
        assert!(told.contains("settings.colour"), "{told}");
    }
    fails(2, &migrate(&["--filter", "tags:mover", "--setting", "replace_token=r", "--yes"]));
    ok(&migrate(&setting));
    let data = agents[0].take("MIGRATE", None)["data"].clone();
    assert_eq!((&data["target_uri"], &data["enrollment_token"]), (&words[1].into(), &"b3RoZXI6dG9rZW4=".into()));
    assert_eq!((&data["settings"]["insecure"], &data["settings"]["replace_token"]), (&true.into(), &"r".into()));
}

#[test]
fn agents_are_switched_to_run_without_root() {
    let (_, agents) = fleet("humble", &["humble-1", "humble-2"]);
    let dry = ok(&["agent", "privilege-level", "--filter", "tags:humble", "--dry-run"]);
    assert_eq!(dry, "would make 2 agents run as an unprivileged user, without root privileges\n");
    let (_directory, password) = crate::world::file("password.txt", "s3cret\n");
    let user = ["--user", "agents", "--group", "staff", "--password-file", &password];
    ok(&[&["agent", "privilege-level", "humble-1"], &user[..]].concat());
    let data = agents[0].take("PRIVILEGE_LEVEL_CHANGE", None)["data"].clone();
    let info = serde_json::json!({"username": "agents", "groupname": "staff", "password": "s3cret"});
    assert_eq!((&data["unprivileged"], &data["user_info"]), (&true.into(), &info));
    ok(&["agent", "privilege-level", "--filter", "tags:humble", "--yes"]);
    fails(2, &["agent", "privilege-level", "humble-2", "--password-file", &password]);
}
