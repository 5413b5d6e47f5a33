//! `/alerts`: receivers of alerts with what they are sent, and recent events.

mod events;
mod form;

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use muster_core::Error;
use muster_core::alert::{Progress, Receiver, Target};
use muster_core::authorization::{AlertsRead, AlertsWrite, PrivilegeName};
use muster_core::error_chain::chain;
use muster_core::shell;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;

use self::events::{Asked, Happened};
pub use self::form::{Fields, ask, create, show};
use super::shown;
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::Frame;
use crate::request::{Id, Pressed};
use crate::text::{Moment, event_words};
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Path of the page.
pub const TAB: &str = "/alerts";
const API: &str = "/api/fleet/alerts";
/// Time for which the button mutes a receiver.
const MUTED_FOR: Duration = Duration::from_secs(3600);

#[derive(Template)]
#[template(path = "settings/alerts.html")]
struct AlertsPage<'a> {
    frame: Frame,
    receivers: Vec<Row>,
    asked: &'a Asked,
    events: Vec<Happened>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// What pages show of a receiver.
struct Row {
    id: String,
    name: String,
    kind: &'static str,
    target: String,
    sends: String,
    state: (&'static str, &'static str, &'static str),
    /// Why it cannot be reached; empty if it can.
    failure: String,
    delivered: u64,
    dropped: u64,
    last: Option<Moment>,
    muted_until: Option<Moment>,
}

impl Row {
    fn new(receiver: &Receiver, progress: Progress, now: Timestamp) -> Self {
        let is_muted = receiver.muted_until.is_some_and(|until| until > now);
        let events: Vec<String> = receiver.filter.events.iter().map(|kind| event_words(*kind)).collect();
        Self {
            id: receiver.id.to_string(),
            name: receiver.name.clone(),
            kind: receiver.target.kind(),
            target: target(&receiver.target),
            sends: if events.is_empty() { "all events".to_owned() } else { events.join(", ") },
            state: match (receiver.is_enabled, is_muted, &progress.failure) {
                (false, ..) => ("quiet", "–", "disabled"),
                (true, true, _) => ("quiet", "–", "muted"),
                (true, false, Some(_)) => ("bad", "✕", "failing"),
                (true, false, None) => ("good", "●", "active"),
            },
            failure: progress.failure.map(|failure| failure.reason).unwrap_or_default(),
            delivered: progress.delivered,
            dropped: progress.dropped,
            last: Moment::of(progress.last_delivered_at, now),
            muted_until: Moment::of(receiver.muted_until.filter(|_| is_muted), now),
        }
    }
}

/// Returns where a receiver is. Paths and queries of webhooks are left out: many contain a token.
fn target(target: &Target) -> String {
    match target {
        Target::Webhook { url, .. } => {
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}")
        }
        Target::Email { to, .. } => to.join(", "),
        Target::Syslog { host, port, .. } => format!("{host}:{port}"),
    }
}

/// Shows the page.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    let made = async {
        let grant = visitor.context.grant::<AlertsRead>()?;
        let now = fleet.now();
        let receivers = fleet.alerts().list(&grant).await?;
        let events = events::read(&fleet, &visitor, &grant, &asked).await?;
        Ok(AlertsPage {
            frame: Frame::new(&visitor, "Alerts", TAB),
            receivers: receivers.into_iter().map(|(one, progress)| Row::new(&one, progress, now)).collect(),
            events,
            asked: &asked,
            lacks: visitor.lacks(PrivilegeName::AlertsWrite),
            cli: cli(&visitor, "alert list"),
            api: curl(&visitor, "GET", API, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Sends a test message, and says whether it arrived.
pub async fn test(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let receiver = fleet.alerts().find::<AlertsWrite>(&visitor.context, &id).await?;
        let text = match fleet.alerts().test(&receiver).await? {
            Ok(()) => format!("{} has accepted the test message.", receiver.name),
            Err(error) => format!("{} cannot be reached: {}", receiver.name, chain(&error)),
        };
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{TAB}/{id}")), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Mutes a receiver for an hour, or ends that.
pub async fn mute(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let receiver = fleet.alerts().find::<AlertsWrite>(&visitor.context, &id).await?;
        let now = fleet.now();
        let is_muted = receiver.muted_until.is_some_and(|until| until > now);
        let until = (!is_muted).then(|| now.plus(MUTED_FOR));
        fleet.alerts().mute(&receiver, until).await?;
        let text = if is_muted { "is sent alerts again" } else { "is muted for an hour" };
        let text = format!("{} {text}.", receiver.name);
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{TAB}/{id}")), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Asks before a receiver is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let receiver = fleet.alerts().find::<AlertsWrite>(&visitor.context, &id).await?;
        Ok(Confirm {
            text: vec![
                "It gets no alerts any more, not even those that wait for it. This cannot be undone.".to_owned(),
            ],
            button: "Delete the receiver",
            cli: cli(&visitor, &format!("alert delete {}", shell::argument(&receiver.name))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::of(
                &visitor,
                format!("Delete the receiver {}?", receiver.name),
                TAB,
                &format!("{TAB}/{id}"),
                "delete",
            )
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a receiver.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let receiver = fleet.alerts().find::<AlertsWrite>(&visitor.context, &id).await?;
        fleet.alerts().delete(&receiver).await?;
        let text = format!("The receiver {} is deleted.", receiver.name);
        Ok::<_, Error>(notice::redirect(visitor.base.link(TAB), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
