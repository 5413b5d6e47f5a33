//! Alerts of several servers: one sends them, and another one takes over.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use muster_core::agent::{AuditReason, AuditReport};
use muster_core::alert::Target;
use muster_core::authorization::AlertsWrite;
use muster_fleet::alerts::sender::{AlertSender, Outgoing, SendError};
use muster_fleet::alerts::{ReceiverDraft, TargetDraft};
use muster_fleet::testing::{TestFleet, steady};

use crate::cluster::{Agent, Database, eventually, root};

/// A sender that keeps the kinds of its messages.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

#[async_trait]
impl AlertSender for Recorder {
    fn check(&self, _: &Target) -> Result<(), SendError> {
        Ok(())
    }

    async fn send(&self, outgoing: Outgoing<'_>) -> Result<(), SendError> {
        let subject = outgoing.message.subject.as_ref().map(|subject| subject.name.clone()).unwrap_or_default();
        self.0.lock().unwrap().push(format!("{} {subject}", outgoing.message.kind));
        Ok(())
    }
}

async fn report(server: &TestFleet, agent: &Agent) {
    let entry = agent.entry(server).await;
    let report = AuditReport { reason: AuditReason::Uninstall, at: server.now() };
    server.fleet.check_ins().report_unenroll(&entry, report, None).await.expect("accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn mg168_mg169_another_server_takes_over_from_a_lost_one_and_tells_of_the_loss() {
    let database = Database::new().await;
    let recorder = Arc::new(Recorder::default());
    let a = TestFleet::alerting(database.open().await, recorder.clone());
    let b = a.beside_over(database.open().await, steady());
    let target = TargetDraft::Syslog { host: "log".into(), port: None, tls: true, ca: None };
    let draft = ReceiverDraft { name: Some("log".into()), target: Some(target), ..ReceiverDraft::default() };
    a.fleet.alerts().create(&root().grant::<AlertsWrite>().expect("granted"), draft).await.expect("created");
    let taken = || std::mem::take(&mut *recorder.0.lock().unwrap());

    let (one, two) = (Agent::new(&a, "one").await, Agent::new(&a, "two").await);
    report(&a, &one).await;
    a.fleet.alerts().deliver().await.expect("sent");
    assert!(taken().iter().any(|message| message.starts_with("agent.uninstalled")));
    report(&b, &two).await;
    b.fleet.alerts().deliver().await.expect("readable");
    assert_eq!(taken(), Vec::<String>::new(), "the other server holds the lease");

    database.expire(&a).await;
    database
        .sql(
            "INSERT INTO lost_nodes (id, name, lost_at) VALUES ('lost', 'gone', \
        CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT))",
        )
        .await;
    let mut sent = Vec::new();
    eventually("the other server sends", async || {
        b.fleet.alerts().deliver().await.expect("sent");
        sent.extend(taken());
        sent.iter().any(|message| message == "gateway.lost gone")
    })
    .await;
    assert_eq!(sent.iter().filter(|message| message.starts_with("agent.uninstalled")).count(), 1, "{sent:?}");
    b.fleet.alerts().deliver().await.expect("sent");
    assert!(taken().iter().all(|message| !message.starts_with("gateway.lost")), "once");
}
