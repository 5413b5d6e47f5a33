//! `/settings/tokens`: API tokens: one's own, and those of all users.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{PrivilegeName, UsersRead};
use muster_core::id::UserId;
use muster_core::identity::ApiToken;
use muster_core::shell;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::identity::tokens::NewToken;
use muster_management::error::status_of;
use muster_store::query::Page;
use serde::Deserialize;

use super::privileges::{Choice, Group, grouped, is_among};
use super::side::Side;
use super::{TAB, given, shown};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::pager::Pager;
use crate::request::{Id, Posted, Pressed};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Path of the list.
const PATH: &str = "/settings/tokens";
const API: &str = "/api/v1/tokens";
/// Number of tokens on a page.
const ROWS: u32 = 50;

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// `all` for the tokens of all users.
    of: String,
    page: u32,
}

#[derive(Template)]
#[template(path = "settings/tokens.html")]
struct TokensPage {
    frame: Frame,
    side: Side,
    is_all: bool,
    rows: Vec<Row>,
    pager: Pager,
    lacks: &'static str,
    cli: String,
    api: String,
}

struct Row {
    id: String,
    name: String,
    owner: String,
    state: (&'static str, &'static str, &'static str),
    privileges: String,
    expires: Option<Moment>,
    last_used: Option<Moment>,
    created: Moment,
    is_live: bool,
}

fn row(token: ApiToken, owners: &HashMap<UserId, String>, now: Timestamp) -> Row {
    let names: Vec<&str> = token.privileges.iter().map(PrivilegeName::as_str).collect();
    let state = match (token.revoked_at, token.expires_at) {
        (Some(_), _) => ("quiet", "–", "revoked"),
        (None, Some(end)) if end <= now => ("warn", "▲", "expired"),
        _ => ("good", "●", "active"),
    };
    Row {
        privileges: match names.len() {
            all if all == PrivilegeName::ALL.len() => "all".to_owned(),
            0..4 => names.join(", "),
            many => format!("{} and {} more", names[..2].join(", "), many - 2),
        },
        owner: owners.get(&token.owner).cloned().unwrap_or_else(|| token.owner.to_string()),
        state,
        is_live: state.2 == "active",
        expires: Moment::of(token.expires_at, now),
        last_used: Moment::of(token.last_used_at, now),
        created: Moment::new(token.created_at, now),
        id: token.id.to_string(),
        name: token.name,
    }
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    shown(&visitor, TAB, read(&fleet, &visitor, &asked).await)
}

async fn read(fleet: &Fleet, visitor: &Visitor, asked: &Asked) -> Result<TokensPage, Error> {
    let is_all = asked.of == "all";
    let rows = Page { offset: asked.page.saturating_mul(ROWS), limit: ROWS };
    let mut owners = HashMap::new();
    let found = if is_all {
        let found = fleet.tokens().list(&visitor.context.grant()?, None, rows).await?;
        for token in &found.items {
            if !owners.contains_key(&token.owner) {
                let user = fleet.users().find::<UsersRead>(&visitor.context, token.owner.as_str()).await?;
                owners.insert(token.owner.clone(), user.name.clone());
            }
        }
        found
    } else {
        fleet.tokens().list_own(&visitor.context, rows).await?
    };
    let now = fleet.now();
    let link = |page: u32| format!("{}{PATH}?of={}&page={page}", visitor.base, if is_all { "all" } else { "" });
    Ok(TokensPage {
        frame: Frame::new(visitor, "API tokens", TAB),
        side: Side::new(visitor, PATH),
        is_all,
        rows: found.items.into_iter().map(|token| row(token, &owners, now)).collect(),
        pager: Pager::numbered(asked.page, ROWS, found.total, link),
        lacks: visitor.lacks(PrivilegeName::UsersRead),
        cli: cli(visitor, if is_all { "token list --all" } else { "token list" }),
        api: curl(visitor, "GET", &if is_all { format!("{API}?owner=*") } else { API.to_owned() }, ""),
    })
}

/// The form of a new token.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    expiration: String,
    privileges: Vec<String>,
}

#[derive(Template)]
#[template(path = "settings/token_new.html")]
struct NewPage {
    frame: Frame,
    side: Side,
    fields: Fields,
    /// The privileges of the person.
    choices: Vec<Group>,
    /// The token that was just created. It is shown only now.
    token: String,
    error: Option<Error>,
    cli: String,
    api: String,
}

/// Shows the form of a new token.
pub async fn ask(visitor: Visitor) -> Response {
    let fields = Fields { expiration: "90d".to_owned(), ..Fields::default() };
    render(&visitor, fields, String::new(), None)
}

fn render(visitor: &Visitor, fields: Fields, token: String, error: Option<Error>) -> Response {
    let own = visitor.context.privileges();
    let choice = |name: PrivilegeName| Choice {
        name: name.as_str(),
        about: name.about(),
        scope: "",
        is_chosen: is_among(&fields.privileges, name),
        is_own: true,
    };
    let name = if fields.name.is_empty() { "NAME" } else { &fields.name };
    let body = serde_json::json!({"name": name, "expiration": fields.expiration});
    let shown = NewPage {
        frame: Frame::new(visitor, "Create an API token", TAB),
        side: Side::new(visitor, PATH),
        choices: grouped(own.iter().map(choice)),
        token,
        cli: cli(visitor, &format!("token create {}", shell::option("--name", name))),
        api: curl(visitor, "POST", API, &body.to_string()),
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Creates a token of the person, and shows it once.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    let new = NewToken {
        name: fields.name.clone(),
        privileges: Some(fields.privileges.clone()).filter(|names| !names.is_empty()),
        expiration: given(&fields.expiration),
    };
    match fleet.tokens().create_own(&visitor.context, &new).await {
        Ok((_, token)) => render(&visitor, fields, token, None),
        Err(error) => render(&visitor, fields, String::new(), Some(error)),
    }
}

/// Asks before a token is revoked.
pub async fn ask_to_revoke(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let token = fleet.tokens().get(&visitor.context, &id).await?;
        let used = Moment::of(token.last_used_at, fleet.now());
        let used =
            used.map_or_else(|| "It was never used.".to_owned(), |at| format!("It was last used {}.", at.relative));
        Ok(Confirm {
            text: vec![format!("Requests with it are rejected from the next one on. This cannot be undone. {used}")],
            button: "Revoke the token",
            cli: cli(&visitor, &format!("token revoke {}", shell::argument(&id))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::new(
                &visitor,
                format!("Revoke the token {}?", token.name),
                TAB,
                visitor.base.link(format_args!("{PATH}/{id}/revoke")),
                visitor.base.link(PATH),
            )
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Revokes a token.
pub async fn revoke(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        fleet.tokens().revoke(&visitor.context, &id).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), "The token is revoked."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
