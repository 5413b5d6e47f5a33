//! `/settings/bindings`: who has which role, users and groups of OpenID providers, and roles for groups.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PrivilegeName, Role, RolesRead, UsersWrite};
use muster_core::identity::{Binding, Subject};
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::identity::bindings::NewBinding;
use muster_management::error::status_of;
use muster_store::query::Page;
use serde::Deserialize;

use super::side::Side;
use super::users::{PATH as USERS, at_field, given_text, scope_of};
use super::{TAB, given, lines};
use crate::confirm::{self, Confirm};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Link;
use crate::notice;
use crate::pager::Pager;
use crate::people::People;
use crate::request::{Id, Posted, Pressed};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Path of the page, and of the bindings in the API.
pub const PATH: &str = "/settings/bindings";
const API: &str = "/api/v1/bindings";
/// Number of bindings on a page.
const ROWS: u32 = 50;

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    page: u32,
}

/// The form that gives a role to a group.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    group: String,
    role: String,
    space: String,
    policies: String,
    tags: String,
}

#[derive(Template)]
#[template(path = "settings/bindings.html")]
struct BindingsPage {
    frame: Frame,
    side: Side,
    rows: Vec<Row>,
    pager: Pager,
    /// The roles: id and name.
    roles: Vec<(String, String)>,
    fields: Fields,
    error: Option<Error>,
    lacks: &'static str,
    cli: String,
    api: String,
}

struct Row {
    id: String,
    /// Name of the user or the group.
    who: String,
    /// Link to the user; empty for a group.
    link: String,
    role: String,
    scope: String,
    since: Moment,
}

impl Row {
    async fn new(
        binding: &Binding,
        roles: &[Role],
        visitor: &Visitor,
        people: &mut People<'_>,
        now: Timestamp,
    ) -> Self {
        let role = roles.iter().find(|role| role.id == binding.role);
        let (who, link) = match &binding.subject {
            Subject::User(id) => (people.name(&format!("user:{id}")).await, format!("{}{USERS}/{id}", visitor.base)),
            Subject::Group(name) => (name.clone(), String::new()),
        };
        Self {
            id: binding.id.to_string(),
            role: role.map_or_else(|| binding.role.to_string(), |role| role.name.clone()),
            scope: scope_of(binding),
            since: Moment::new(binding.created_at, now),
            who,
            link,
        }
    }
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    // The least that is likely to be meant: a role everywhere takes an empty field.
    let fields = Fields { space: visitor.context.space().to_string(), ..Fields::default() };
    render(&fleet, &visitor, asked.page, fields, None).await
}

async fn render(fleet: &Fleet, visitor: &Visitor, number: u32, fields: Fields, error: Option<Error>) -> Response {
    match content(fleet, visitor, number, fields, error).await {
        Ok(shown) => page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

async fn content(
    fleet: &Fleet,
    visitor: &Visitor,
    number: u32,
    fields: Fields,
    error: Option<Error>,
) -> Result<BindingsPage, Error> {
    let rows = Page { offset: number.saturating_mul(ROWS), limit: ROWS };
    let found = fleet.bindings().list(&visitor.context.grant()?, None, &visitor.context, rows).await?;
    let roles = match visitor.context.grant::<RolesRead>() {
        Ok(grant) => fleet.roles().list(&grant).await?,
        Err(_) => Vec::new(),
    };
    let (now, mut people) = (fleet.now(), People::new(fleet, visitor));
    let mut rows = Vec::new();
    for binding in &found.items {
        rows.push(Row::new(binding, &roles, visitor, &mut people, now).await);
    }
    let link = |number: u32| format!("{}{PATH}?page={number}", visitor.base);
    let or = |text: &str, other: &str| given(text).unwrap_or_else(|| other.to_owned());
    let (group, role) = (or(&fields.group, "GROUP"), or(&fields.role, "ROLE"));
    Ok(BindingsPage {
        frame: Frame::new(visitor, "Role bindings", TAB),
        side: Side::new(visitor, PATH),
        rows,
        pager: Pager::numbered(number, ROWS, found.total, link),
        roles: roles.into_iter().map(|role| (role.id.to_string(), role.name)).collect(),
        lacks: visitor.lacks(PrivilegeName::UsersWrite),
        cli: cli(visitor, &format!("role bind {} {}", shell::argument(&role), shell::option("--group", &group))),
        api: curl(visitor, "POST", API, &serde_json::json!({"group": group, "role": role}).to_string()),
        fields,
        error,
    })
}

/// Gives a role to a group.
pub async fn bind(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    let list = |text: &str| lines(&text.replace(',', "\n"));
    let new = NewBinding {
        user: None,
        group: Some(fields.group.trim().to_owned()),
        role: fields.role.clone(),
        space: given(&fields.space),
        policies: list(&fields.policies),
        tags: list(&fields.tags),
    };
    match fleet.bindings().create(&visitor.context, &new).await {
        Ok((binding, ineffective)) => notice::redirect(visitor.base.link(PATH), &given_text(&binding, &ineffective)),
        Err(error) => render(&fleet, &visitor, 0, fields, Some(at_field(error))).await,
    }
}

/// Returns the page that shows a binding: that of its user, or the list of bindings.
fn page_of(visitor: &Visitor, subject: &Subject) -> Link {
    match subject {
        Subject::User(user) => visitor.base.link(format_args!("{USERS}/{user}")),
        Subject::Group(_) => visitor.base.link(PATH),
    }
}

/// Asks before a role is taken from a user or a group.
pub async fn ask_to_unbind(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    confirm::shown(&visitor, TAB, unbinding(&fleet, &visitor, &id, None).await)
}

async fn unbinding(fleet: &Fleet, visitor: &Visitor, id: &str, error: Option<Error>) -> Result<Confirm, Error> {
    let binding = fleet.bindings().find::<UsersWrite>(&visitor.context, id).await?.into_inner();
    let found = fleet.roles().find::<RolesRead>(&visitor.context, binding.role.as_str()).await;
    let role = found.map_or_else(|_| binding.role.to_string(), |role| role.name.clone());
    let own = match &binding.subject {
        Subject::User(user) if visitor.context.actor().user() == Some(user) => " This is your own role.",
        Subject::User(_) | Subject::Group(_) => "",
    };
    let who = match &binding.subject {
        Subject::User(user) => People::new(fleet, visitor).name(&format!("user:{user}")).await,
        Subject::Group(name) => format!("the group {name}"),
    };
    let back = page_of(visitor, &binding.subject);
    let action = visitor.base.link(format_args!("{PATH}/{id}/delete"));
    Ok(Confirm {
        text: vec![format!(
            "The role {role} ({}) is removed from {who}, effective immediately.{own}",
            scope_of(&binding)
        )],
        button: "Remove the role",
        error,
        cli: cli(visitor, &format!("role unbind {}", shell::argument(id))),
        api: curl(visitor, "DELETE", &format!("{API}/{id}"), ""),
        ..Confirm::new(visitor, format!("Remove the role {role} from {who}?"), TAB, action, back)
    })
}

/// Takes a role from a user or a group.
pub async fn unbind(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let removed = async {
        let binding = fleet.bindings().find::<UsersWrite>(&visitor.context, &id).await?;
        fleet.bindings().delete(&visitor.context, &binding).await?;
        let text = format!("The role {} is removed.", binding.role);
        Ok::<_, Error>(notice::redirect(page_of(&visitor, &binding.subject), &text))
    };
    match removed.await {
        Ok(response) => response,
        // Somebody must stay an administrator, for example: the page says so, and leads back.
        Err(error) => confirm::shown(&visitor, TAB, unbinding(&fleet, &visitor, &id, Some(error)).await),
    }
}
