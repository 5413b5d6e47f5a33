//! Audit reports of agents that were uninstalled or are gone (EA §8).

use muster_core::agent::AuditReason;
use serde_json::json;

use crate::setting::{Ask, Enrolled, Got, Server, online, refused};

const NOW: &str = "2026-01-02T03:04:05.678Z";

async fn report(server: &Server, agent: &Enrolled, reason: &str, timestamp: &str) -> Got {
    let body = json!({"reason": reason, "timestamp": timestamp});
    server.get(Ask::post(&agent.path("audit/unenroll")).key(&agent.token).json(&body)).await
}

#[tokio::test]
async fn ag145_ea61_ea137_ea140_mg50_every_reason_is_accepted_and_the_agent_stays_active() {
    let server = Server::start().await;
    for (word, reason) in [
        ("uninstall", AuditReason::Uninstall),
        ("orphaned", AuditReason::Orphaned),
        ("key_revoked", AuditReason::KeyRevoked),
        ("migrated", AuditReason::Migrated),
    ] {
        let agent = server.enrolled().await;
        let got = report(&server, &agent, word, NOW).await;
        assert_eq!((got.status, got.body.len()), (200, 0), "{word}");
        let record = server.stored(&agent.id).await;
        assert_eq!((record.audit.map(|audit| audit.reason), record.active), (Some(reason), true));
        server.holds(server.check_in(&agent, &online())).await;
        assert_eq!(server.stored(&agent.id).await.audit, None);
    }
}

#[tokio::test]
async fn ea138_mg50_orphaned_is_final() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for word in ["uninstall", "uninstall", "orphaned"] {
        assert_eq!(report(&server, &agent, word, NOW).await.status, 200, "{word}");
    }
    for word in ["orphaned", "uninstall", "nonsense"] {
        assert_eq!(
            report(&server, &agent, word, NOW).await.refusal(),
            refused(409, "ErrAuditReasonConflict"),
            "{word}"
        );
    }
    let path = agent.path("audit/unenroll");
    let got = server.get(Ask::post(&path).key(&agent.token).body("x".repeat(5000))).await;
    assert_eq!(got.refusal(), refused(409, "ErrAuditReasonConflict"));
}

#[tokio::test]
async fn ea139_ea19_unknown_reasons_bad_times_and_large_bodies_are_400() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    for (reason, timestamp) in [("bored", NOW), ("", NOW), ("uninstall", "yesterday"), ("uninstall", "")] {
        let got = report(&server, &agent, reason, timestamp).await;
        assert_eq!(got.refusal(), refused(400, "BadRequest"), "{reason} {timestamp}");
    }
    let got = report(&server, &agent, "uninstall", &"9".repeat(1024)).await;
    assert_eq!(got.refusal(), refused(400, "BadRequest"));
    assert_eq!(server.stored(&agent.id).await.audit, None);
}

#[tokio::test]
async fn who_caused_a_departure_is_stored_and_a_check_in_clears_it() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let long = "x".repeat(300);
    let departure = json!({"user": "alice\u{7}", "uid": 1000, "process": "uninstall < sudo", "why": long});
    let body = json!({"reason": "uninstall", "timestamp": NOW, "departure": departure});
    let got = server.get(Ask::post(&agent.path("audit/unenroll")).key(&agent.token).json(&body)).await;
    assert_eq!(got.status, 200);
    let stored = server.stored(&agent.id).await.departure.unwrap();
    assert_eq!((stored.user.as_str(), stored.uid, stored.process.as_str()), ("alice", 1000, "uninstall < sudo"));
    assert_eq!(stored.why.unwrap().len(), 200);
    server.holds(server.check_in(&agent, &online())).await;
    assert_eq!(server.stored(&agent.id).await.departure, None);
}

#[tokio::test]
async fn ag142_a_refused_command_is_an_event_and_the_agent_stays() {
    let server = Server::start().await;
    let agent = server.enrolled().await;
    let departure = json!({"user": "alice", "uid": 1000, "process": "uninstall < sudo"});
    let body = json!({"reason": "refused", "timestamp": NOW, "departure": departure});
    let recovered = json!({"reason": "recovery_code", "timestamp": NOW, "departure": departure});
    let send = || Ask::post(&agent.path("audit/unenroll")).key(&agent.token).json(&body);
    let used = Ask::post(&agent.path("audit/unenroll")).key(&agent.token).json(&recovered);
    assert_eq!(server.get(used).await.status, 200);
    let lines = format!("{:?}", server.fleet.store().audit_events(0, 1000).await.unwrap());
    assert!(lines.contains("agent.use_recovery_code") && lines.contains("uninstall < sudo"), "{lines}");
    let record = server.stored(&agent.id).await;
    assert_eq!((record.audit, record.departure, record.active), (None, None, true));
    // All that an agent has stored while it was offline.
    for _ in 1..64 {
        assert_eq!(server.get(send()).await.status, 200);
    }
    let more = server.get(send()).await;
    assert_eq!(more.refusal(), refused(429, "TooManyRequests"), "somebody who tries tokens cannot fill the audit log");
}
