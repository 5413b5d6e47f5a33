//! `/settings/spaces`: the parts of the installation.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PrivilegeName, SpacesRead, SpacesWrite};
use muster_core::id::SpaceId;
use muster_core::identity::Space;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use muster_management::error::status_of;
use serde::Deserialize;

use super::side::Side;
use super::{TAB, shown};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::links::{Base, Link};
use crate::request::{Id, Posted, Pressed};
use crate::versioned::{Edit, Field};
use crate::visitor::{May, Visitor};
use crate::{failure, notice};

/// Path of the list.
const PATH: &str = "/settings/spaces";
const API: &str = "/api/v1/spaces";

#[derive(Template)]
#[template(path = "settings/spaces.html")]
struct SpacesPage {
    frame: Frame,
    side: Side,
    rows: Vec<Row>,
    /// Whether the person sees all spaces, or only those that its roles name.
    is_all: bool,
    lacks: &'static str,
}

struct Row {
    id: String,
    name: String,
    description: String,
    path: Link,
    is_current: bool,
}

/// Shows the list. Everybody sees the spaces that their own roles name.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let current = visitor.context.space();
        let row = |id: &SpaceId, name: String, description: String| Row {
            path: Base::of(id).link("/"),
            is_current: id == current,
            id: id.to_string(),
            name,
            description,
        };
        let (is_all, rows) = match visitor.context.grant::<SpacesRead>() {
            Ok(grant) => {
                let all: Vec<Space> = fleet.spaces().list(&grant).await?;
                (true, all.into_iter().map(|one| row(&one.id, one.name, one.description)).collect())
            }
            Err(_) => {
                let mut own = visitor.other_spaces();
                own.push(current.clone());
                own.sort();
                (false, own.iter().map(|id| row(id, id.to_string(), String::new())).collect())
            }
        };
        Ok(SpacesPage {
            frame: Frame::new(&visitor, "Spaces", TAB),
            side: Side::new(&visitor, PATH),
            rows,
            is_all,
            lacks: visitor.lacks(PrivilegeName::SpacesWrite),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// The form of a space.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    id: String,
    name: String,
    description: String,
    /// The version that the form was made from; empty for a new space.
    version: String,
}

#[derive(Template)]
#[template(path = "settings/space.html")]
struct SpacePage {
    frame: Frame,
    side: Side,
    is_new: bool,
    fields: Fields,
    error: Option<Error>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// Shows the form of a new space.
pub async fn ask(May { visitor, .. }: May<SpacesWrite>) -> Response {
    render(&visitor, true, Fields::default(), None)
}

/// Shows a space.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    match fleet.spaces().find::<SpacesRead>(&visitor.context, &id).await {
        Ok(space) => render(&visitor, false, fields_of(&space), None),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

fn fields_of(space: &Space) -> Fields {
    Fields {
        id: space.id.to_string(),
        name: space.name.clone(),
        description: space.description.clone(),
        version: space.version.to_string(),
    }
}

fn render(visitor: &Visitor, is_new: bool, fields: Fields, error: Option<Error>) -> Response {
    let id = if fields.id.is_empty() { "ID" } else { &fields.id };
    let (verb, method, path) = match is_new {
        true => ("create", "POST", API.to_owned()),
        false => ("update", "PUT", format!("{API}/{id}")),
    };
    let body = serde_json::json!({"id": id, "name": fields.name, "description": fields.description});
    let command = format!("space {verb} {} {}", shell::argument(id), shell::option("--name", &fields.name));
    let title = if is_new { "Create a space".to_owned() } else { format!("Space {}", fields.name) };
    let shown = SpacePage {
        frame: Frame::new(visitor, title, TAB),
        side: Side::new(visitor, PATH),
        is_new,
        lacks: visitor.lacks(PrivilegeName::SpacesWrite),
        cli: cli(visitor, &command),
        api: curl(visitor, method, &path, &body.to_string()),
        fields,
        error,
    };
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Creates a space.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    let made = async {
        let grant = visitor.context.grant()?;
        fleet.spaces().create(&grant, &fields.id, &fields.name, &fields.description).await
    };
    match made.await {
        Ok(space) => notice::redirect(visitor.base.link(PATH), &format!("The space {} is created.", space.name)),
        Err(error) => render(&visitor, true, fields, Some(error)),
    }
}

impl Edit for Fields {
    type Record = Authorized<Space, SpacesWrite>;

    const CHANGED: &'static str = "space_changed";

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Self::Record, Error> {
        fleet.spaces().find(&visitor.context, id).await
    }

    fn version_of(space: &Self::Record) -> String {
        space.version.to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what(_: &Self::Record) -> String {
        "space".to_owned()
    }

    fn subject(_: &Visitor, space: &Self::Record) -> String {
        format!("space:{}", space.id)
    }

    fn fields(&self, space: &Self::Record) -> Vec<Field> {
        vec![
            ("name", self.name.clone(), space.name.clone()),
            ("description", self.description.clone(), space.description.clone()),
        ]
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, space: &Self::Record) -> Result<Response, Error> {
        let after = fleet.spaces().update(space, &self.name, &self.description).await?;
        Ok(notice::redirect(visitor.base.link(PATH), &format!("The space {} is saved.", after.name)))
    }

    async fn again(self, _: &Fleet, visitor: &Visitor, space: &Self::Record, error: Error) -> Response {
        render(visitor, false, Self { id: space.id.to_string(), ..self }, Some(error))
    }
}

/// Asks before a space is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let space = fleet.spaces().find::<SpacesWrite>(&visitor.context, &id).await?;
        let title = format!("Delete the space {}?", space.name);
        Ok(Confirm {
            text: vec![
                "Only an empty space can be deleted: without agents, policies, outputs, enrollment keys, labels, \
                 host checks, packs, installers, saved queries and saved scripts. Its fleetd options and the results \
                 in it are deleted. The roles that are limited to it are taken away. This cannot be undone."
                    .to_owned(),
            ],
            button: "Delete the space",
            cli: cli(&visitor, &format!("space delete {}", shell::argument(&id))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{PATH}/{id}"), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a space.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let space = fleet.spaces().find::<SpacesWrite>(&visitor.context, &id).await?;
        fleet.spaces().delete(&space).await?;
        let text = format!("The space {} is deleted.", space.name);
        // The person may be in the space that is gone.
        Ok::<_, Error>(notice::redirect(Link::to(PATH), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
