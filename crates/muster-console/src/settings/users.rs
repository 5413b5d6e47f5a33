//! `/settings/users`: people and service accounts: list, create, lock, set-up links, sessions, roles.

mod acts;

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use muster_core::authorization::{BindingScope, PrivilegeName, Role, RolesRead, Selector, UsersRead, UsersWrite};
use muster_core::identity::{Binding, Session, User, UserKind};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind, shell};
use muster_fleet::Fleet;
use muster_fleet::identity::bindings::NewBinding;
use muster_fleet::identity::users::NewUser;
use muster_management::entry::Connection;
use muster_management::error::status_of;
use muster_store::query::Page;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

pub use self::acts::{ask_to_delete, ask_to_lock, ask_to_sign_out, delete, lock, sign_out, unlock};
use super::side::Side;
use super::{TAB, given, lines, shown};
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::links::Link;
use crate::pager::Pager;
use crate::request::{Id, Posted, Pressed};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};
use crate::{failure, notice, set_up};

/// Path of the list.
pub const PATH: &str = "/settings/users";
const API: &str = "/api/v1/users";
const SERVICE_API: &str = "/api/v1/service_accounts";
/// Number of users on a page.
const ROWS: u32 = 50;
/// Maximum number of bindings that the page of a user shows; a user has at most 100.
const BINDINGS: u32 = 100;

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// `service` for service accounts.
    kind: String,
    page: u32,
}

#[derive(Template)]
#[template(path = "settings/users.html")]
struct UsersPage {
    frame: Frame,
    side: Side,
    is_service: bool,
    rows: Vec<Row>,
    pager: Pager,
    lacks: &'static str,
    cli: String,
    api: String,
}

struct Row {
    id: String,
    name: String,
    full_name: String,
    state: (&'static str, &'static str, &'static str),
    login: &'static str,
    created: Moment,
}

impl Row {
    fn new(user: &User, now: Timestamp) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name.clone(),
            full_name: user.full_name.clone(),
            state: if user.is_locked() { ("bad", "✕", "locked") } else { ("good", "●", "active") },
            login: match (&user.federated, &user.password, user.kind) {
                (_, _, UserKind::ServiceAccount) => "API tokens",
                (Some(_), _, _) => "OpenID provider",
                (None, Some(_), _) => "password",
                (None, None, _) => "no password yet",
            },
            created: Moment::new(user.created_at, now),
        }
    }
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    let made = async {
        let is_service = asked.kind == "service";
        let kind = if is_service { UserKind::ServiceAccount } else { UserKind::Person };
        let offset = asked.page.saturating_mul(ROWS);
        let found = fleet.users().list(&visitor.context.grant()?, kind, Page { offset, limit: ROWS }).await?;
        let now = fleet.now();
        let link =
            |page: u32| format!("{}{PATH}?kind={}&page={page}", visitor.base, if is_service { "service" } else { "" });
        Ok(UsersPage {
            frame: Frame::new(&visitor, "Users", TAB),
            side: Side::new(&visitor, PATH),
            is_service,
            rows: found.items.iter().map(|user| Row::new(user, now)).collect(),
            pager: Pager::numbered(asked.page, ROWS, found.total, link),
            lacks: visitor.lacks(PrivilegeName::UsersWrite),
            cli: cli(&visitor, if is_service { "user list --service-accounts" } else { "user list" }),
            api: curl(&visitor, "GET", if is_service { SERVICE_API } else { API }, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// The form of a new user.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct NewFields {
    name: String,
    full_name: String,
    kind: String,
}

#[derive(Template)]
#[template(path = "settings/user_new.html")]
struct NewPage {
    frame: Frame,
    side: Side,
    fields: NewFields,
    error: Option<Error>,
    cli: String,
    api: String,
}

/// Shows the form of a new user.
pub async fn ask(visitor: Visitor) -> Response {
    new_page(&visitor, NewFields::default(), None)
}

fn new_page(visitor: &Visitor, fields: NewFields, error: Option<Error>) -> Response {
    if let Err(error) = visitor.context.grant::<UsersWrite>() {
        return failure::inside(visitor, &error.into(), TAB);
    }
    let name = if fields.name.is_empty() { "NAME" } else { &fields.name };
    let shown = NewPage {
        frame: Frame::new(visitor, "Create a user", TAB),
        side: Side::new(visitor, PATH),
        cli: cli(visitor, &format!("user create {}", shell::argument(name))),
        api: curl(visitor, "POST", API, &serde_json::json!({"name": name}).to_string()),
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Creates a user, without any privileges.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<NewFields>) -> Response {
    let kind = if fields.kind == "service" { UserKind::ServiceAccount } else { UserKind::Person };
    let new = NewUser { kind, name: fields.name.clone(), full_name: fields.full_name.clone(), password: None };
    let made = async { fleet.users().create(&visitor.context.grant()?, &new).await };
    match made.await {
        Ok(user) => {
            let text = format!("{} is created, and has no role yet.", user.name);
            notice::redirect(visitor.base.link(format_args!("{PATH}/{}", user.id)), &text)
        }
        Err(error) => new_page(&visitor, fields, Some(error)),
    }
}

#[derive(Template)]
#[template(path = "settings/user.html")]
struct UserPage {
    frame: Frame,
    side: Side,
    user: Row,
    is_locked: bool,
    is_service: bool,
    is_self: bool,
    bindings: Vec<Bound>,
    sessions: Vec<LoggedIn>,
    roles: Vec<(String, String)>,
    /// The set-up link that was just created.
    link: String,
    binding: BindingFields,
    error: Option<Error>,
    lacks: &'static str,
    cli: String,
    api: String,
    /// The form that gives a role, as a command and as a request.
    bind: (String, String),
}

/// A session of a user.
struct LoggedIn {
    since: Moment,
    until: Moment,
    used: Option<Moment>,
    address: String,
}

/// A role of a user.
struct Bound {
    id: String,
    role: String,
    scope: String,
    since: Moment,
}

/// Returns where the role of a binding applies.
pub fn scope_of(binding: &Binding) -> String {
    match &binding.scope {
        BindingScope::System => "everywhere".to_owned(),
        BindingScope::Space(space) => format!("space {space}"),
        BindingScope::Part { space, selector: Selector::Policies(policies) } => {
            let names: Vec<&str> = policies.iter().map(muster_core::id::PolicyId::as_str).collect();
            format!("space {space}, policies {}", names.join(", "))
        }
        BindingScope::Part { space, selector: Selector::Tags(tags) } => {
            format!("space {space}, agents with the tags {}", tags.join(", "))
        }
    }
}

fn bound(binding: &Binding, roles: &[Role], now: Timestamp) -> Bound {
    let role = roles.iter().find(|role| role.id == binding.role);
    Bound {
        id: binding.id.to_string(),
        role: role.map_or_else(|| binding.role.to_string(), |role| role.name.clone()),
        scope: scope_of(binding),
        since: Moment::new(binding.created_at, now),
    }
}

/// The form that gives a role.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct BindingFields {
    role: String,
    space: String,
    policies: String,
    tags: String,
}

/// Shows a user.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    shown(&visitor, TAB, user_page(&fleet, &visitor, &id, String::new(), BindingFields::default(), None).await)
}

async fn user_page(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    link: String,
    binding: BindingFields,
    error: Option<Error>,
) -> Result<UserPage, Error> {
    let user = fleet.users().find::<UsersRead>(&visitor.context, id).await?;
    let rows = Page { offset: 0, limit: BINDINGS };
    let bindings = fleet.bindings().list(user.grant(), Some(user.id.as_str()), &visitor.context, rows).await?;
    let sessions = fleet.sessions().of(&user).await?;
    let roles = match visitor.context.grant::<RolesRead>() {
        Ok(grant) => fleet.roles().list(&grant).await?,
        Err(_) => Vec::new(),
    };
    let now = fleet.now();
    let logged_in = |one: Session| LoggedIn {
        since: Moment::new(one.created_at, now),
        until: Moment::new(one.expires_at, now),
        used: Moment::of(one.last_used_at, now),
        address: one.address.unwrap_or_default(),
    };
    let name = shell::argument(&user.name);
    Ok(UserPage {
        frame: Frame::new(visitor, format!("User {}", user.name), TAB),
        side: Side::new(visitor, PATH),
        is_locked: user.is_locked(),
        is_service: user.kind == UserKind::ServiceAccount,
        is_self: visitor.context.actor().user() == Some(&user.id),
        bindings: bindings.items.iter().map(|one| bound(one, &roles, now)).collect(),
        sessions: sessions.into_iter().map(logged_in).collect(),
        roles: roles.into_iter().map(|role| (role.id.to_string(), role.name)).collect(),
        link,
        error,
        lacks: visitor.lacks(PrivilegeName::UsersWrite),
        cli: cli(visitor, &format!("user show {name}")),
        bind: bind_elsewhere(visitor, &user.name, &binding.role),
        binding,
        api: curl(visitor, "GET", &format!("{API}/{}", user.id), ""),
        user: Row::new(&user, now),
    })
}

fn bind_elsewhere(visitor: &Visitor, user: &str, role: &str) -> (String, String) {
    let role = if role.is_empty() { "ROLE" } else { role };
    let command = format!("role bind {} {}", shell::argument(role), shell::option("--user", user));
    let body = serde_json::json!({"user": user, "role": role});
    (cli(visitor, &command), curl(visitor, "POST", "/api/v1/bindings", &body.to_string()))
}

/// Gives a role to a user.
pub async fn bind(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, fields): Posted<BindingFields>,
) -> Response {
    let list = |text: &str| lines(&text.replace(',', "\n"));
    let new = NewBinding {
        user: Some(id.clone()),
        group: None,
        role: fields.role.clone(),
        space: given(&fields.space),
        policies: list(&fields.policies),
        tags: list(&fields.tags),
    };
    match fleet.bindings().create(&visitor.context, &new).await {
        Ok((binding, ineffective)) => {
            notice::redirect(visitor.base.link(format_args!("{PATH}/{id}")), &given_text(&binding, &ineffective))
        }
        Err(error) => match user_page(&fleet, &visitor, &id, String::new(), fields, Some(at_field(error))).await {
            Ok(shown) => page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown),
            Err(error) => failure::inside(&visitor, &error, TAB),
        },
    }
}

/// Names the field of an error about what a binding refers to, which has none.
pub fn at_field(error: Error) -> Error {
    let of = |(beginning, _): &(&str, &str)| error.kind == ErrorKind::NotFound && error.message.starts_with(beginning);
    let fields = [("space ", "space"), ("policy ", "policies"), ("role ", "role")];
    match fields.iter().find(|one| of(one)) {
        Some((_, field)) => Error { field: Some((*field).to_owned()), ..error },
        None => error,
    }
}

/// Says that a role was given, and which of its privileges have no effect.
pub fn given_text(binding: &Binding, ineffective: &[PrivilegeName]) -> String {
    let names: Vec<&str> = ineffective.iter().map(|name| name.as_str()).collect();
    match names.as_slice() {
        [] => format!("The role {} is given.", binding.role),
        names => format!(
            "The role {} is given. In this scope, these privileges of it have no effect: {}",
            binding.role,
            names.join(", ")
        ),
    }
}

/// Creates a set-up link, and shows it once.
pub async fn set_up_link(
    State(fleet): State<Arc<Fleet>>,
    Pressed(visitor): Pressed,
    Id(id): Id,
    connection: Connection,
    headers: HeaderMap,
) -> Response {
    let made = async {
        let user = fleet.users().find_to_change(&visitor.context, &id).await?;
        let (_, token) = fleet.setup().create_link(&user).await?;
        let scheme = if connection.is_tls() { "https" } else { "http" };
        let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
        let path = Link::to(&format!("{}?token={}", set_up::PATH, utf8_percent_encode(&token, NON_ALPHANUMERIC)));
        let link = format!("{scheme}://{host}{path}");
        user_page(&fleet, &visitor, &id, link, BindingFields::default(), None).await
    };
    shown(&visitor, TAB, made.await)
}
