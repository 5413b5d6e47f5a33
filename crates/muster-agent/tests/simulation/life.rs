//! The life cycle of an agent without faults.

use muster_agent::coordinator::{Command, Ending};
use muster_agent::state::{Phase, Store};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::fixture::{Agent, HOUR, MINUTE, SECOND, action, level, policy};
use crate::server::{Fault, policy_change};

#[tokio::test(start_paused = true)]
async fn the_policy_is_applied_before_actions_and_acks_go_in_one_request() {
    let mut agent = Agent::new(1);
    let actions = json!([level("a", "debug"), policy_change(&policy(1, "web")), level("b", "error")]);
    agent.server.change(|server| {
        server.policy = Some(policy(1, "web"));
        server.scripted.push_back(json!({"action": "checkin", "ack_token": "", "actions": actions}));
    });
    agent.start();
    agent.pass(SECOND * 5).await;
    assert_eq!(agent.did(), ["start process-default-web", "level debug", "level error"]);
    let requests = agent.server.lock().ack_requests.clone();
    let ids: Vec<Vec<&str>> =
        requests.iter().map(|acks| acks.iter().map(|ack| ack.action_id.as_str()).collect()).collect();
    assert_eq!(ids, [vec!["policy:p:1", "a", "b"]]);
}

#[tokio::test(start_paused = true)]
async fn memory_is_given_back_after_the_start_and_after_work_but_not_while_idle() {
    let mut agent = Agent::new(4);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    let released = |agent: &Agent| agent.memory.0.lock().unwrap().len();
    agent.pass(SECOND * 9).await;
    assert_eq!(released(&agent), 0, "the start may take longer");
    agent.pass(SECOND * 6).await;
    assert_eq!(released(&agent), 1);
    agent.pass(HOUR * 24).await;
    assert_eq!(released(&agent), 1, "what idle check-ins use stays in memory");
    agent.server.change(|server| server.policy = Some(policy(2, "next")));
    agent.pass(MINUTE).await;
    assert_eq!(released(&agent), 2);
    agent.kill().await;

    // Without a server, the first check-in comes late, and is work of its own.
    let mut agent = Agent::new(5);
    agent.server.change(|server| server.always = Some(("", Fault::LoseRequest)));
    agent.start();
    agent.pass(HOUR).await;
    assert_eq!(released(&agent), 1);
    agent.server.change(|server| server.always = None);
    agent.pass(HOUR).await;
    assert_eq!(released(&agent), 2);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stops_gives_back_what_its_variables_hold() {
    for command in [Command::Stop, Command::Restart, Command::Reload] {
        let keeps = matches!(command, Command::Reload);
        let mut agent = Agent::new(6);
        agent.start();
        agent.pass(SECOND * 5).await;
        agent.commands.send(command).await.unwrap();
        agent.ended(MINUTE).await;
        assert_ne!(agent.variables.stopped.load(std::sync::atomic::Ordering::Relaxed), keeps);
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_in_reports_policy_and_components() {
    let mut agent = Agent::new(2);
    agent.server.change(|server| server.policy = Some(policy(3, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    let first = agent.server.lock().check_ins[0].body.clone();
    assert_eq!((first["status"].as_str(), &first["components"]), (Some("starting"), &json!([])));
    assert_eq!((&first["agent_policy_id"], &first["policy_revision_idx"]), (&json!(""), &json!(0)));
    let last = agent.server.lock().check_ins.last().unwrap().body.clone();
    assert_eq!((last["status"].as_str(), last["message"].as_str()), (Some("online"), Some("Running")));
    assert_eq!((&last["agent_policy_id"], &last["policy_revision_idx"]), (&json!("p"), &json!(3)));
    let part = &last["components"][0];
    assert_eq!((&part["id"], &part["status"]), (&json!("process-default-web"), &json!("HEALTHY")));
    let kinds: Vec<&str> = part["units"].as_array().unwrap().iter().map(|u| u["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["output", "input"]);
    agent.host.fail("process-default-web");
    agent.pass(SECOND * 10).await;
    let last = agent.server.lock().check_ins.last().unwrap().body.clone();
    assert_eq!(last["status"], "DEGRADED", "a change interrupts the held request");
    assert!(last["message"].as_str().unwrap().contains("process-default-web is FAILED"));
}

#[tokio::test(start_paused = true)]
async fn ag93_an_agent_without_a_policy_stays_enrolled_and_keeps_checking_in() {
    let mut agent = Agent::new(13);
    agent.start();
    agent.pass(HOUR * 24).await;
    let polls = agent.server.lock().check_ins.len();
    assert!((280..=295).contains(&polls), "{polls}");
    let snapshot = agent.snapshot().await;
    assert_eq!((snapshot.state.as_str(), snapshot.fleet.state.as_str()), ("STARTING", "HEALTHY"), "{snapshot:?}");
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.pass(SECOND).await;
    assert_eq!(
        (agent.running(), agent.snapshot().await.state.as_str()),
        (vec!["process-default-web".into()], "HEALTHY")
    );
}

#[tokio::test(start_paused = true)]
async fn ag176_a_server_that_has_recovered_is_found_within_ten_seconds() {
    for seed in 0..50 {
        let mut agent = Agent::new(850 + seed);
        let fault = if seed % 2 == 0 { Fault::LoseRequest } else { Fault::WrongClock };
        agent.server.change(|server| server.always = Some(("", fault)));
        agent.start();
        agent.pass(SECOND).await;
        let fleet = agent.snapshot().await.fleet;
        assert!(fleet.state.as_str() == "FAILED" && fleet.message.contains("lost"), "visible at once: {fleet:?}");
        agent.pass(HOUR + SECOND * u32::try_from(seed).unwrap()).await;
        let requests = agent.server.lock().requests.len();
        assert!(requests < 1000, "{requests} small requests");
        agent.server.change(|server| server.always = None);
        agent.pass(SECOND * 10).await;
        assert_eq!(agent.server.lock().check_ins.len(), 1, "seed {seed}");
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ag176_a_server_behind_a_gateway_is_found_within_ten_seconds() {
    for (seed, status) in (0..30).zip([502, 503, 504].into_iter().cycle()) {
        let mut agent = Agent::new(960 + seed);
        let fault = Fault::Answer(status, "<html>no server</html>".into());
        agent.server.change(|server| server.always = Some(("", fault)));
        agent.start();
        agent.pass(HOUR + SECOND * u32::try_from(seed).unwrap()).await;
        let requests = agent.server.lock().requests.len();
        assert!(requests < 1000, "{requests} small requests");
        agent.server.change(|server| server.always = None);
        agent.pass(SECOND * 10).await;
        assert_eq!(agent.server.lock().check_ins.len(), 1, "seed {seed}");
        agent.kill().await;
    }
}

/// A server that crashes soon after its start, or two nodes that are restarted one after the other.
#[tokio::test(start_paused = true)]
async fn ag176_a_server_that_goes_away_again_after_a_probe_is_found_again() {
    for seed in 0..20 {
        let mut agent = Agent::new(920 + seed);
        agent.server.change(|server| server.always = Some(("/checkin", Fault::Refuse)));
        agent.start();
        agent.pass(MINUTE * 5 + SECOND * u32::try_from(seed).unwrap()).await;
        agent.server.change(|server| server.always = None);
        agent.pass(SECOND * 10).await;
        assert_eq!(agent.server.lock().check_ins.len(), 1, "seed {seed}");
        agent.kill().await;
    }
}

/// Something between the agent and the server lets only small requests pass.
#[tokio::test(start_paused = true)]
async fn probes_that_succeed_do_not_defeat_the_back_off() {
    let mut agent = Agent::new(900);
    agent.server.change(|server| server.always = Some(("/checkin", Fault::LoseRequest)));
    agent.start();
    agent.pass(HOUR * 2).await;
    let requests = agent.server.lock().requests.clone();
    let check_ins = requests.iter().filter(|(path, _)| path.ends_with("/checkin")).count();
    assert!((13..=60).contains(&check_ins), "{check_ins} check-ins in two hours");
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_sends_one_request_in_five_minutes_and_writes_nothing() {
    let mut agent = Agent::new(3);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    let (writes, requests) = (agent.store.writes(), agent.server.lock().check_ins.len());
    agent.pass(HOUR * 24).await;
    assert_eq!(agent.store.writes(), writes);
    let polls = agent.server.lock().check_ins.len() - requests;
    assert!((280..=290).contains(&polls), "{polls}");
}

#[tokio::test(start_paused = true)]
async fn the_stored_policy_is_applied_before_the_server_responds() {
    let mut agent = Agent::new(4);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    agent.kill().await;
    agent.journal.lock().unwrap().clear();
    let acked = agent.server.acked().len();
    agent.server.change(|server| server.always = Some(("/checkin", Fault::LoseRequest)));
    agent.start();
    agent.pass(SECOND).await;
    assert_eq!(agent.did(), ["start process-default-web"]);
    agent.pass(MINUTE).await;
    assert_eq!(agent.server.acked().len(), acked, "not acknowledged again");
    assert_eq!(agent.snapshot().await.fleet.state.as_str(), "FAILED");
    agent.server.change(|server| server.always = None);
    agent.pass(MINUTE * 4).await;
    let fleet = agent.snapshot().await.fleet;
    assert_eq!((fleet.state.as_str(), fleet.last_check_in), ("HEALTHY", None), "held, without a response yet");
}

#[tokio::test(start_paused = true)]
async fn an_unenroll_stops_programs_is_acknowledged_and_deletes_credentials() {
    let mut agent = Agent::new(5);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.start();
    agent.pass(MINUTE).await;
    agent.server.change(|server| server.actions = vec![action("u", "UNENROLL", Value::Null), level("never", "debug")]);
    assert_eq!(agent.ended(MINUTE).await, Ending::Unenrolled);
    assert_eq!(agent.server.acked().last().unwrap(), "u");
    assert_eq!(agent.running(), [""; 0]);
    assert!(!agent.did().contains(&"level debug".to_owned()));
    assert!(agent.store.enrollment().unwrap().is_none(), "credentials are gone");
    let state = agent.state();
    assert_eq!(state.phase, Phase::Unenrolled);
    assert!(state.policy.is_none() && state.ack_token.is_empty(), "nothing of the policy is kept");
    assert!(agent.server.lock().audits.is_empty(), "an agent that was unenrolled by its server does not report it");
}

#[tokio::test(start_paused = true)]
async fn the_ack_of_an_unenroll_is_delivered_even_after_a_kill() {
    let mut agent = Agent::new(6);
    agent.server.change(|server| {
        server.actions = vec![action("u", "UNENROLL", Value::Null)];
        server.always = Some(("/acks", Fault::LoseRequest));
    });
    agent.start();
    agent.pass(SECOND * 3).await;
    assert_eq!(agent.state().phase, Phase::Unenrolling);
    agent.kill().await;
    agent.server.change(|server| server.always = None);
    let polls = agent.server.lock().check_ins.len();
    agent.start();
    assert_eq!(agent.ended(MINUTE).await, Ending::Unenrolled);
    assert_eq!(agent.server.acked(), ["u"]);
    assert_eq!(agent.server.lock().check_ins.len(), polls, "polling has stopped");
}

#[tokio::test(start_paused = true)]
async fn a_privilege_change_ends_the_daemon_and_is_acknowledged_by_the_next_one() {
    let change = |id: &str| action(id, "PRIVILEGE_LEVEL_CHANGE", json!({"unprivileged": true}));
    let error_of = |agent: &Agent, id: &str| {
        let acks = agent.server.acks().into_iter().filter(|ack| ack.action_id == id).collect::<Vec<_>>();
        assert_eq!(acks.len(), 1, "{id} is acknowledged once: {acks:?}");
        acks[0].error.clone()
    };
    let mut agent = Agent::new(61);
    agent.server.change(|server| server.policy = Some(policy(1, "web")));
    agent.host.privileges.lock().unwrap().1 = Err("no service".into());
    agent.server.change(|server| server.actions.push(change("refused")));
    agent.start();
    agent.pass(SECOND * 5).await;
    assert_eq!(error_of(&agent, "refused").as_deref(), Some("no service"));
    agent.host.privileges.lock().unwrap().1 = Ok(());
    for (id, works) in [("failed", false), ("done", true)] {
        agent.server.change(|server| server.actions.push(change(id)));
        assert_eq!(agent.ended(SECOND * 10).await, Ending::Unprivileged);
        assert_eq!(agent.state().lowering.unwrap().action_id, id);
        assert!(agent.running().is_empty(), "the components have stopped");
        *agent.host.privileges.lock().unwrap() = (!works, Ok(()));
        agent.start();
        agent.pass(SECOND * 5).await;
        assert_eq!(error_of(&agent, id).is_none(), works);
        assert_eq!((agent.state().lowering, agent.running().len()), (None, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unenrollment_on_the_host_is_reported_to_the_server() {
    let mut agent = Agent::new(7);
    agent.start();
    agent.pass(SECOND * 3).await;
    agent.server.change(|server| server.faults.push_back(("/audit/unenroll", Fault::LoseRequest)));
    let (reply, answer) = oneshot::channel();
    agent.commands.send(Command::Unenroll(reply)).await.unwrap();
    assert_eq!(answer.await.unwrap(), None);
    assert_eq!(agent.ended(SECOND).await, Ending::Unenrolled);
    assert_eq!(agent.server.lock().audits[0]["reason"], "uninstall");
    assert!(agent.store.enrollment().unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn ag113_an_action_with_a_start_time_runs_on_time_and_can_be_cancelled() {
    let mut agent = Agent::new(8);
    let mut later = level("later", "debug");
    later["start_time"] = "2026-06-01T00:10:00Z".into();
    let mut never = level("never", "error");
    never["start_time"] = "2026-06-01T00:20:00Z".into();
    agent.server.change(|server| server.actions = vec![later, never]);
    agent.start();
    agent.pass(MINUTE * 9).await;
    assert_eq!(agent.did(), [""; 0]);
    agent.server.change(|server| server.actions.push(action("c", "CANCEL", json!({"target_id": "never"}))));
    agent.pass(MINUTE * 2).await;
    assert_eq!(agent.did(), ["level debug"]);
    agent.pass(HOUR).await;
    assert_eq!(agent.did(), ["level debug"]);
    assert_eq!(agent.server.acked(), ["c", "later"]);
}

#[tokio::test(start_paused = true)]
async fn ag113_unsupported_actions_are_acknowledged_with_an_error() {
    let mut agent = Agent::new(9);
    let kinds = ["UPGRADE", "MIGRATE", "PRIVILEGE_LEVEL_CHANGE", "WHATEVER"];
    agent.server.change(|server| server.actions = kinds.map(|kind| action(kind, kind, json!({}))).into());
    agent.start();
    agent.pass(SECOND * 5).await;
    let acks = agent.server.acks();
    assert_eq!(acks.iter().map(|ack| ack.action_id.as_str()).collect::<Vec<_>>(), kinds);
    assert!(acks.iter().all(|ack| ack.error.as_deref().is_some_and(|error| !error.is_empty())), "{acks:?}");
}

#[tokio::test(start_paused = true)]
async fn ag117_diagnostics_are_uploaded_without_delaying_other_actions() {
    let mut agent = Agent::new(10);
    agent.server.change(|server| {
        server.policy = Some(policy(1, "web"));
        server.actions = vec![
            action("d1", "REQUEST_DIAGNOSTICS", Value::Null),
            action("d2", "REQUEST_DIAGNOSTICS", Value::Null),
            level("l", "debug"),
        ];
    });
    agent.start();
    agent.pass(MINUTE).await;
    let acks = agent.server.acks();
    let one = acks.iter().find(|ack| ack.action_id == "d1").unwrap();
    assert_eq!((one.data["upload_id"].as_str(), &one.error), (Some("up-1"), &None));
    assert!(acks.iter().find(|ack| ack.action_id == "d2").unwrap().error.is_some(), "one a minute");
    let uploads = agent.server.lock().uploads.clone();
    let (end, chunks) = uploads.split_last().unwrap();
    let whole: Vec<u8> = chunks.iter().flat_map(|(_, chunk)| chunk.clone()).collect();
    for (hash, chunk) in chunks {
        assert_eq!(*hash, muster_core::hex::encode(&muster_core::hex::sha256(chunk)));
    }
    let raw: Vec<u8> = chunks.iter().flat_map(|(_, chunk)| muster_core::hex::sha256(chunk)).collect();
    let transit: Value = serde_json::from_slice(&end.1).unwrap();
    assert_eq!(transit["transithash"]["sha256"], muster_core::hex::encode(&muster_core::hex::sha256(&raw)));
    let document = muster_agent::net::gzip::decompress(&whole, 1 << 20).unwrap().unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["status"]["agent_id"], "agent-1");
}

#[tokio::test(start_paused = true)]
async fn ag108_new_servers_are_used_only_if_they_respond() {
    let mut agent = Agent::new(11);
    let mut moved = policy(1, "web");
    moved["fleet"] = json!({"hosts": ["https://other.example:8220"]});
    agent.server.change(|server| {
        server.policy = Some(moved.clone());
        server.faults.push_back(("/api/status", Fault::LoseRequest));
    });
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.store.enrollment().unwrap().unwrap().servers, ["https://fleet.example:8220"]);
    assert!(agent.snapshot().await.fleet.message.contains("servers responds"));
    moved["revision"] = 2.into();
    agent.server.change(|server| server.policy = Some(moved));
    agent.pass(MINUTE).await;
    assert_eq!(agent.store.enrollment().unwrap().unwrap().servers, ["https://other.example:8220"]);
    assert_eq!(agent.server.lock().hosts.last().unwrap().host, "other.example");
    let started = Instant::now();
    assert!(agent.snapshot().await.fleet.message.starts_with("Connected"));
    assert!(started.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn ag109_one_of_several_servers_must_respond() {
    let mut agent = Agent::new(12);
    let mut moved = policy(1, "web");
    let hosts = ["https://dead.example:8220", "https://other.example:8220"];
    moved["fleet"] = json!({"hosts": hosts});
    agent.server.change(|server| {
        server.policy = Some(moved);
        server.faults.push_back(("/api/status", Fault::LoseRequest));
    });
    agent.start();
    agent.pass(MINUTE).await;
    assert_eq!(agent.store.enrollment().unwrap().unwrap().servers, hosts);
    assert_eq!(agent.snapshot().await.state.as_str(), "HEALTHY");
}

#[tokio::test(start_paused = true)]
async fn servers_of_a_policy_that_accept_no_check_in_are_left_within_two_minutes() {
    let refused = json!({"statusCode": 401, "error": "ErrUnauthorized", "message": "unauthorized"});
    // Something else responds with JSON, too; and a load balancer whose backend is stuck holds every check-in.
    let other = Fault::Answer(200, json!({"status": "ok"}));
    let faults = [Fault::Answer(401, refused), Fault::LoseRequest, Fault::Answer(503, json!({})), other, Fault::Hold];
    for (seed, fault) in (31..).zip(faults) {
        let mut agent = Agent::new(seed);
        let mut moved = policy(1, "web");
        moved["fleet"] = json!({"hosts": ["https://stranger.example:8220"]});
        agent.server.change(|server| {
            server.policy = Some(moved);
            server.strangers.insert("stranger.example", fault);
        });
        agent.start();
        agent.pass(MINUTE * 2).await;
        agent.server.change(|server| server.actions.push(level("a", "debug")));
        agent.pass(SECOND * 10).await;
        assert!(agent.server.acked().contains(&"a".to_owned()), "it is at its server again");
        let status = agent.snapshot().await;
        assert!(status.fleet.message.contains("do not accept this agent"), "{}", status.fleet.message);
        assert_eq!(agent.store.enrollment().unwrap().unwrap().servers, [crate::fixture::HERE]);
        assert_eq!(agent.running(), ["process-default-web"], "the rest of the policy is in effect");
    }
}

#[tokio::test(start_paused = true)]
async fn ag58_a_warning_of_the_server_degrades_the_connection_with_its_text() {
    let mut agent = Agent::new(34);
    agent.server.change(|server| {
        server.policy = Some(policy(1, "web"));
        server.warning = Some("299 - \"this server is being replaced\"");
    });
    agent.start();
    agent.pass(MINUTE).await;
    let status = agent.snapshot().await;
    assert_eq!((status.state.as_str(), status.fleet.state.as_str()), ("HEALTHY", "DEGRADED"));
    assert!(status.fleet.message.contains("this server is being replaced"), "{}", status.fleet.message);
}
