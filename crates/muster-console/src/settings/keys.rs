//! `/keys`: enrollment keys: list, create, reveal, replace, revoke.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{
    AgentsRead, EnrollmentCreate, EnrollmentRead, EnrollmentReveal, EnrollmentRevoke, Grant, PrivilegeName,
};
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily, Unusable};
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::shell;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::agent_views::{AgentListQuery, Rows};
use muster_fleet::keys::NewEnrollmentKey;
use muster_management::error::status_of;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Page};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::one_time::{OneTimeFacts, state_of};
use super::{PolicyName, given, lines, policy_names, shown};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl, or_placeholder};
use crate::frame::{Frame, page};
use crate::pager::Pager;
use crate::people::People;
use crate::request::{Id, Posted, Pressed};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};
use crate::{failure, notice, terraform};

/// Path of the page.
pub const TAB: &str = "/keys";
/// Path of the keys in the API.
pub const API: &str = "/api/fleet/enrollment_api_keys";
/// Number of keys on a page.
const ROWS: u32 = 50;

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    policy: String,
    page: u32,
}

#[derive(Template)]
#[template(path = "settings/keys.html")]
struct KeysPage {
    frame: Frame,
    policies: Vec<PolicyName>,
    policy: String,
    rows: Vec<Row>,
    pager: Pager,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// What pages show of a key.
struct Row {
    id: String,
    name: String,
    family: &'static str,
    policy: String,
    policy_name: String,
    state: (&'static str, &'static str, String),
    uses: String,
    tags: Vec<String>,
    created: Moment,
    expires: Option<Moment>,
    last_used: Option<Moment>,
    is_usable: bool,
    is_retrievable: bool,
    /// Of a one-time secret.
    one_time: Option<OneTimeFacts>,
}

impl Row {
    fn new(key: EnrollmentKey, policies: &[PolicyName], now: Timestamp) -> Self {
        let usable = key.admits(now);
        let policy = key.policy_id.as_ref().map(ToString::to_string).unwrap_or_default();
        let known = policies.iter().find(|row| row.id == policy);
        Self {
            policy_name: known.map_or_else(|| policy.clone(), |row| row.name.clone()),
            policy,
            family: key.family.as_str(),
            state: match usable {
                Ok(()) if let Some(one) = &key.one_time => {
                    let (class, sign, text) = state_of(one, now);
                    (class, sign, text.to_owned())
                }
                Ok(()) => ("good", "●", "active".to_owned()),
                Err(reason @ Unusable::Revoked) => ("quiet", "–", reason.to_string()),
                Err(reason) => ("warn", "▲", reason.to_string()),
            },
            uses: key.max_uses.map_or_else(|| key.uses.to_string(), |max| format!("{} of {max}", key.uses)),
            tags: key.tags,
            created: Moment::new(key.created_at, now),
            expires: Moment::of(key.expires_at, now),
            last_used: Moment::of(key.last_used_at, now),
            is_usable: usable.is_ok(),
            is_retrievable: key.sealed_token.is_some(),
            one_time: key.one_time.as_ref().map(|one| OneTimeFacts::new(one, now)),
            name: key.name,
            id: key.id.to_string(),
        }
    }
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    shown(&visitor, TAB, read(&fleet, &visitor, asked).await)
}

async fn read(fleet: &Fleet, visitor: &Visitor, asked: Asked) -> Result<KeysPage, Error> {
    let grant = visitor.context.grant::<EnrollmentRead>()?;
    let policies = policy_names(fleet, visitor).await?;
    let policy = PolicyId::parse(&asked.policy).ok();
    let offset = asked.page.saturating_mul(ROWS);
    let found = fleet.enrollment_keys().list(&grant, policy.as_ref(), Page { offset, limit: ROWS }).await?;
    let now = fleet.now();
    let link = |page: u32| format!("{}{TAB}?policy={}&page={page}", visitor.base, asked.policy);
    let (command, path) = match &policy {
        None => ("enrollment-key list".to_owned(), API.to_owned()),
        Some(id) => {
            let filter = format!("policy_id:\"{id}\"");
            let path = format!("{API}?kuery={}", utf8_percent_encode(&filter, NON_ALPHANUMERIC));
            (format!("enrollment-key list {}", shell::option("--filter", &filter)), path)
        }
    };
    Ok(KeysPage {
        frame: Frame::new(visitor, "Keys", TAB),
        rows: found.items.into_iter().map(|key| Row::new(key, &policies, now)).collect(),
        policies,
        cli: cli(visitor, &command),
        api: curl(visitor, "GET", &path, ""),
        policy: policy.map(|id| id.to_string()).unwrap_or_default(),
        pager: Pager::numbered(asked.page, ROWS, found.total, link),
        lacks: visitor.lacks(PrivilegeName::EnrollmentCreate),
    })
}

#[derive(Template)]
#[template(path = "settings/key.html")]
pub struct KeyPage {
    frame: Frame,
    key: Row,
    created_by: String,
    /// The token, just after it was created or revealed.
    token: String,
    /// Number of agents that have enrolled with it; `None` for people who may not see agents.
    agents: Option<u64>,
    lacks_reveal: &'static str,
    lacks_replace: &'static str,
    lacks_revoke: &'static str,
    cli: String,
    api: String,
    terraform: String,
}

/// Shows a key.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let key = fleet.enrollment_keys().find::<EnrollmentRead>(&visitor.context, &id).await?.into_inner();
        key_page(&fleet, &visitor, key, String::new()).await
    };
    shown(&visitor, TAB, made.await)
}

/// Returns the page of a key, with its token if it may be shown.
pub async fn key_page(fleet: &Fleet, visitor: &Visitor, key: EnrollmentKey, token: String) -> Result<KeyPage, Error> {
    let agents = match visitor.context.grant::<AgentsRead>() {
        Ok(grant) => Some(came_in(fleet, &grant, &key.id).await?),
        Err(_) => None,
    };
    let lacks = |name| visitor.lacks(name);
    let replace = [PrivilegeName::EnrollmentRevoke, PrivilegeName::EnrollmentCreate];
    let id = key.id.to_string();
    let created_by = People::new(fleet, visitor).name(&key.created_by).await;
    let policy = key.policy_id.as_ref().map(|policy| terraform::enrollment_keys(visitor, policy.as_str()));
    let terraform = policy.unwrap_or_default();
    Ok(KeyPage {
        frame: Frame::new(visitor, format!("Key {}", key.name), TAB),
        created_by,
        key: Row::new(key, &policy_names(fleet, visitor).await?, fleet.now()),
        token,
        agents,
        lacks_reveal: lacks(PrivilegeName::EnrollmentReveal),
        lacks_replace: replace.into_iter().map(lacks).find(|name| !name.is_empty()).unwrap_or_default(),
        lacks_revoke: lacks(PrivilegeName::EnrollmentRevoke),
        terraform,
        cli: cli(visitor, &format!("enrollment-key show {}", shell::argument(&id))),
        api: curl(visitor, "GET", &format!("{API}/{id}"), ""),
    })
}

/// Returns the number of agents that have enrolled with a key.
async fn came_in(fleet: &Fleet, grant: &Grant<AgentsRead>, key: &EnrollmentKeyId) -> Result<u64, Error> {
    let query = AgentListQuery {
        filter: AgentFilter::all([AgentCondition::EnrollmentKeys(vec![key.clone()])]),
        sort: AgentSort::EnrolledAt,
        descending: true,
        rows: Rows::Page(Page { offset: 0, limit: 0 }),
    };
    Ok(fleet.agents().list(grant, &query).await?.total)
}

/// Parameters of the form of a new key.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct AskedNew {
    /// `fleetd` for an enroll secret.
    family: String,
}

/// The form of a new key.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    family: String,
    policy: String,
    tags: String,
    expiration: String,
    max_uses: String,
    is_hidden_later: Option<String>,
}

#[derive(Template)]
#[template(path = "settings/key_new.html")]
struct NewKeyPage {
    frame: Frame,
    fields: Fields,
    policies: Vec<PolicyName>,
    error: Option<Error>,
    cli: String,
    api: String,
}

/// Shows the form of a new key.
pub async fn ask(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<AskedNew>) -> Response {
    let fields = Fields { expiration: "7d".to_owned(), family: asked.family, ..Fields::default() };
    form_page(&fleet, &visitor, fields, None).await
}

async fn form_page(fleet: &Fleet, visitor: &Visitor, fields: Fields, error: Option<Error>) -> Response {
    let made = async {
        visitor.context.grant::<EnrollmentCreate>()?;
        let (name, policy) = (or_placeholder(&fields.name, "NAME"), or_placeholder(&fields.policy, "POLICY"));
        let body = serde_json::json!({"name": name, "policy_id": policy, "expiration": fields.expiration});
        let command = format!("enrollment-key create {} --expires 7d", shell::option("--name", name));
        Ok(NewKeyPage {
            frame: Frame::new(visitor, "Create an enrollment key", TAB),
            policies: policy_names(fleet, visitor).await?,
            cli: cli(visitor, &command),
            api: curl(visitor, "POST", API, &body.to_string()),
            fields,
            error,
        })
    };
    match made.await {
        Ok(form) => page(form.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &form),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

/// Creates a key, and shows its token.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    let made = async {
        let new = new_key(&fields)?;
        fleet.enrollment_keys().create(&visitor.context.grant()?, &new).await
    };
    match made.await {
        Ok((key, token)) => shown(&visitor, TAB, key_page(&fleet, &visitor, key, token).await),
        Err(error) => form_page(&fleet, &visitor, fields, Some(error)).await,
    }
}

fn new_key(fields: &Fields) -> Result<NewEnrollmentKey, Error> {
    let max_uses = given(&fields.max_uses).map(|text| text.parse()).transpose();
    Ok(NewEnrollmentKey {
        family: KeyFamily::parse(&fields.family).unwrap_or_default(),
        policy_id: given(&fields.policy),
        name: given(&fields.name),
        expiration: given(&fields.expiration),
        tags: lines(&fields.tags.replace(',', "\n")),
        max_uses: max_uses.map_err(|_| Error::invalid("max_uses", "must be a number"))?,
        retrievable: fields.is_hidden_later.is_none(),
        ..NewEnrollmentKey::default()
    })
}

/// Shows the token of a key. An audit event, so it is not a link.
pub async fn reveal(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let keys = fleet.enrollment_keys();
        let (key, token) = keys.reveal(keys.find::<EnrollmentReveal>(&visitor.context, &id).await?).await?;
        let token = token.ok_or_else(not_retrievable)?;
        key_page(&fleet, &visitor, key, token).await
    };
    shown(&visitor, TAB, made.await)
}

/// The error about a token that is not stored.
pub fn not_retrievable() -> Error {
    Error::conflict("not_retrievable", "the token of this key was shown only when it was created")
        .remedy("replace the key")
}

/// Asks before a key is replaced.
pub async fn ask_to_replace(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let key = fleet.enrollment_keys().find::<EnrollmentRevoke>(&visitor.context, &id).await?;
        visitor.context.grant::<EnrollmentCreate>()?;
        let title = format!("Replace the key {}?", key.name);
        Ok(Confirm {
            text: vec![
                "The key is revoked, and a new one with the same name, policy, tags and expiration takes its place. \
                 Hosts that still have the old token cannot enroll with it."
                    .to_owned(),
                stay(&key),
            ],
            button: "Replace the key",
            cli: cli(&visitor, &format!("enrollment-key replace {}", shell::argument(&id))),
            api: curl(&visitor, "POST", &format!("{API}/{id}/replace"), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{TAB}/{id}"), "replace")
        })
    };
    shown(&visitor, TAB, made.await)
}

fn stay(key: &EnrollmentKey) -> String {
    match key.uses {
        0 => "No agent has enrolled with it.".to_owned(),
        1 => "1 agent has enrolled with it, and is not affected.".to_owned(),
        uses => format!("It was used {uses} times. Agents that have enrolled with it are not affected."),
    }
}

/// Replaces a key, and shows the token of the new one.
pub async fn replace(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let keys = fleet.enrollment_keys();
        let old = keys.find::<EnrollmentRevoke>(&visitor.context, &id).await?;
        let (key, token) = keys.replace(&old, &visitor.context.grant()?).await?;
        key_page(&fleet, &visitor, key, token).await
    };
    shown(&visitor, TAB, made.await)
}

/// Returns whether the revocation of a key can be undone, and how.
fn undoing(key: &EnrollmentKey) -> &'static str {
    if key.family == KeyFamily::Fleetd && key.one_time.is_none() {
        "To use the same secret again, create a key of fleetd with it."
    } else {
        "This cannot be undone."
    }
}

/// Asks before a key is revoked.
pub async fn ask_to_revoke(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let key = fleet.enrollment_keys().find::<EnrollmentRevoke>(&visitor.context, &id).await?;
        Ok(Confirm {
            text: vec![format!("No agent can enroll with it any more. {}", undoing(&key)), stay(&key)],
            button: "Revoke the key",
            cli: cli(&visitor, &format!("enrollment-key revoke {}", shell::argument(&id))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::of(&visitor, format!("Revoke the key {}?", key.name), TAB, &format!("{TAB}/{id}"), "revoke")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Revokes a key.
pub async fn revoke(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let key = fleet.enrollment_keys().find::<EnrollmentRevoke>(&visitor.context, &id).await?;
        fleet.enrollment_keys().revoke(&key).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(TAB), &format!("The key {} is revoked.", key.name)))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
