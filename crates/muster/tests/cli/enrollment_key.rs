//! `muster enrollment-key …`

use crate::agents::Agent;
use crate::world::{fails, json, new_policy, ok};

#[test]
fn a_new_key_prints_its_token_and_enrolls_agents() {
    let policy = new_policy("keyed");
    let key = json(&[
        "enrollment-key",
        "create",
        "--policy",
        "keyed",
        "--name",
        "keyed one",
        "--tag",
        "prod",
        "--tag",
        "web",
        "--expires",
        "7d",
        "--max-uses",
        "5",
    ]);
    assert_eq!((&key["policy_id"], &key["max_uses"]), (&policy.into(), &5.into()));
    assert_eq!(key["tags"], serde_json::json!(["prod", "web"]));
    let agent = Agent::enroll(key["api_key"].as_str().unwrap(), "keyed-1", &[]);
    let agent = json(&["agent", "show", &agent.id]);
    assert_eq!((&agent["enrollment_key_id"], &agent["tags"]), (&key["id"], &key["tags"]));
    let listed = ok(&["enrollment-key", "list", "--filter", "name:\"keyed one\""]);
    assert!(listed.contains("1/5"), "{listed}");
    let table = ok(&["enrollment-key", "create", "--name", "keyed two"]);
    assert!(table.contains("\ntoken   "), "{table}");
    let yaml = crate::world::yaml(&["enrollment-key", "create", "--name", "keyed three"]);
    assert!(yaml["api_key"].is_string());
    fails(6, &["enrollment-key", "create", "--policy", "keyed", "--name", "keyed one"]);
}

#[test]
fn a_revoked_key_enrolls_no_agents_and_enrolled_agents_stay() {
    let key = json(&["enrollment-key", "create", "--name", "revoke me"]);
    let (id, token) = (key["id"].as_str().unwrap(), key["api_key"].as_str().unwrap());
    let agent = Agent::enroll(token, "revoke-1", &[]);
    let dry = ok(&["enrollment-key", "revoke", "revoke me", "--dry-run"]);
    let used = "1 agent has enrolled with it and will not be affected";
    assert_eq!(dry, format!("would revoke the key \"revoke me\" ({id}); {used}\n"));
    let told = fails(2, &["enrollment-key", "revoke", id]);
    assert!(told.contains(&format!("Revoke the key \"revoke me\" ({used})? Nothing was changed")), "{told}");
    assert_eq!(json(&["enrollment-key", "list", "--filter", &format!("id:\"{id}\"")])[0]["active"], true);
    let told = ok(&["enrollment-key", "revoke", "revoke me", "--yes"]);
    assert!(told.starts_with(&format!("revoked {id}; ")), "{told}");
    assert_eq!(json(&["enrollment-key", "list", "--filter", &format!("id:\"{id}\"")])[0]["active"], false);
    // The command that it names works.
    let filter = told.trim().split('\'').nth(1).unwrap();
    assert_eq!(ok(&["agent", "list", "--filter", filter, "-o", "name"]).trim(), agent.id);
    ok(&["enrollment-key", "revoke", id, "--delete", "--yes"]);
    fails(3, &["enrollment-key", "revoke", id, "--yes"]);
}

#[test]
fn m7_the_agents_of_a_replaced_key_are_listed_with_their_first_addresses() {
    let key = json(&["enrollment-key", "create", "--name", "leaked"]);
    assert!(
        ok(&["enrollment-key", "replace", "leaked", "--yes"]).ends_with("no agent enrolled with the replaced key\n")
    );
    let key = json(&["enrollment-key", "create", "--name", &format!("leaked by {}", key["id"].as_str().unwrap())]);
    let agent = Agent::enroll(key["api_key"].as_str().unwrap(), "came-in-1", &[]);
    let told = ok(&["enrollment-key", "replace", key["id"].as_str().unwrap(), "--yes"]);
    assert!(told.contains("1 agent has enrolled with the replaced key and will not be affected:"), "{told}");
    let row = told.lines().find(|row| row.starts_with(&agent.id)).expect("it is listed");
    assert!(row.contains("came-in-1") && row.ends_with("127.0.1.1"), "{row}");
}

#[test]
fn a_replaced_key_has_a_new_token_and_the_same_properties() {
    let key = json(&["enrollment-key", "create", "--name", "replace me", "--tag", "kept", "--max-uses", "9"]);
    let id = key["id"].as_str().unwrap();
    let dry = ok(&["enrollment-key", "replace", "replace me", "--dry-run"]);
    assert_eq!(dry, format!("would revoke the key \"replace me\" ({id}) and create a new one\n"));
    fails(2, &["enrollment-key", "replace", id]);
    let other = json(&["enrollment-key", "replace", id, "--yes"]);
    assert_ne!(other["api_key"], key["api_key"]);
    assert_eq!((&other["tags"], &other["max_uses"]), (&key["tags"], &key["max_uses"]));
    let told = fails(6, &["enrollment-key", "replace", id, "--yes"]);
    assert!(told.contains("is revoked and cannot be replaced"), "{told}");
    assert_eq!(fails(6, &["enrollment-key", "replace", id, "--dry-run"]), told);
}

#[test]
fn an_ambiguous_key_name_is_an_error() {
    for policy in ["ambiguous-a", "ambiguous-b"] {
        new_policy(policy);
        ok(&["enrollment-key", "create", "--policy", policy, "--name", "same name"]);
    }
    let told = fails(2, &["enrollment-key", "revoke", "same name", "--yes"]);
    assert!(
        told.contains("enrollment keys have the name \"same name\"") && told.contains("pass the id of one of them"),
        "{told}"
    );
}

#[test]
fn keys_without_a_name_are_named_after_their_policy() {
    let policy = new_policy("named after");
    let filter = format!("policy_id:\"{policy}\"");
    let names = || -> Vec<String> {
        let keys = json(&["enrollment-key", "list", "--filter", &filter]);
        let live = keys.as_array().unwrap().iter().filter(|key| key["active"] == true);
        let mut names: Vec<String> = live.map(|key| key["name"].as_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(), ["named after"], "the key that came with the policy");
    for _ in 0..2 {
        ok(&["enrollment-key", "create", "--policy", "named after"]);
    }
    assert_eq!(names(), ["named after", "named after 2", "named after 3"]);
    ok(&["enrollment-key", "revoke", "named after 2", "--yes"]);
    let key = json(&["enrollment-key", "create", "--policy", "named after"]);
    assert_eq!(key["name"], "named after 2", "the name of a revoked key is free");
}

#[test]
fn a_key_is_shown_with_its_token() {
    new_policy("shown key");
    let made = json(&["enrollment-key", "create", "--policy", "shown key", "--name", "shown", "--tag", "x"]);
    for named in ["shown", made["id"].as_str().unwrap()] {
        let shown = json(&["enrollment-key", "show", named]);
        assert_eq!((&shown["id"], &shown["api_key"]), (&made["id"], &made["api_key"]));
    }
    let table = ok(&["enrollment-key", "show", "shown"]);
    for part in [
        "\npolicy     shown key\n",
        "\ntags       x\n",
        &format!("\ntoken      {}\n", made["api_key"].as_str().unwrap()),
    ] {
        assert!(table.contains(part), "{part} is missing in\n{table}");
    }
    fails(3, &["enrollment-key", "show", "no such key"]);
}

#[test]
fn fl77_fl78_an_enroll_secret_of_fleetd_is_created_listed_and_revoked() {
    let key = json(&["enrollment-key", "create", "--family", "fleetd", "--name", "hosts"]);
    assert_eq!((&key["family"], key["api_key"].as_str().unwrap().len()), (&"fleetd".into(), 32));
    let given = ["enrollment-key", "create", "--family", "fleetd", "--name", "old", "--secret", "P2i0Zq8w'$1Kd#Tx"];
    assert_eq!(json(&given)["api_key"], "P2i0Zq8w'$1Kd#Tx");
    fails(6, &given);
    let listed = ok(&["enrollment-key", "list", "--filter", "family:fleetd"]);
    assert!(listed.contains("hosts") && listed.contains("old") && !listed.contains("P2i0"), "{listed}");
    ok(&["enrollment-key", "revoke", "hosts", "--yes"]);
    let id = format!("id:\"{}\"", key["id"].as_str().unwrap());
    assert_eq!(json(&["enrollment-key", "list", "--filter", &id])[0]["active"], false);
}

#[test]
fn fl82_a_one_time_secret_is_for_one_host() {
    let create = ["enrollment-key", "create", "--one-time", "--name", "web-7"];
    let key = json(&[&create[..], &["--hardware-uuid", "4C4C4544", "--serial", "5JX82", "--expires", "2h"]].concat());
    assert_eq!((&key["family"], &key["one_time"]["hardware_uuid"]), (&"fleetd".into(), &"4c4c4544".into()));
    assert_eq!(key["one_time"]["serial"], "5jx82");
    let default = json(&["enrollment-key", "create", "--one-time", "--name", "any host"]);
    assert!(default["expire_at"].is_string() && default["one_time"].is_object(), "{default}");
    fails(2, &["enrollment-key", "create", "--serial", "5JX82"]);
    fails(2, &["enrollment-key", "create", "--one-time", "--max-uses", "2"]);
}
