//! `muster policy rotate-signing-key`, with a real muster-agent.

use serde_json::Value;

use crate::agent_upgrade::{Installed, until};
use crate::world::World;

/// Fails if the server signs the new key, or the actions after it, with a key that the agent does not trust: the agent then keeps
/// its revision, and rejects the unenrollment.
#[test]
fn mg115_a_running_agent_accepts_a_new_signing_key_and_the_actions_after_it() {
    // A server of its own: every policy gets a new revision.
    let world = World::start();
    let policy = world.json(&["policy", "create", "signed"])["id"].as_str().unwrap().to_owned();
    let token = world.json(&["enrollment-key", "create", "--policy", &policy])["api_key"].as_str().unwrap().to_owned();
    let mut host = Installed::new();
    host.enroll(&world, &token);
    let filter = format!("policy_id:\"{policy}\"");
    let runs = |revision: i64| {
        until(&format!("the agent runs revision {revision}"), || {
            let agent = world.json(&["agent", "list", "--filter", &filter])[0].clone();
            Some(agent).filter(|agent| agent["status"] == "online" && agent["policy_revision"] == revision)
        })
    };
    let id = runs(1)["id"].as_str().unwrap().to_owned();
    let refused = crate::world::finish(&mut world.command(&["policy", "rotate-signing-key"]));
    assert_eq!(refused.code, 2, "it asks: {}", refused.err);
    for revision in [2, 3] {
        let told = world.ok(&["policy", "rotate-signing-key", "--yes"]);
        assert!(told.contains("the signing key was replaced"), "{told}");
        runs(revision);
    }
    let action = world.ok(&["agent", "unenroll", &id]).trim().to_owned();
    let ended = until("the agent has answered", || {
        let shown: Value = world.json(&["action", "show", &action]);
        Some(shown.clone()).filter(|shown| matches!(shown["action"]["status"].as_str(), Some("COMPLETE" | "FAILED")))
    });
    assert_eq!(ended["action"]["status"], "COMPLETE", "{ended}");
}
