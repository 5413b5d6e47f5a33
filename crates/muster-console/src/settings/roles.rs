//! `/settings/roles`: named sets of privileges.

use std::collections::BTreeSet;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PrivilegeName, Role, RolesRead, RolesWrite};
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use muster_fleet::identity::roles::RoleDraft;
use muster_management::error::status_of;
use serde::Deserialize;

use super::privileges::{Choice, Group, grouped, is_among};
use super::side::Side;
use super::{TAB, shown};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl, or_placeholder};
use crate::frame::{Frame, page};
use crate::request::{Id, Posted, Pressed};
use crate::versioned::{Edit, Field};
use crate::visitor::{May, Visitor};
use crate::{failure, notice};

/// Path of the list.
const PATH: &str = "/settings/roles";
const API: &str = "/api/v1/roles";

#[derive(Template)]
#[template(path = "settings/roles.html")]
struct RolesPage {
    frame: Frame,
    side: Side,
    rows: Vec<Row>,
    lacks: &'static str,
}

struct Row {
    id: String,
    name: String,
    description: String,
    privileges: usize,
    is_built_in: bool,
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let roles = fleet.roles().list(&visitor.context.grant()?).await?;
        let row = |role: Role| Row {
            privileges: role.privileges.iter().count(),
            id: role.id.to_string(),
            name: role.name,
            description: role.description,
            is_built_in: role.is_built_in,
        };
        Ok(RolesPage {
            frame: Frame::new(&visitor, "Roles", TAB),
            side: Side::new(&visitor, PATH),
            rows: roles.into_iter().map(row).collect(),
            lacks: visitor.lacks(PrivilegeName::RolesWrite),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// The form of a role.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    description: String,
    privileges: Vec<String>,
    /// The version that the form was made from; empty for a new role.
    version: String,
}

#[derive(Template)]
#[template(path = "settings/role.html")]
struct RolePage {
    frame: Frame,
    side: Side,
    id: String,
    is_built_in: bool,
    fields: Fields,
    choices: Vec<Group>,
    error: Option<Error>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// Shows the form of a new role.
pub async fn ask(May { visitor, .. }: May<RolesWrite>) -> Response {
    render(&visitor, None, Fields::default(), None)
}

/// Shows a role.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    match fleet.roles().find::<RolesRead>(&visitor.context, &id).await {
        Ok(role) => render(&visitor, Some(&role), fields_of(&role), None),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

fn fields_of(role: &Role) -> Fields {
    Fields {
        name: role.name.clone(),
        description: role.description.clone(),
        privileges: role.privileges.iter().map(|name| name.as_str().to_owned()).collect(),
        version: role.version.to_string(),
    }
}

fn render(visitor: &Visitor, role: Option<&Role>, fields: Fields, error: Option<Error>) -> Response {
    let choice = |name: &PrivilegeName| Choice {
        name: name.as_str(),
        about: name.about(),
        scope: name.reach().narrowest(),
        is_chosen: is_among(&fields.privileges, *name),
        is_own: visitor.context.check_everywhere(*name).is_ok(),
    };
    let name = or_placeholder(&fields.name, "NAME");
    let body = serde_json::json!({"name": name, "privileges": fields.privileges});
    let id = role.map(|role| role.id.to_string()).unwrap_or_default();
    let (command, method, path) = match role {
        None => ("role create NAME --privilege agents.read".to_owned(), "POST", API.to_owned()),
        Some(role) => (format!("role show {}", shell::argument(role.id.as_str())), "PUT", format!("{API}/{}", role.id)),
    };
    let shown = RolePage {
        frame: Frame::new(
            visitor,
            role.map_or_else(|| "Create a role".to_owned(), |role| format!("Role {}", role.name)),
            TAB,
        ),
        side: Side::new(visitor, PATH),
        choices: grouped(PrivilegeName::ALL.iter().map(choice)),
        is_built_in: role.is_some_and(|role| role.is_built_in),
        lacks: visitor.lacks(PrivilegeName::RolesWrite),
        cli: cli(visitor, &command),
        api: curl(visitor, method, &path, &body.to_string()),
        id,
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

fn draft(fields: &Fields) -> RoleDraft {
    RoleDraft {
        name: fields.name.clone(),
        description: fields.description.clone(),
        privileges: fields.privileges.clone(),
    }
}

/// Creates a role.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    match fleet.roles().create(&visitor.context, &draft(&fields)).await {
        Ok(role) => notice::redirect(visitor.base.link(PATH), &format!("The role {} is created.", role.name)),
        Err(error) => render(&visitor, None, fields, Some(error)),
    }
}

impl Edit for Fields {
    type Record = Authorized<Role, RolesWrite>;

    const CHANGED: &'static str = "role_changed";

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Self::Record, Error> {
        fleet.roles().find(&visitor.context, id).await
    }

    fn version_of(role: &Self::Record) -> String {
        role.version.to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what(_: &Self::Record) -> String {
        "role".to_owned()
    }

    fn subject(_: &Visitor, role: &Self::Record) -> String {
        format!("role:{}", role.id)
    }

    fn fields(&self, role: &Self::Record) -> Vec<Field> {
        let names: Vec<&str> = role.privileges.iter().map(PrivilegeName::as_str).collect();
        let typed: BTreeSet<&str> = self.privileges.iter().map(String::as_str).collect();
        let in_order =
            PrivilegeName::ALL.iter().copied().map(PrivilegeName::as_str).filter(|name| typed.contains(name));
        vec![
            ("name", self.name.clone(), role.name.clone()),
            ("description", self.description.clone(), role.description.clone()),
            ("privileges", in_order.collect::<Vec<_>>().join(", "), names.join(", ")),
        ]
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, role: &Self::Record) -> Result<Response, Error> {
        let after = fleet.roles().update(&visitor.context, role, &draft(self)).await?;
        let text = format!("The role {} is saved. The change applies immediately to everyone who has it.", after.name);
        Ok(notice::redirect(visitor.base.link(PATH), &text))
    }

    async fn again(self, _: &Fleet, visitor: &Visitor, role: &Self::Record, error: Error) -> Response {
        render(visitor, Some(role), self, Some(error))
    }
}

/// Asks before a role is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let role = fleet.roles().find::<RolesWrite>(&visitor.context, &id).await?;
        Ok(Confirm {
            text: vec!["A role that somebody has cannot be deleted. This cannot be undone.".to_owned()],
            button: "Delete the role",
            cli: cli(&visitor, &format!("role delete {}", shell::argument(&id))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::of(&visitor, format!("Delete the role {}?", role.name), TAB, &format!("{PATH}/{id}"), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a role.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let role = fleet.roles().find::<RolesWrite>(&visitor.context, &id).await?;
        fleet.roles().delete(&role).await?;
        let text = format!("The role {} is deleted.", role.name);
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
