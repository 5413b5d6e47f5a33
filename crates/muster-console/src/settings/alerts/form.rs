//! The form of a receiver of alerts.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::alert::{Filter, MailSecurity, Progress, Receiver, Target};
use muster_core::authorization::{AlertsRead, AlertsWrite, PrivilegeName};
use muster_core::event::EventKind;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::alerts::{ReceiverDraft, TargetDraft};
use muster_fleet::authority::Authorized;
use muster_management::error::status_of;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::{given, lines, shown};
use super::{API, Row, TAB};
use crate::elsewhere::{cli, curl, or_placeholder};
use crate::frame::{Frame, page};
use crate::request::{Id, Posted};
use crate::text::event_words;
use crate::versioned::{Edit, Field, compared};
use crate::visitor::{May, Visitor};
use crate::{failure, notice};

/// What was typed. Secrets are never shown again.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    kind: String,
    url: String,
    host: String,
    port: String,
    security: String,
    username: String,
    password: String,
    from: String,
    to: String,
    tls: Option<String>,
    ca: String,
    events: Vec<String>,
    tags: String,
    except_tags: String,
    is_enabled: Option<String>,
    /// The version that the form was made from; empty for a new receiver.
    version: String,
}

#[derive(Template)]
#[template(path = "settings/alert.html")]
struct ReceiverPage {
    frame: Frame,
    receiver: Option<Row>,
    fields: Fields,
    /// Kinds of events: code, words, and whether each is chosen.
    events: Vec<(&'static str, String, bool)>,
    error: Option<Error>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// Shows the form of a new receiver.
pub async fn ask(State(fleet): State<Arc<Fleet>>, May { visitor, .. }: May<AlertsWrite>) -> Response {
    let on = || Some("1".to_owned());
    let fields = Fields { kind: "webhook".into(), is_enabled: on(), tls: on(), ..Fields::default() };
    render(&fleet, &visitor, None, fields, None)
}

/// Shows a receiver with its form.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let found = async {
        let receiver = fleet.alerts().find::<AlertsRead>(&visitor.context, &id).await?;
        let progress = fleet.alerts().progress(&receiver).await?;
        Ok::<_, Error>((receiver.into_inner(), progress))
    };
    match found.await {
        Ok((receiver, progress)) => {
            let fields = fields_of(&receiver);
            render(&fleet, &visitor, Some((&receiver, progress)), fields, None)
        }
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

fn fields_of(receiver: &Receiver) -> Fields {
    let mut fields = Fields {
        name: receiver.name.clone(),
        kind: receiver.target.kind().to_owned(),
        events: receiver.filter.events.iter().map(ToString::to_string).collect(),
        tags: receiver.filter.tags.join(", "),
        except_tags: receiver.filter.except_tags.join(", "),
        is_enabled: receiver.is_enabled.then(|| "1".to_owned()),
        version: receiver.version.to_string(),
        ..Fields::default()
    };
    let (Target::Webhook { ca, .. } | Target::Email { ca, .. } | Target::Syslog { ca, .. }) = &receiver.target;
    fields.ca = ca.clone().unwrap_or_default();
    match &receiver.target {
        Target::Webhook { url, .. } => fields.url = url.clone(),
        Target::Email { host, port, security, username, from, to, .. } => {
            (fields.host, fields.port) = (host.clone(), port.to_string());
            fields.security = match security {
                MailSecurity::Tls => "tls",
                MailSecurity::Starttls => "starttls",
                MailSecurity::None => "none",
            }
            .to_owned();
            (fields.from, fields.to) = (from.clone(), to.join("\n"));
            fields.username = username.clone().unwrap_or_default();
        }
        Target::Syslog { host, port, tls, .. } => {
            (fields.host, fields.port) = (host.clone(), port.to_string());
            fields.tls = tls.then(|| "1".to_owned());
        }
    }
    fields
}

impl Fields {
    /// The fields, as the form calls them, without secrets.
    fn labelled(&self) -> Vec<(&'static str, String)> {
        let flag = |is_set: bool| if is_set { "yes" } else { "no" }.to_owned();
        let list = |text: &str| lines(&text.replace(',', "\n")).join(", ");
        let mut events = self.events.clone();
        events.sort();
        let mut all = vec![
            ("name", self.name.clone()),
            ("send to", self.kind.clone()),
            ("CA certificates", self.ca.clone()),
            ("events", events.join(", ")),
            ("only agents with these tags", list(&self.tags)),
            ("no agents with these tags", list(&self.except_tags)),
            ("enabled", flag(self.is_enabled.is_some())),
        ];
        // What belongs to another kind is on the form, but not a part of the receiver.
        match self.kind.as_str() {
            "webhook" => all.push(("URL", self.url.clone())),
            kind => {
                all.extend([("host", self.host.clone()), ("port", self.port.clone())]);
                if kind == "syslog" {
                    all.push(("syslog over TLS", flag(self.tls.is_some())));
                } else {
                    all.extend([("from", self.from.clone()), ("to", self.to.clone())]);
                    all.extend([("encryption", self.security.clone()), ("user name", self.username.clone())]);
                }
            }
        }
        all
    }
}

fn render(
    fleet: &Fleet,
    visitor: &Visitor,
    known: Option<(&Receiver, Progress)>,
    fields: Fields,
    error: Option<Error>,
) -> Response {
    let fields = Fields { password: String::new(), ..fields };
    let event = |kind: &EventKind| {
        (kind.as_str(), event_words(*kind), fields.events.iter().any(|chosen| chosen == kind.as_str()))
    };
    let (title, command, method, path) = match &known {
        None => ("Create a receiver".to_owned(), "alert list".to_owned(), "POST", API.to_owned()),
        Some((one, _)) => (
            format!("Receiver {}", one.name),
            format!("alert show {}", shell::argument(&one.name)),
            "PUT",
            format!("{API}/{}", one.id),
        ),
    };
    let body = serde_json::json!({"name": or_placeholder(&fields.name, "NAME"), "events": fields.events});
    let page_of = ReceiverPage {
        frame: Frame::new(visitor, title, TAB),
        receiver: known.map(|(receiver, progress)| Row::new(receiver, progress, fleet.now())),
        events: EventKind::ALL.iter().filter(|kind| **kind != EventKind::Test).map(event).collect(),
        lacks: visitor.lacks(PrivilegeName::AlertsWrite),
        cli: cli(visitor, &command),
        api: curl(visitor, method, &path, &body.to_string()),
        fields,
        error,
    };
    page(page_of.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &page_of)
}

/// Converts the form. `known` is the receiver that it changes.
fn draft(fields: &Fields, known: Option<&Receiver>) -> Result<ReceiverDraft, Error> {
    let list = |text: &str| lines(&text.replace(',', "\n"));
    let kind = |name: &String| {
        EventKind::parse(name).ok_or_else(|| Error::invalid("events", format!("there is no event {name:?}")))
    };
    let filter = Filter {
        events: fields.events.iter().map(kind).collect::<Result<_, _>>()?,
        policies: known.map(|known| known.filter.policies.clone()).unwrap_or_default(),
        tags: list(&fields.tags),
        except_tags: list(&fields.except_tags),
    };
    Ok(ReceiverDraft {
        name: Some(fields.name.clone()),
        target: Some(target(fields)?),
        filter: Some(filter),
        digest: None,
        is_enabled: Some(fields.is_enabled.is_some()),
    })
}

fn target(fields: &Fields) -> Result<TargetDraft, Error> {
    let port = given(&fields.port).map(|text| text.parse()).transpose();
    let port = port.map_err(|_| Error::invalid("port", "must be a number from 1 to 65535"))?;
    let host = fields.host.trim().to_owned();
    let secret = given(&fields.password).map(Zeroizing::new);
    let ca = given(&fields.ca);
    Ok(match fields.kind.as_str() {
        "email" => TargetDraft::Email {
            host,
            port,
            security: match fields.security.as_str() {
                "starttls" => MailSecurity::Starttls,
                "none" => MailSecurity::None,
                _ => MailSecurity::Tls,
            },
            username: given(&fields.username),
            password: secret,
            from: fields.from.trim().to_owned(),
            to: lines(&fields.to),
            ca,
        },
        "syslog" => TargetDraft::Syslog { host, port, tls: fields.tls.is_some(), ca },
        _ => TargetDraft::Webhook { url: fields.url.trim().to_owned(), secret, ca },
    })
}

#[derive(Template)]
#[template(path = "settings/alert_created.html")]
struct CreatedPage {
    frame: Frame,
    id: String,
    secret: String,
}

/// Creates a receiver. The generated key of a webhook's signatures is shown only now.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    let made = async { fleet.alerts().create(&visitor.context.grant()?, draft(&fields, None)?).await };
    match made.await {
        Ok(made) => match made.secret {
            Some(secret) => {
                let frame = Frame::new(&visitor, format!("Receiver {}", made.receiver.name), TAB);
                let created = CreatedPage { frame, id: made.receiver.id.to_string(), secret: secret.to_string() };
                shown(&visitor, TAB, Ok(created))
            }
            None => saved(&visitor, &made.receiver, "is created"),
        },
        Err(error) => render(&fleet, &visitor, None, fields, Some(error)),
    }
}

fn saved(visitor: &Visitor, receiver: &Receiver, done: &str) -> Response {
    let text = format!("The receiver {} {done}.", receiver.name);
    notice::redirect(visitor.base.link(format_args!("{TAB}/{}", receiver.id)), &text)
}

impl Edit for Fields {
    type Record = (Authorized<Receiver, AlertsWrite>, Progress);

    const CHANGED: &'static str = "receiver_changed";

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Self::Record, Error> {
        let receiver = fleet.alerts().find::<AlertsWrite>(&visitor.context, id).await?;
        let progress = fleet.alerts().progress(&receiver).await?;
        Ok((receiver, progress))
    }

    fn version_of((receiver, _): &Self::Record) -> String {
        receiver.version.to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what((receiver, _): &Self::Record) -> String {
        format!("receiver for {}", super::target(&receiver.target))
    }

    fn subject(_: &Visitor, (receiver, _): &Self::Record) -> String {
        format!("alert_receiver:{}", receiver.id)
    }

    fn fields(&self, (receiver, _): &Self::Record) -> Vec<Field> {
        compared(&self.labelled(), fields_of(receiver).labelled())
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, (known, _): &Self::Record) -> Result<Response, Error> {
        let after = fleet.alerts().update(known, draft(self, Some(known))?).await?;
        Ok(saved(visitor, &after, "is saved"))
    }

    async fn again(self, fleet: &Fleet, visitor: &Visitor, (known, progress): &Self::Record, error: Error) -> Response {
        render(fleet, visitor, Some((known, progress.clone())), self, Some(error))
    }
}
