//! Signatures, revocation, redirects: whom the agent trusts.

use std::time::Duration;

use muster_agent::coordinator::Ending;
use muster_agent::state::{Enrollment, Phase, Store};
use muster_core::signing::Signer;
use serde_json::{Value, json};

use crate::fixture::{Agent, HOUR, MINUTE, SECOND, action, level, policy};
use crate::server::Fault;

fn refusal() -> Fault {
    Fault::Answer(401, json!({"statusCode": 401, "error": "ErrUnauthorized", "message": "unauthorized"}))
}

fn signed_policy(revision: i64, program: &str, shown: &Signer, signer: &Signer) -> Value {
    let mut whole = policy(revision, program);
    whole["agent"] = json!({"protection": {"signing_key": shown.public_key()}});
    let inner = json!({"id": "p", "agent": whole["agent"], "inputs": whole["inputs"]});
    let signed = signer.sign(inner.to_string().as_bytes()).unwrap();
    whole["signed"] = json!({"data": signed.data, "signature": signed.signature});
    whole
}

fn signer() -> Signer {
    Signer::generate().unwrap().0
}

#[tokio::test(start_paused = true)]
async fn ag144_a_policy_with_an_invalid_signature_is_rejected_and_the_last_one_stays() {
    let (ours, theirs) = (signer(), signer());
    let mut agent = Agent::new(30);
    agent.server.change(|server| server.policy = Some(signed_policy(1, "good", &ours, &ours)));
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.store.enrollment().unwrap().unwrap().signing_key.as_deref(), Some(ours.public_key()));
    let before = agent.server.lock().check_ins.len();
    agent.server.change(|server| server.policy = Some(signed_policy(2, "evil", &theirs, &theirs)));
    agent.pass(HOUR).await;
    assert_eq!(agent.did(), ["start process-default-good"]);
    assert_eq!(agent.state().policy.unwrap().revision, 1);
    let last = agent.server.lock().check_ins.last().unwrap().body.clone();
    assert_eq!((&last["status"], &last["policy_revision_idx"]), (&json!("DEGRADED"), &json!(1)));
    assert!(last["message"].as_str().unwrap().contains("signature"), "{last}");
    let polls = agent.server.lock().check_ins.len() - before;
    assert!(
        polls < 40,
        "a rejected policy that is delivered again and again must not make the agent poll fast: {polls}"
    );
    let refused: Vec<_> = agent.server.acks().into_iter().filter(|ack| ack.action_id == "policy:p:2").collect();
    assert!(refused.len() == 1 && refused[0].error.is_some(), "{refused:?}");
    agent.server.change(|server| server.policy = Some(signed_policy(3, "next", &ours, &ours)));
    agent.pass(MINUTE * 6).await;
    assert_eq!(agent.running(), ["process-default-next"]);
    assert_eq!(agent.snapshot().await.message, "Running");
}

#[tokio::test(start_paused = true)]
async fn ag144_a_new_key_signed_with_the_old_one_is_accepted() {
    let (old, new) = (signer(), signer());
    let mut agent = Agent::new(31);
    agent.server.change(|server| server.policy = Some(signed_policy(1, "a", &old, &old)));
    agent.start();
    agent.pass(MINUTE).await;
    agent.server.change(|server| server.policy = Some(signed_policy(2, "b", &new, &old)));
    agent.pass(MINUTE).await;
    agent.server.change(|server| server.policy = Some(signed_policy(3, "c", &new, &new)));
    agent.pass(MINUTE).await;
    assert_eq!(agent.running(), ["process-default-c"]);
    assert_eq!(agent.store.enrollment().unwrap().unwrap().signing_key.as_deref(), Some(new.public_key()));
}

#[tokio::test(start_paused = true)]
async fn a_stored_policy_that_was_tampered_with_does_not_run() {
    let key = signer();
    let mut agent = Agent::new(37);
    agent.server.change(|server| server.policy = Some(signed_policy(1, "good", &key, &key)));
    agent.start();
    agent.pass(MINUTE).await;
    agent.kill().await;
    let mut state = agent.state();
    let stored = state.policy.as_mut().unwrap();
    stored.policy = serde_json::from_str(&stored.policy.get().replace("/bin/true", "/bin/evil")).unwrap();
    agent.store.save_state(&state).unwrap();
    agent.journal.lock().unwrap().clear();
    agent.server.change(|server| server.always = Some(("/checkin", Fault::LoseRequest)));
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.did(), [""; 0], "nothing runs while the server can't be reached");
    agent.server.change(|server| server.always = None);
    agent.pass(MINUTE * 5).await;
    assert_eq!(agent.did(), ["start process-default-good"], "the server sends it again");
    let part = agent.server.lock().check_ins.last().unwrap().body["components"][0]["id"].clone();
    assert_eq!(part, "process-default-good");
}

#[tokio::test(start_paused = true)]
async fn after_a_change_of_keys_the_stored_policy_still_runs() {
    let (old, new, other) = (signer(), signer(), signer());
    let mut agent = Agent::new(38);
    agent.server.change(|server| server.policy = Some(signed_policy(1, "a", &old, &old)));
    agent.start();
    agent.pass(MINUTE).await;
    agent.server.change(|server| server.policy = Some(signed_policy(2, "b", &new, &old)));
    agent.pass(MINUTE).await;
    let enrolled = agent.store.enrollment().unwrap().unwrap();
    let keys = (enrolled.signing_key.as_deref(), enrolled.previous_signing_key.as_deref());
    assert_eq!(keys, (Some(new.public_key()), Some(old.public_key())));
    let restart = async |agent: &mut Agent| {
        agent.kill().await;
        agent.journal.lock().unwrap().clear();
        agent.start();
        agent.pass(SECOND).await;
        agent.did()
    };
    assert_eq!(
        restart(&mut agent).await,
        ["start process-default-b"],
        "the old key signed what the new one is pinned by"
    );
    // Killed before the key was pinned.
    agent.kill().await;
    agent
        .store
        .save_enrollment(&Enrollment { signing_key: Some(old.public_key().into()), ..enrolled.clone() })
        .unwrap();
    assert_eq!(restart(&mut agent).await, ["start process-default-b"]);
    assert_eq!(agent.store.enrollment().unwrap().unwrap().signing_key.as_deref(), Some(new.public_key()));
    // The old key vouches for one successor, not for any.
    agent.kill().await;
    let mut state = agent.state();
    let forged = signed_policy(3, "evil", &other, &old);
    state.policy.as_mut().unwrap().policy = serde_json::value::to_raw_value(&forged).unwrap();
    agent.store.save_state(&state).unwrap();
    agent.server.change(|server| server.always = Some(("/checkin", Fault::LoseRequest)));
    assert_eq!(restart(&mut agent).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn with_a_pinned_key_only_a_signed_action_unenrolls() {
    let key = signer();
    let mut agent = Agent::new(32);
    agent.server.change(|server| server.policy = Some(signed_policy(1, "a", &key, &key)));
    agent.start();
    agent.pass(MINUTE).await;
    agent.server.change(|server| server.actions.push(action("forged", "UNENROLL", Value::Null)));
    agent.pass(MINUTE).await;
    let forged = agent.server.acks().into_iter().find(|ack| ack.action_id == "forged").unwrap();
    assert!(forged.error.unwrap().contains("not signed"));
    let mut real = action("real", "UNENROLL", Value::Null);
    let inner = json!({"action_id": "real", "type": "UNENROLL", "agents": ["agent-1"], "data": null});
    let signed = key.sign(inner.to_string().as_bytes()).unwrap();
    real["signed"] = json!({"data": signed.data, "signature": signed.signature});
    agent.server.change(|server| server.actions.push(real));
    assert_eq!(agent.ended(MINUTE).await, Ending::Unenrolled);
}

/// Rotation of the server's key (MG115): what it signed before counts as long as it waits, and what it signs afterwards
/// counts as soon as the agent has the policy with the new key.
#[tokio::test(start_paused = true)]
async fn mg115_actions_are_accepted_during_and_after_a_change_of_keys() {
    let (old, new) = (signer(), signer());
    let mut agent = Agent::new(39);
    agent.server.change(|server| server.policy = Some(signed_policy(1, "a", &old, &old)));
    agent.start();
    agent.pass(MINUTE).await;
    let signed = |id: &str, kind: &str, key: &Signer| {
        let mut action = action(id, kind, json!({"version": "nonsense"}));
        let inner = json!({"action_id": id, "type": kind, "agents": ["agent-1"], "data": {"version": "nonsense"}});
        let signed = key.sign(inner.to_string().as_bytes()).unwrap();
        action["signed"] = json!({"data": signed.data, "signature": signed.signature});
        action
    };
    // Received now, due in half an hour.
    let mut later = signed("later", "UPGRADE", &old);
    later["start_time"] = "2026-06-01T00:30:00Z".into();
    agent.server.change(|server| server.actions.push(later));
    agent.pass(MINUTE).await;
    agent.server.change(|server| server.policy = Some(signed_policy(2, "b", &new, &old)));
    agent.pass(MINUTE).await;
    assert_eq!(agent.store.enrollment().unwrap().unwrap().signing_key.as_deref(), Some(new.public_key()));
    agent.kill().await;
    agent.start();
    agent.pass(HOUR).await;
    let error = |agent: &Agent, id: &str| {
        agent.server.acks().into_iter().find(|ack| ack.action_id == id).unwrap().error.unwrap_or_default()
    };
    let reason = error(&agent, "later");
    assert!(!reason.contains("signature") && reason.contains("nonsense"), "it is rejected for its version: {reason}");
    agent.server.change(|server| server.actions.push(signed("stale", "UNENROLL", &old)));
    agent.pass(MINUTE).await;
    assert!(error(&agent, "stale").contains("signature"), "{}", error(&agent, "stale"));
    agent.server.change(|server| server.actions.push(signed("last", "UNENROLL", &new)));
    assert_eq!(agent.ended(MINUTE).await, Ending::Unenrolled);
}

#[tokio::test(start_paused = true)]
async fn ag59_ag133_a_revoked_key_stops_everything_and_a_restored_one_resumes_it() {
    let mut agent = Agent::new(33);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    agent.server.change(|server| server.always = Some(("/checkin", refusal())));
    let sent = agent.server.lock().requests.len();
    agent.pass(HOUR * 2).await;
    assert_eq!(agent.running(), [""; 0]);
    let state = agent.state();
    assert_eq!(state.phase, Phase::Revoked);
    assert!(state.policy.is_none(), "the policy and its secrets are deleted");
    let enrollment = agent.store.enrollment().unwrap().unwrap();
    assert_eq!(enrollment.agent_id, "agent-1", "the identity is kept");
    let before = agent.server.lock().requests.len();
    assert!(before - sent >= 7, "one refusal is not enough");
    agent.pass(HOUR * 10).await;
    let rarely = agent.server.lock().requests.len() - before;
    assert!((8..=11).contains(&rarely), "{rarely} requests in ten hours");
    assert!(agent.snapshot().await.message.contains("revoked"));
    agent.kill().await;
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!((agent.running(), agent.state().phase), (vec![], Phase::Revoked), "also after a restart");
    assert!(agent.snapshot().await.message.contains("revoked"));
    agent.server.change(|server| server.always = None);
    agent.pass(HOUR * 2).await;
    assert_eq!(agent.running(), ["process-default-web"]);
    assert_eq!(agent.state().phase, Phase::Active);
}

#[tokio::test(start_paused = true)]
async fn ag133_a_revoked_agent_runs_on_for_two_to_three_minutes() {
    for seed in 0..10 {
        let mut agent = Agent::new(930 + seed);
        agent.server.change(|server| server.policy = Some(policy(1, "web")));
        agent.start();
        agent.pass(MINUTE).await;
        agent.server.change(|server| server.always = Some(("/checkin", refusal())));
        agent.kill().await;
        agent.start();
        agent.pass(MINUTE * 2 - Duration::from_millis(100)).await;
        assert_eq!((agent.state().phase, agent.running().len()), (Phase::Active, 1), "seed {seed}");
        agent.pass(MINUTE).await;
        assert_eq!((agent.state().phase, agent.running().len()), (Phase::Revoked, 0), "seed {seed}");
        // Also after a restart.
        agent.kill().await;
        agent.start();
        agent.pass(MINUTE).await;
        assert_eq!((agent.state().policy.is_none(), agent.running().len()), (true, 0), "seed {seed}");
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ag134_a_proxys_403_or_a_500_never_stops_programs() {
    let mut agent = Agent::new(34);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    let proxy = Fault::Answer(403, Value::String("<html>blocked</html>".into()));
    agent.server.change(|server| server.always = Some(("/checkin", proxy)));
    agent.pass(HOUR * 24).await;
    assert_eq!(agent.state().phase, Phase::Active);
    // Six refusals, then another response: the count starts over.
    agent.server.change(|server| {
        server.always = None;
        for _ in 0..3 {
            server.faults.extend((0..6).map(|_| ("/checkin", refusal())));
            server.faults.push_back(("/checkin", Fault::Answer(500, json!({"statusCode": 500, "error": "x"}))));
        }
    });
    agent.pass(HOUR * 24).await;
    assert_eq!(agent.state().phase, Phase::Active);
    assert_eq!(agent.did(), ["start process-default-web"]);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_not_followed() {
    let mut agent = Agent::new(35);
    agent.server.change(|server| server.always = Some(("/checkin", Fault::Redirect("https://evil.example/"))));
    agent.start();
    agent.pass(HOUR).await;
    assert!(agent.server.lock().hosts.iter().all(|server| server.host == "fleet.example"));
    let message = agent.snapshot().await.fleet.message;
    assert!(message.contains("redirect") && message.contains("evil.example"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn every_request_has_the_headers_that_servers_check() {
    let mut agent = Agent::new(36);
    agent.server.change(|server| server.actions = vec![level("a", "debug")]);
    agent.start();
    agent.pass(SECOND * 3).await;
    let requests = agent.server.lock().requests.clone();
    assert!(requests.iter().any(|(path, _)| path.ends_with("/acks")));
    for (path, headers) in requests {
        assert!(headers["user-agent"].to_str().unwrap().starts_with("Elastic Agent v9."), "{path}");
        assert_eq!(headers["elastic-api-version"], "2023-06-01");
        assert_eq!(headers["authorization"], "ApiKey a2V5OnNlY3JldA==");
        assert!(headers["authorization"].is_sensitive());
        assert_eq!(headers.get("content-encoding").is_some(), path.ends_with("/checkin"));
    }
    assert!(agent.begun_within(Duration::from_millis(510)));
}

/// The components of a protected policy that receive UNENROLL decide, however long they take.
#[tokio::test(start_paused = true)]
async fn ag136_an_unenrollment_that_a_protected_component_refuses_changes_nothing() {
    let mut agent = Agent::new(50);
    let mut protected = policy(1, "web");
    protected["agent"] = json!({"protection": {"enabled": true}});
    *agent.host.proxied.lock().unwrap() = Some(Err("not signed by my server".into()));
    agent.server.change(|server| server.policy = Some(protected));
    agent.start();
    agent.pass(SECOND * 5).await;
    agent.server.change(|server| server.actions = vec![action("u", "UNENROLL", Value::Null), level("a", "debug")]);
    agent.pass(SECOND * 10).await;
    assert!(agent.did().contains(&"proxy u".to_owned()) && agent.running() == ["process-default-web"]);
    assert!(agent.server.acked().contains(&"a".to_owned()), "others are not delayed");
    agent.pass(MINUTE).await;
    let ack = agent.server.acks().into_iter().find(|ack| ack.action_id == "u").unwrap();
    assert_eq!(ack.error.as_deref(), Some("not signed by my server"));
    assert_eq!((agent.state().phase, agent.running()), (Phase::Active, vec!["process-default-web".to_owned()]));

    // Killed while the component considers it, the agent asks again.
    *agent.host.proxied.lock().unwrap() = Some(Ok(()));
    agent.server.change(|server| server.actions.push(action("v", "UNENROLL", Value::Null)));
    agent.pass(SECOND * 10).await;
    agent.kill().await;
    *agent.host.proxied.lock().unwrap() = Some(Ok(()));
    agent.start();
    agent.pass(SECOND * 20).await;
    assert_eq!(agent.running(), ["process-default-web"]);
    assert_eq!(agent.ended(MINUTE).await, Ending::Unenrolled);
    assert!(agent.server.acked().contains(&"v".to_owned()) && agent.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_protection_components_are_not_asked_about_an_unenrollment() {
    let mut agent = Agent::new(51);
    *agent.host.proxied.lock().unwrap() = Some(Err("no".into()));
    agent.server.change(|server| {
        server.policy = Some(policy(1, "web"));
        server.actions = vec![action("u", "UNENROLL", Value::Null)];
    });
    agent.start();
    assert_eq!(agent.ended(MINUTE).await, Ending::Unenrolled);
    assert!(!agent.did().contains(&"proxy u".to_owned()));
}
