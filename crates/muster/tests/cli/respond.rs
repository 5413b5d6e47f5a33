//! `muster agent respond …`

use crate::agents::Agent;
use crate::world::{fails, file, json, new_token, ok};

#[test]
fn m5_response_revokes_the_agent_and_lists_what_it_could_read() {
    let config =
        "outputs: {default: {type: kafka, hosts: [\"k:9092\"], username: u, password: \"$co.elastic.secret{PW}\"}}";
    let (_directory, policy) = file("taken.yml", &format!("name: taken\nconfig:\n  {config}\n"));
    ok(&["policy", "apply", "-f", &policy, "--secret", "PW=hunter2", "--yes"]);
    let id = json(&["policy", "show", "taken"])["id"].as_str().unwrap().to_owned();
    let token = new_token(&id);
    let (taken, neighbor) = (Agent::enroll(&token, "taken-1", &[]), Agent::enroll(&token, "taken-2", &[]));

    let since = ["--review-since", "2020-01-01T00:00:00Z"];
    let dry = json(&[&["agent", "respond", "taken-1", "--dry-run"], &since[..]].concat());
    assert!(dry.get("action_id").is_none());
    assert_eq!(json(&["agent", "show", "taken-1"])["active"], true, "a dry run changes nothing");
    fails(2, &["agent", "respond", "taken-1"]);

    let reason = ["--reason", "stolen laptop", "--yes"];
    let done = json(&[&["agent", "respond", "taken-1"], &since[..], &reason].concat());
    assert!(done["action_id"].is_string());
    assert_eq!((&done["access_keys"], &done["reviewed"]), (&1.into(), &1.into()));
    assert_eq!(done["exposures"], dry["exposures"]);
    let exposed: Vec<(&str, &str)> = done["exposures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["kind"].as_str().unwrap(), one["name"].as_str().unwrap()))
        .collect();
    assert!(exposed.contains(&("policy_secret", "taken/PW")), "{exposed:?}");
    assert!(exposed.iter().any(|(kind, _)| *kind == "enrollment_key"), "{exposed:?}");
    assert!(!done.to_string().contains("hunter2"));
    assert_eq!(done["review"][0]["hostname"], "taken-2");

    assert_eq!(taken.status_of_check_in(), 401, "its key is revoked");
    assert_eq!(json(&["agent", "show", &neighbor.id])["tags"], serde_json::json!(["under-review"]));
    let log = ok(&["audit", "list", "--output", "json"]);
    assert!(log.contains("agent.respond") && log.contains("stolen laptop"), "{log}");

    let again = json(&["agent", "respond", &taken.id, "--force", "--yes"]);
    assert!(again.get("action_id").is_none(), "it is revoked already");
    fails(2, &["agent", "respond", &taken.id, "--yes", "--review-since", "yesterday"]);
    fails(3, &["agent", "respond", "nobody", "--yes"]);
}
