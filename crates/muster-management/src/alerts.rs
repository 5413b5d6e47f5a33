//! `/alerts`: receivers of alerts.

use muster_core::error_chain::chain;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::alert::{Digest, Filter, MailSecurity, Progress, Receiver, Target};
use muster_core::authorization::PrivilegeName as Name;
use muster_core::authorization::{AlertsRead, AlertsWrite};
use muster_core::event::EventKind;
use muster_core::id::PolicyId;
use muster_fleet::Fleet;
use muster_fleet::alerts::{ReceiverDraft, TargetDraft};
use muster_protocol::management::alert::{
    AlertDigest, AlertReceiver, AlertTest, Delivery, Email, MuteAlertReceiver, SaveAlertReceiver, Syslog, Webhook,
};
use muster_protocol::management::{Empty, Item, Items};
use zeroize::Zeroizing;

use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::object_fields::given;

/// Longest time for which a receiver is muted.
const LONGEST_MUTING: Duration = Duration::from_secs(30 * 24 * 3600);

/// Endpoints for receivers of alerts.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/alerts", list).about("List receivers of alerts").needs(&[Name::AlertsRead]),
        Endpoint::post("/alerts", create).about("Create a receiver of alerts").needs(&[Name::AlertsWrite]),
        Endpoint::get("/alerts/{id}", get).about("Get a receiver of alerts").needs(&[Name::AlertsRead]),
        Endpoint::put("/alerts/{id}", update).about("Update a receiver of alerts").needs(&[Name::AlertsWrite]),
        Endpoint::delete("/alerts/{id}", delete).about("Delete a receiver of alerts").needs(&[Name::AlertsWrite]),
        Endpoint::post("/alerts/{id}/test", test)
            .about("Send a test message to a receiver of alerts")
            .needs(&[Name::AlertsWrite]),
        Endpoint::post("/alerts/{id}/mute", mute)
            .about("Mute or unmute a receiver of alerts")
            .needs(&[Name::AlertsWrite]),
    ]
}

fn receiver(record: Receiver, progress: Progress) -> AlertReceiver {
    let mut shown = with_target(record.target);
    let Filter { events, policies, tags, except_tags } = record.filter;
    shown.id = record.id.to_string();
    shown.name = record.name;
    shown.enabled = record.is_enabled;
    shown.events = events.iter().map(ToString::to_string).collect();
    shown.policy_ids = policies.iter().map(ToString::to_string).collect();
    (shown.tags, shown.except_tags) = (tags, except_tags);
    shown.digest =
        AlertDigest { threshold: Some(record.digest.threshold), window_seconds: Some(record.digest.window.as_secs()) };
    shown.muted_until = record.muted_until.map(time);
    shown.created_at = time(record.created_at);
    shown.created_by = record.created_by;
    shown.updated_at = time(record.updated_at);
    shown.delivery = delivery(progress);
    shown
}

/// Shows a target without its secret.
fn with_target(target: Target) -> AlertReceiver {
    match target {
        Target::Webhook { url, ca, .. } => {
            AlertReceiver { webhook: Some(Webhook { url, ca, secret: None }), ..AlertReceiver::default() }
        }
        Target::Email { host, port, security, username, from, to, ca, .. } => {
            let security = match security {
                MailSecurity::Tls => "tls",
                MailSecurity::Starttls => "starttls",
                MailSecurity::None => "none",
            };
            let security = Some(security.to_owned());
            let email = Email { host, port: Some(port), security, username, password: None, from, to, ca };
            AlertReceiver { email: Some(email), ..AlertReceiver::default() }
        }
        Target::Syslog { host, port, tls, ca } => {
            let syslog = Syslog { host, port: Some(port), tls: Some(tls), ca };
            AlertReceiver { syslog: Some(syslog), ..AlertReceiver::default() }
        }
    }
}

fn delivery(progress: Progress) -> Delivery {
    let mut shown = Delivery {
        delivered: progress.delivered,
        dropped: progress.dropped,
        suppressed: progress.suppressed,
        last_delivered_at: progress.last_delivered_at.map(time),
        ..Delivery::default()
    };
    if let Some(failure) = progress.failure {
        shown.failing_since = Some(time(failure.since));
        shown.reason = Some(failure.reason);
        shown.retry_at = Some(time(failure.retry_at));
    }
    shown
}

/// Converts a request. `known` is the receiver that it changes.
fn draft(body: SaveAlertReceiver, known: Option<&Receiver>) -> Result<ReceiverDraft, Error> {
    let target = match (body.webhook, body.email, body.syslog) {
        (None, None, None) => None,
        (Some(webhook), None, None) => Some(from_webhook(webhook)),
        (None, Some(email), None) => Some(from_email(email)?),
        (None, None, Some(syslog)) => Some(from_syslog(syslog)),
        _ => return Err(Error::invalid("webhook", "exactly one of webhook, email and syslog can be set")),
    };
    let mut filter = known.map(|known| known.filter.clone()).unwrap_or_default();
    if let Some(names) = body.events {
        filter.events = names.iter().map(|name| kind(name)).collect::<Result<_, _>>()?;
    }
    if let Some(ids) = body.policy_ids {
        let policy = |id: &String| PolicyId::parse(id).map_err(|bad| Error::invalid("policy_ids", bad.to_string()));
        filter.policies = ids.iter().map(policy).collect::<Result<_, _>>()?;
    }
    filter.tags = body.tags.unwrap_or(filter.tags);
    filter.except_tags = body.except_tags.unwrap_or(filter.except_tags);
    let mut digest = known.map(|known| known.digest).unwrap_or_default();
    if let Some(given) = body.digest {
        digest = Digest {
            threshold: given.threshold.unwrap_or(digest.threshold),
            window: given.window_seconds.map_or(digest.window, Duration::from_secs),
        };
    }
    let (filter, digest) = (Some(filter), Some(digest));
    Ok(ReceiverDraft { name: body.name, target, filter, digest, is_enabled: body.enabled })
}

fn kind(name: &str) -> Result<EventKind, Error> {
    EventKind::parse(name).filter(|kind| *kind != EventKind::Test).ok_or_else(|| {
        let names: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).filter(|name| *name != "test").collect();
        Error::invalid("events", format!("there is no event {name:?}")).remedy(format!("known: {}", names.join(", ")))
    })
}

fn from_webhook(webhook: Webhook) -> TargetDraft {
    let secret = given(webhook.secret).map(Zeroizing::new);
    TargetDraft::Webhook { url: webhook.url, secret, ca: given(webhook.ca) }
}

fn from_email(email: Email) -> Result<TargetDraft, Error> {
    let security = match email.security.as_deref() {
        None | Some("tls") => MailSecurity::Tls,
        Some("starttls") => MailSecurity::Starttls,
        Some("none") => MailSecurity::None,
        Some(_) => return Err(Error::invalid("email.security", "must be tls, starttls or none")),
    };
    Ok(TargetDraft::Email {
        host: email.host,
        port: email.port,
        security,
        username: given(email.username),
        password: given(email.password).map(Zeroizing::new),
        from: email.from,
        to: email.to,
        ca: given(email.ca),
    })
}

fn from_syslog(syslog: Syslog) -> TargetDraft {
    let tls = syslog.tls.unwrap_or(true);
    TargetDraft::Syslog { host: syslog.host, port: syslog.port, tls, ca: given(syslog.ca) }
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<AlertReceiver>> {
    let all = fleet.alerts().list(&context.grant()?).await?;
    Ok(every(all.into_iter().map(|(record, progress)| receiver(record, progress)).collect()))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<SaveAlertReceiver>,
) -> Answer<Item<AlertReceiver>> {
    let made = fleet.alerts().create(&context.grant()?, draft(body, None)?).await?;
    let mut shown = receiver(made.receiver, Progress::default());
    if let (Some(webhook), Some(secret)) = (&mut shown.webhook, made.secret) {
        webhook.secret = Some(secret.to_string());
    }
    Ok(item(shown))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<AlertReceiver>> {
    let found = fleet.alerts().find::<AlertsRead>(&context, &id).await?;
    let progress = fleet.alerts().progress(&found).await?;
    Ok(item(receiver(found.into_inner(), progress)))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<SaveAlertReceiver>,
) -> Answer<Item<AlertReceiver>> {
    let found = fleet.alerts().find::<AlertsWrite>(&context, &id).await?;
    let progress = fleet.alerts().progress(&found).await?;
    let changed = fleet.alerts().update(&found, draft(body, Some(&*found))?).await?;
    Ok(item(receiver(changed, progress)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    let found = fleet.alerts().find::<AlertsWrite>(&context, &id).await?;
    fleet.alerts().delete(&found).await?;
    Ok(Json(Empty {}))
}

/// Sends a test message and waits for the outcome.
async fn test(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(Empty {}): Body<Empty>,
) -> Answer<AlertTest> {
    let found = fleet.alerts().find::<AlertsWrite>(&context, &id).await?;
    let outcome = fleet.alerts().test(&found).await?;
    let error = outcome.err().map(|error| chain(&error).to_string());
    Ok(Json(AlertTest { accepted: error.is_none(), error }))
}

async fn mute(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<MuteAlertReceiver>,
) -> Answer<Item<AlertReceiver>> {
    let found = fleet.alerts().find::<AlertsWrite>(&context, &id).await?;
    let duration = body.duration_seconds.map(Duration::from_secs);
    if duration.is_some_and(|duration| duration > LONGEST_MUTING || duration.is_zero()) {
        let reason = format!("1 to {} seconds", LONGEST_MUTING.as_secs());
        return Err(Error::invalid("duration_seconds", reason).into());
    }
    let progress = fleet.alerts().progress(&found).await?;
    let muted = fleet.alerts().mute(&found, duration.map(|duration| fleet.now().plus(duration))).await?;
    Ok(item(receiver(muted, progress)))
}
