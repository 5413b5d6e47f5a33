//! A drone against a scripted server: its requests, their order, and when it ends.

#![allow(clippy::unwrap_used, reason = "a test that can't set its scene has failed")]

mod scripted;

use muster_drones::event::{Event, Summary};
use muster_drones::{DronesArgs, Family, Mode, check_in::Phase, share};
use scripted::{Seen, Server};
use tokio::sync::watch;

fn args(server: &Server, mode: Mode) -> DronesArgs {
    DronesArgs {
        url: server.url.clone(),
        family: Family::Elastic,
        enrollment_token: Some("dG9rZW46c2VjcmV0".to_owned()),
        ca: server.ca.clone(),
        count: 1,
        processes: 1,
        mode,
        in_flight: 4,
        fresh_connections: false,
        seconds: 0.0,
        rate: 0.0,
        interval: 10.0,
        body_bytes: 1_000_000,
        back_off: 0.05,
        back_off_max: 0.1,
        invent: false,
        resume_tls: false,
        agent_version: "9.5.2".to_owned(),
        tags: vec!["drone".to_owned()],
        first: 0,
        push: false,
        connections: 0,
        degrade_percent: 0,
        json: false,
        share: None,
    }
}

/// Runs one share to its end; returns its events and its summary.
async fn run(args: &DronesArgs) -> (Vec<Event>, Summary) {
    let (events, mut told) = share::events();
    let (_phases, phase) = watch::channel(Phase::Running);
    share::run(args, 0, events, phase).await.unwrap();
    let mut all = Vec::new();
    while let Some(event) = told.recv().await {
        all.push(event);
    }
    let Some(Event::Summary(summary)) = all.pop() else { panic!("no summary in {all:?}") };
    (all, summary)
}

fn check_ins(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|seen| seen.path.ends_with("/checkin?")).collect()
}

#[tokio::test]
async fn a_drone_sends_the_requests_of_a_real_agent() {
    let server = Server::start().await;
    let (events, summary) = run(&args(&server, Mode::Live)).await;
    let seen = server.seen();

    let paths: Vec<_> = seen.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    let (check_in, acks) = ("POST /api/fleet/agents/agent-1/checkin?", "POST /api/fleet/agents/agent-1/acks?");
    let life = [
        ["POST /api/fleet/agents/enroll?"].as_slice(),
        &[check_in, "GET /api/status?", acks],
        &[check_in, acks],
        &[check_in, "POST /api/fleet/uploads?", "PUT /api/fleet/uploads/u-1/0?", "POST /api/fleet/uploads/u-1?", acks],
        &[check_in, acks],
    ]
    .concat();
    assert_eq!(paths, life);

    let said = check_ins(&seen);
    assert_eq!((&said[0].body["status"], &said[0].body["ack_token"]), (&"starting".into(), &serde_json::Value::Null));
    assert_eq!((&said[1].body["ack_token"], &said[1].body["agent_policy_id"]), (&"t-1".into(), &"p".into()));
    assert_eq!(said[1].body["policy_revision_idx"], 3);
    assert_eq!(said[2].body["ack_token"], "t-1", "an empty token keeps the old one");
    assert_eq!((summary.counts.gone, summary.counts.acks, summary.counts.errors.len()), (1, 4, 0));
    assert!(events.iter().any(|event| matches!(event, Event::Action { kind, .. } if kind == "SETTINGS")));
    assert!(events.iter().any(|event| matches!(event, Event::Revision { action_id, .. } if action_id == "policy:p:3")));
}

#[tokio::test]
async fn diagnostics_are_uploaded_and_acked_with_the_uploads_id() {
    let server = Server::start().await;
    run(&args(&server, Mode::Live)).await;
    let seen = server.seen();
    let at = seen.iter().position(|seen| seen.method == "PUT").unwrap();
    assert_eq!((&seen[at].body, seen[at].header("x-chunk-sha2").len()), (&70_000.into(), 64));
    assert_eq!(seen[at - 1].body["action_id"], "a-3");
    assert_eq!(seen[at + 1].body["transithash"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(seen[at + 2].body["events"][0]["data"]["upload_id"], "u-1");
}

#[tokio::test]
async fn requests_have_the_headers_of_a_real_agent() {
    let server = Server::start().await;
    run(&args(&server, Mode::Live)).await;
    let seen = server.seen();
    for request in &seen {
        assert_eq!(request.header("user-agent"), "Elastic Agent v9.5.2");
        assert_eq!((request.header("elastic-api-version"), request.header("kbn-xsrf")), ("2023-06-01", "1"));
        assert_eq!((request.header("accept-encoding"), request.header("x-request-id").len()), ("gzip", 26));
    }
    assert_eq!(seen[0].header("authorization"), "ApiKey dG9rZW46c2VjcmV0");
    assert_eq!(seen[1].header("authorization"), "ApiKey a2V5LTE6c2VjcmV0");
    let packed = |request: &Seen| request.header("content-encoding") == "gzip";
    assert!(seen.iter().all(|request| packed(request) == request.path.ends_with("/checkin?")));
    assert_eq!(server.connections(), 1, "an agent keeps its connection");
}

#[tokio::test]
async fn refusals_are_counted_and_retried() {
    let server = Server::start().await;
    server.refuse_next(2);
    let (_, summary) = run(&args(&server, Mode::Live)).await;
    assert_eq!(summary.counts.errors["enroll: 429 RateLimit"], 2);
    assert_eq!((summary.counts.enrolled, summary.counts.gone), (1, 1));
}

#[tokio::test]
async fn enrollments_share_connections_or_have_one_each() {
    for (fresh_connections, connections) in [(false, 4), (true, 20)] {
        let server = Server::start().await;
        let args = DronesArgs { count: 20, fresh_connections, ..args(&server, Mode::Enroll) };
        let (_, summary) = run(&args).await;
        assert_eq!((summary.counts.enrolled, summary.latencies["enroll"].count()), (20, 20));
        assert_eq!(server.connections(), connections);
        let hosts: std::collections::BTreeSet<_> =
            server.seen().iter().map(|seen| seen.body["metadata"]["local"]["host"]["hostname"].to_string()).collect();
        assert_eq!(hosts.len(), 20);
    }
}

#[tokio::test]
async fn a_burst_is_one_large_uncompressed_check_in_per_agent() {
    let server = Server::start().await;
    let (_, summary) = run(&DronesArgs { count: 3, body_bytes: 300_000, ..args(&server, Mode::Burst) }).await;
    let seen = server.seen();
    let large: Vec<_> =
        check_ins(&seen).into_iter().filter(|seen| seen.header("content-encoding").is_empty()).collect();
    assert_eq!((large.len(), summary.counts.check_ins), (3, 3));
    for request in large {
        assert!(request.header("content-length").parse::<usize>().unwrap() >= 300_000);
        assert_eq!(request.body["status"], "online");
    }
}
