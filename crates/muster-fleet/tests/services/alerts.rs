//! Alerts: from a transition to a receiver, through failures and restarts (MG166–MG171).
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use muster_core::agent::{AgentDocuments, AgentRecord, AuditReason, AuditReport};
use muster_core::alert::{Filter, MailSecurity, Target};
use muster_core::authorization::{Actor, AgentsForceUnenroll, AlertsRead, AlertsWrite, EnrollmentRevoke, OpContext};
use muster_core::event::EventKind;
use muster_core::id::AgentId;
use muster_core::testing::bare_agent;
use muster_fleet::alerts::sender::{AlertSender, Outgoing, SendError};
use muster_fleet::alerts::{ReceiverDraft, TargetDraft};
use muster_fleet::force::Force;
use muster_fleet::registry::AgentEntry;
use muster_fleet::selection::Selected;
use muster_fleet::testing::TestFleet;
use serde_json::json;
use zeroize::Zeroizing;

use crate::setting::parked;

const ONLINE: &str = r#"{"status":"online","message":"Running"}"#;

/// A sender that keeps what it was given, and fails while it is told to.
#[derive(Default)]
struct Recorder {
    state: Mutex<Recorded>,
}

#[derive(Default)]
struct Recorded {
    is_failing: bool,
    attempts: usize,
    /// Kind and subject of each message that was accepted.
    accepted: Vec<(&'static str, String)>,
    secrets: Vec<Option<String>>,
}

#[async_trait]
impl AlertSender for Recorder {
    fn check(&self, target: &Target) -> Result<(), SendError> {
        match target {
            Target::Webhook { url, .. } if !url.starts_with("https://") => {
                Err(SendError::Unusable { field: "webhook.url", reason: "must be an https URL".into() })
            }
            _ => Ok(()),
        }
    }

    async fn send(&self, outgoing: Outgoing<'_>) -> Result<(), SendError> {
        let mut state = self.state.lock().unwrap();
        state.attempts += 1;
        if state.is_failing {
            return Err(SendError::Failed("the receiver responded with 500 Internal Server Error".into()));
        }
        let subject = outgoing.message.subject.as_ref().map(|subject| subject.id.clone()).unwrap_or_default();
        state.accepted.push((outgoing.message.kind.as_str(), subject));
        state.secrets.push(outgoing.secret.map(str::to_owned));
        Ok(())
    }
}

impl Recorder {
    fn fail(&self, is_failing: bool) {
        self.state.lock().unwrap().is_failing = is_failing;
    }

    fn taken(&self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.state.lock().unwrap().accepted)
    }
}

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

fn webhook(name: &str) -> ReceiverDraft {
    let target = TargetDraft::Webhook { url: "https://hooks.example.com/a".into(), secret: None, ca: None };
    ReceiverDraft { name: Some(name.into()), target: Some(target), ..ReceiverDraft::default() }
}

/// A fleet whose receiver `hook` gets everything.
async fn alerting() -> (TestFleet, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let test = TestFleet::alerting(Arc::new(muster_store::testing::fresh()), recorder.clone());
    test.fleet.alerts().create(&root().grant().unwrap(), webhook("hook")).await.unwrap();
    (test, recorder)
}

async fn agent(test: &TestFleet, id: &str) -> Arc<AgentEntry> {
    let now = test.now();
    let status_deadline = Some(now.plus(Duration::from_secs(300)));
    let record = AgentRecord { status_deadline, ..bare_agent(id, now) };
    let key = test.add_agent(record, AgentDocuments::default()).await;
    test.fleet.authentication().agent(id, &key).await.unwrap()
}

async fn check_in(test: &TestFleet, entry: &Arc<AgentEntry>, body: &str) {
    drop(parked(test.check_in(entry, body).await.unwrap()));
}

async fn report(test: &TestFleet, entry: &AgentEntry) {
    let report = AuditReport { reason: AuditReason::Uninstall, at: test.now() };
    test.fleet.check_ins().report_unenroll(entry, report, None).await.unwrap();
}

/// Lets time pass, in steps of a second or more, while alerts are sent.
async fn pass(test: &TestFleet, seconds: u64, step: u64) {
    for _ in 0..seconds / step {
        test.clock.advance(Duration::from_secs(step));
        test.fleet.alerts().deliver().await.unwrap();
    }
}

fn of(agent: &str, kind: &'static str) -> (&'static str, String) {
    (kind, agent.to_owned())
}

#[tokio::test]
async fn mg166_an_uninstall_report_is_one_event_within_a_minute_and_a_check_in_the_recovery() {
    let (test, recorder) = alerting().await;
    let entry = agent(&test, "a").await;
    check_in(&test, &entry, ONLINE).await;
    pass(&test, 120, 1).await;
    assert_eq!(recorder.taken(), [of("a", "agent.enrolled")]);
    report(&test, &entry).await;
    report(&test, &entry).await;
    pass(&test, 2, 1).await;
    assert_eq!(recorder.taken(), [of("a", "agent.uninstalled")], "once, within seconds");
    check_in(&test, &entry, r#"{"status":"online","message":"again"}"#).await;
    pass(&test, 2, 1).await;
    assert_eq!(recorder.taken(), [of("a", "agent.recovered")]);
}

#[tokio::test]
async fn status_transitions_by_time_and_by_check_ins_are_sent() {
    let (test, recorder) = alerting().await;
    let entry = agent(&test, "a").await;
    check_in(&test, &entry, ONLINE).await;
    pass(&test, 120, 5).await;
    recorder.taken();
    // A full back-off after the start of the server, from which absences count.
    pass(&test, 1200, 60).await;
    test.fleet.statuses().transition_due().await.unwrap();
    pass(&test, 61, 1).await;
    assert_eq!(recorder.taken(), [of("a", "agent.offline")]);
    check_in(&test, &entry, r#"{"status":"error","message":"no disk"}"#).await;
    pass(&test, 61, 1).await;
    assert_eq!(recorder.taken(), [of("a", "agent.online"), of("a", "agent.error")]);
    check_in(&test, &entry, r#"{"status":"error","message":"no disk"}"#).await;
    check_in(&test, &entry, ONLINE).await;
    pass(&test, 61, 1).await;
    assert_eq!(recorder.taken(), [of("a", "agent.recovered")]);
}

#[tokio::test]
async fn mg169_a_receiver_that_fails_for_an_hour_gets_each_event_in_order_per_agent() {
    let (test, recorder) = alerting().await;
    let entries = [agent(&test, "a").await, agent(&test, "b").await];
    for entry in &entries {
        check_in(&test, entry, ONLINE).await;
    }
    pass(&test, 120, 5).await;
    recorder.taken();
    recorder.fail(true);
    let before = recorder.state.lock().unwrap().attempts;
    for round in 0..12 {
        let entry = &entries[round % 2];
        match round / 2 % 2 {
            0 => report(&test, entry).await,
            _ => check_in(&test, entry, &format!(r#"{{"status":"online","message":"{round}"}}"#)).await,
        }
        pass(&test, 300, 5).await;
    }
    let attempts = recorder.state.lock().unwrap().attempts - before;
    assert!((8..40).contains(&attempts), "{attempts} attempts in an hour");
    let grant = root().grant::<AlertsRead>().unwrap();
    let (_, progress) = test.fleet.alerts().list(&grant).await.unwrap().remove(0);
    assert!(progress.failure.unwrap().reason.contains("500"));

    recorder.fail(false);
    pass(&test, 1200, 5).await;
    let mut by_agent: HashMap<String, Vec<&str>> = HashMap::new();
    for (kind, agent) in recorder.taken() {
        by_agent.entry(agent).or_default().push(kind);
    }
    let expected = ["agent.uninstalled", "agent.recovered"].repeat(3);
    assert_eq!((&by_agent["a"], &by_agent["b"]), (&expected, &expected));
}

#[tokio::test]
async fn mg169_a_restart_loses_nothing_and_repeats_nothing_that_was_accepted() {
    let (test, recorder) = alerting().await;
    for id in ["a", "b", "c"] {
        let entry = agent(&test, id).await;
        check_in(&test, &entry, ONLINE).await;
        report(&test, &entry).await;
    }
    pass(&test, 1, 1).await;
    recorder.fail(true);
    let entry = agent(&test, "d").await;
    report(&test, &entry).await;
    pass(&test, 10, 1).await;
    let before = recorder.taken();
    recorder.fail(false);
    let restarted = test.beside();
    pass(&restarted, 120, 1).await;
    let mut all: Vec<_> = before.into_iter().chain(recorder.taken()).collect();
    all.sort();
    let kinds = ["agent.enrolled", "agent.uninstalled"];
    let expected: Vec<_> = kinds.iter().flat_map(|kind| ["a", "b", "c", "d"].map(|id| of(id, kind))).collect();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn events_of_administration_are_sent_with_what_they_were() {
    let (test, recorder) = alerting().await;
    let key = test.add_key(None, |_| {}).await;
    let enrolled = test.enroll(&key, &json!({"type": "PERMANENT"})).await.unwrap();
    let selected = Selected::Ids(vec![AgentId::trusted(enrolled.id.as_str())]);
    let selection = test.fleet.agents().select::<AgentsForceUnenroll>(&root(), &selected).await.unwrap();
    test.fleet.actions().force_unenroll(&selection, Force::No).await.unwrap();
    let id = format!("ek-{}", key.id);
    let found = test.fleet.enrollment_keys().find::<EnrollmentRevoke>(&root(), &id).await.unwrap();
    test.fleet.enrollment_keys().revoke(&found).await.unwrap();
    let events = test.store().events_after(0, 100).await.unwrap();
    let told: Vec<_> = events.iter().map(|(_, event)| event.kind.as_str()).collect();
    assert_eq!(told, ["token.created", "agent.enrolled", "agent.unenrolled", "token.revoked"]);
    assert_eq!(events[2].1.detail, json!({"reason": "forced", "forced": true}));
    pass(&test, 61, 1).await;
    let mut kinds: Vec<_> = recorder.taken().into_iter().map(|(kind, _)| kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["agent.enrolled", "agent.unenrolled", "token.created", "token.revoked"]);
}

#[tokio::test]
async fn a_heartbeat_and_a_change_without_a_transition_are_no_events() {
    let (test, _) = alerting().await;
    let entry = agent(&test, "a").await;
    check_in(&test, &entry, ONLINE).await;
    let before = test.store().newest_event().await.unwrap();
    for message in ["one", "two", "two"] {
        check_in(&test, &entry, &format!(r#"{{"status":"online","message":"{message}"}}"#)).await;
    }
    assert_eq!(test.store().newest_event().await.unwrap(), before);
}

#[tokio::test]
async fn receivers_are_created_changed_muted_tested_and_deleted() {
    let (test, recorder) = alerting().await;
    let alerts = test.fleet.alerts();
    let grant = root().grant::<AlertsWrite>().unwrap();
    let taken = alerts.create(&grant, webhook("hook")).await.err().unwrap();
    assert_eq!(taken.code, "receiver_name_taken");
    let made = alerts.create(&grant, webhook("other")).await.unwrap();
    let secret = made.secret.unwrap();
    assert!(secret.starts_with("whsec_") && secret.len() > 40);
    let find = async || alerts.find::<AlertsWrite>(&root(), made.receiver.id.as_str()).await;
    assert_eq!(alerts.test(&find().await.unwrap()).await.unwrap(), Ok(()));
    assert_eq!(recorder.state.lock().unwrap().secrets.last().unwrap().as_deref(), Some(secret.as_str()));

    // The secret stays until another one is set, and the old one is deleted then.
    let target = |secret: Option<&str>| TargetDraft::Webhook {
        url: "https://hooks.example.com/b".into(),
        secret: secret.map(|text| Zeroizing::new(text.to_owned())),
        ca: None,
    };
    let change = |target| ReceiverDraft { target: Some(target), ..ReceiverDraft::default() };
    let moved = alerts.update(&find().await.unwrap(), change(target(None))).await.unwrap_err();
    assert_eq!(moved.field.as_deref(), Some("webhook.secret"), "it is not sent to another place");
    assert_eq!(find().await.unwrap().target.secret(), made.receiver.target.secret());
    let short = alerts.update(&find().await.unwrap(), change(target(Some("short")))).await.unwrap_err();
    assert_eq!(short.field.as_deref(), Some("webhook.secret"));
    alerts.update(&find().await.unwrap(), change(target(Some("a secret of my own")))).await.unwrap();
    let old = [made.receiver.target.secret().unwrap().clone()];
    assert_eq!(test.store().secrets(&old).await.unwrap().len(), 0);

    alerts.mute(&find().await.unwrap(), Some(test.now().plus(Duration::from_secs(3600)))).await.unwrap();
    let only = Filter { events: vec![EventKind::AgentUninstalled], ..Filter::default() };
    let hook = alerts.list(&root().grant().unwrap()).await.unwrap().remove(0).0;
    let hook = alerts.find::<AlertsWrite>(&root(), hook.id.as_str()).await.unwrap();
    let disabled = ReceiverDraft { is_enabled: Some(false), ..ReceiverDraft::default() };
    alerts.update(&hook, disabled).await.unwrap();
    recorder.taken();
    let entry = agent(&test, "a").await;
    report(&test, &entry).await;
    pass(&test, 120, 10).await;
    assert_eq!(recorder.taken(), [], "one is muted, the other one is disabled");
    alerts.mute(&find().await.unwrap(), None).await.unwrap();
    alerts
        .update(&find().await.unwrap(), ReceiverDraft { filter: Some(only), ..ReceiverDraft::default() })
        .await
        .unwrap();
    let entry = agent(&test, "b").await;
    report(&test, &entry).await;
    pass(&test, 120, 10).await;
    assert_eq!(recorder.taken(), [of("b", "agent.uninstalled")]);

    alerts.delete(&find().await.unwrap()).await.unwrap();
    assert_eq!(find().await.err().unwrap().code, "not_found");
    pass(&test, 2, 1).await;
}

#[tokio::test]
async fn invalid_receivers_are_rejected_with_the_field() {
    let (test, _) = alerting().await;
    let grant = root().grant::<AlertsWrite>().unwrap();
    let field = async |draft: ReceiverDraft| {
        test.fleet.alerts().create(&grant, draft).await.err().unwrap().field.unwrap_or_default()
    };
    assert_eq!(field(ReceiverDraft { name: Some("n".into()), ..ReceiverDraft::default() }).await, "target");
    assert_eq!(field(webhook(" ")).await, "name");
    let plain = TargetDraft::Webhook { url: "ftp://x".into(), secret: None, ca: None };
    assert_eq!(field(ReceiverDraft { target: Some(plain), ..webhook("n") }).await, "webhook.url");
    let mail = |to: &[&str], username: Option<&str>, from: &str| TargetDraft::Email {
        host: "mail".into(),
        port: None,
        security: MailSecurity::Tls,
        username: username.map(str::to_owned),
        password: None,
        from: from.into(),
        to: to.iter().map(|one| (*one).to_owned()).collect(),
        ca: None,
    };
    for (target, expected) in [
        (mail(&[], None, "a@b"), "email.to"),
        (mail(&["a@b"], Some("user"), "a@b"), "email.password"),
        (mail(&["a@b"], None, "a@b\r\nBcc: x@y"), "email.from"),
        (TargetDraft::Syslog { host: String::new(), port: None, tls: true, ca: None }, "syslog.host"),
    ] {
        assert_eq!(field(ReceiverDraft { target: Some(target), ..webhook("n") }).await, expected);
    }
    let many = Filter { tags: vec!["t".into(); 101], ..Filter::default() };
    assert_eq!(field(ReceiverDraft { filter: Some(many), ..webhook("n") }).await, "tags");
}
