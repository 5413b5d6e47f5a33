//! `/keys/one-time`: enroll secrets that admit the orbit and the osqueryd of one host, once: list, create. Their pages are those of keys.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{EnrollmentCreate, EnrollmentRead, PrivilegeName};
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily, Unusable};
use muster_core::one_time::{OneTime, SECOND_USE};
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::keys::{NewEnrollmentKey, OneTimeHost};
use muster_management::error::status_of;
use muster_store::query::Page;
use serde::Deserialize;

use super::keys::{API, TAB, key_page};
use super::{given, lines, shown};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::pager::Pager;
use crate::request::Posted;
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Path of the list.
const PATH: &str = "/keys/one-time";
/// Number of secrets on a page.
const ROWS: u32 = 50;

/// What pages show of a one-time secret besides the facts of every key.
pub struct OneTimeFacts {
    /// For which host it is.
    pub host: String,
    /// When its orbit enrolled with it.
    pub orbit: Option<Moment>,
    /// When its osqueryd did.
    pub osquery: Option<Moment>,
}

impl OneTimeFacts {
    /// Returns those of a secret.
    pub fn new(one: &OneTime, now: Timestamp) -> Self {
        let uuid = one.uuid.as_ref().map(|uuid| format!("hardware UUID {uuid}"));
        let serial = one.serial.as_ref().map(|serial| format!("serial number {serial}"));
        let known: Vec<String> = uuid.into_iter().chain(serial).collect();
        Self {
            host: if known.is_empty() { "the first host that uses it".to_owned() } else { known.join(", ") },
            orbit: Moment::of(one.orbit_used_at, now),
            osquery: Moment::of(one.osquery_used_at, now),
        }
    }
}

/// Returns the state of a one-time secret that was not revoked and has not expired: the class of its color, its sign and its text.
pub fn state_of(one: &OneTime, now: Timestamp) -> (&'static str, &'static str, &'static str) {
    match (one.orbit_used_at, one.osquery_used_at) {
        (None, None) => ("good", "●", "unused"),
        (Some(_), Some(_)) => ("quiet", "–", "used"),
        (Some(at), None) if now.since(at) < SECOND_USE => ("busy", "◐", "used by orbit"),
        (None, Some(at)) if now.since(at) < SECOND_USE => ("busy", "◐", "used by osqueryd"),
        // The second program has an hour.
        (Some(_), None) => ("warn", "▲", "used by orbit only"),
        (None, Some(_)) => ("warn", "▲", "used by osqueryd only"),
    }
}

#[derive(Template)]
#[template(path = "settings/one_time.html")]
struct OneTimePage {
    frame: Frame,
    rows: Vec<Row>,
    pager: Pager,
    lacks: &'static str,
    cli: String,
    api: String,
}

struct Row {
    id: String,
    name: String,
    host: String,
    state: (&'static str, &'static str, &'static str),
    expires: Option<Moment>,
    created: Moment,
}

impl Row {
    fn new(key: &EnrollmentKey, now: Timestamp) -> Self {
        let one = key.one_time.clone().unwrap_or_default();
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            host: OneTimeFacts::new(&one, now).host,
            state: match key.admits(now) {
                Ok(()) | Err(Unusable::UsedUp) => state_of(&one, now),
                Err(Unusable::Expired) => ("warn", "▲", "expired"),
                Err(Unusable::Revoked) => ("quiet", "–", "revoked"),
            },
            expires: Moment::of(key.expires_at, now),
            created: Moment::new(key.created_at, now),
        }
    }
}

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    page: u32,
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    let made = async {
        let grant = visitor.context.grant::<EnrollmentRead>()?;
        let offset = asked.page.saturating_mul(ROWS);
        let found = fleet.enrollment_keys().list_one_time(&grant, Page { offset, limit: ROWS }).await?;
        let now = fleet.now();
        let link = |page: u32| format!("{}{PATH}?page={page}", visitor.base);
        Ok(OneTimePage {
            frame: Frame::new(&visitor, "One-time secrets", TAB),
            rows: found.items.iter().map(|key| Row::new(key, now)).collect(),
            pager: Pager::numbered(asked.page, ROWS, found.total, link),
            lacks: visitor.lacks(PrivilegeName::EnrollmentCreate),
            cli: cli(&visitor, "enrollment-key list"),
            api: curl(&visitor, "GET", API, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// The form of a new secret.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    hardware_uuid: String,
    serial: String,
    expiration: String,
    tags: String,
}

impl Fields {
    fn new_key(&self) -> NewEnrollmentKey {
        NewEnrollmentKey {
            family: KeyFamily::Fleetd,
            name: given(&self.name),
            expiration: given(&self.expiration),
            tags: self.tags(),
            one_time: Some(OneTimeHost { uuid: given(&self.hardware_uuid), serial: given(&self.serial) }),
            // Shown once, because it is installed once, on one host.
            retrievable: false,
            ..NewEnrollmentKey::default()
        }
    }

    fn tags(&self) -> Vec<String> {
        lines(&self.tags.replace(',', "\n"))
    }
}

#[derive(Template)]
#[template(path = "settings/one_time_new.html")]
struct NewPage {
    frame: Frame,
    fields: Fields,
    error: Option<Error>,
    cli: String,
    api: String,
}

/// Shows the form of a new secret.
pub async fn ask(visitor: Visitor) -> Response {
    form_page(&visitor, Fields { expiration: "24h".to_owned(), ..Fields::default() }, None)
}

fn form_page(visitor: &Visitor, fields: Fields, error: Option<Error>) -> Response {
    if let Err(refused) = visitor.context.grant::<EnrollmentCreate>() {
        return failure::inside(visitor, &refused.into(), TAB);
    }
    let mut command = "enrollment-key create --one-time".to_owned();
    let mut body = serde_json::json!({"family": "fleetd", "one_time": true, "tags": fields.tags()});
    let typed = [
        ("--name", "name", &fields.name),
        ("--hardware-uuid", "hardware_uuid", &fields.hardware_uuid),
        ("--serial", "serial", &fields.serial),
        ("--expires", "expiration", &fields.expiration),
    ];
    for (flag, member, value) in typed.into_iter().filter_map(|(flag, member, text)| Some((flag, member, given(text)?)))
    {
        command += &format!(" {}", shell::option(flag, &value));
        body[member] = value.into();
    }
    for tag in fields.tags() {
        command += &format!(" {}", shell::option("--tag", &tag));
    }
    let shown = NewPage {
        frame: Frame::new(visitor, "Create a one-time secret", TAB),
        cli: cli(visitor, &command),
        api: curl(visitor, "POST", API, &body.to_string()),
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Creates a secret, and shows it once.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    let made = async { fleet.enrollment_keys().create(&visitor.context.grant()?, &fields.new_key()).await };
    match made.await {
        Ok((key, secret)) => shown(&visitor, TAB, key_page(&fleet, &visitor, key, secret).await),
        Err(error) => form_page(&visitor, fields, Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use muster_core::testing::at;

    use super::*;

    #[test]
    fn fl82_the_state_of_a_secret_says_who_has_used_it_and_whether_the_other_still_can() {
        let unused = OneTime::default();
        assert_eq!(state_of(&unused, at(0)).2, "unused");
        let by_orbit = OneTime { orbit_used_at: Some(at(0)), ..unused };
        assert_eq!(state_of(&by_orbit, at(3_599)).2, "used by orbit");
        assert_eq!(state_of(&by_orbit, at(3_600)).2, "used by orbit only");
        let used = OneTime { osquery_used_at: Some(at(10)), ..by_orbit.clone() };
        assert_eq!(state_of(&used, at(3_600)).2, "used");
        let by_osquery = OneTime { orbit_used_at: None, ..used };
        assert_eq!(state_of(&by_osquery, at(9_999)).2, "used by osqueryd only");
        let host = |uuid: Option<&str>| {
            let one = OneTime { uuid: uuid.map(Into::into), serial: uuid.map(|_| "s".into()), ..OneTime::default() };
            OneTimeFacts::new(&one, at(0)).host
        };
        assert_eq!(host(Some("u")), "hardware UUID u, serial number s");
        assert_eq!(host(None), "the first host that uses it");
    }
}
