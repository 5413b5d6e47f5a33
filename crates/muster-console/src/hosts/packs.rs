//! `/packs`: sets of scheduled queries of osquery, for some hosts or for all: list, create, change, delete.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{OsqueryRead, OsqueryWrite, PrivilegeName};
use muster_core::fleetd::platform::Platform;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::packs::{PackDraft, ScopedPack};
use muster_fleet::query_failures::PackFailures;
use muster_management::error::status_of;
use serde::Deserialize;

use super::TAB;
use super::facts::cut;
use super::label_hosts::names;
use super::pack_queries::{Fields as QueryFields, QueryRow, count, rows};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::policies::edit::{ProblemRow, problems};
use crate::policies::text::of_object;
use crate::request::{Id, Posted, Pressed};
use crate::settings::shown;
use crate::versioned::{Edit, update_to};
use crate::visitor::Visitor;
use crate::{failure, notice};

/// Path of the list, and of it in the API.
pub const PATH: &str = "/packs";
const API: &str = "/api/fleet/packs";
/// Maximum size of the form, bytes: the document can take three bytes for each of its own.
pub const MAX_FORM: usize = 800 << 10;
/// Name of the conflict of two editors.
const CHANGED: &str = "pack_changed";
/// What the editor of a new pack begins with.
const EXAMPLE: &str = "queries:\n  users:\n    query: SELECT uid, username FROM users\n    interval: 3600\n";

#[derive(Template)]
#[template(path = "hosts/packs_list.html")]
struct PacksPage {
    frame: Frame,
    rows: Vec<Row>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// What pages show of a pack.
struct Row {
    id: String,
    name: String,
    description: String,
    platforms: String,
    labels: String,
    queries: usize,
    is_of_all: bool,
}

impl Row {
    fn new(one: &ScopedPack) -> Self {
        let pack = &one.pack;
        let or_all = |words: &[String]| if words.is_empty() { "all".to_owned() } else { words.join(", ") };
        Self {
            id: pack.id.to_string(),
            name: pack.name.clone(),
            description: cut(&pack.description),
            platforms: or_all(&pack.platforms),
            labels: cut(&or_all(&pack.labels)),
            queries: count(&pack.document),
            is_of_all: one.is_of_all,
        }
    }
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let found = fleet.packs().list(&visitor.context.grant()?).await?;
        Ok(PacksPage {
            frame: Frame::new(&visitor, "Packs", TAB),
            rows: found.iter().map(Row::new).collect(),
            lacks: visitor.lacks(PrivilegeName::OsqueryWrite),
            cli: cli(&visitor, "pack list"),
            api: curl(&visitor, "GET", API, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// The form of a pack.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    description: String,
    platforms: Vec<String>,
    labels: Vec<String>,
    /// What osquery gets, as YAML.
    document: String,
    /// Whether it is for the hosts of all spaces.
    is_of_all: Option<String>,
    /// The version that the form was made from; empty for a new pack.
    version: String,
}

impl Fields {
    fn of(one: &ScopedPack) -> Self {
        let pack = &one.pack;
        Self {
            name: pack.name.clone(),
            description: pack.description.clone(),
            platforms: pack.platforms.clone(),
            labels: pack.labels.clone(),
            document: of_object(&pack.document),
            is_of_all: one.is_of_all.then(|| "1".to_owned()),
            version: pack.version.to_string(),
        }
    }

    fn draft(&self, expected: i64) -> PackDraft {
        PackDraft {
            name: self.name.clone(),
            description: self.description.clone(),
            platforms: self.platforms.clone(),
            labels: self.labels.clone(),
            document: self.document.clone(),
            is_of_all: self.is_of_all.is_some(),
            expected: Some(expected),
        }
    }

    fn has(&self, platform: &str) -> bool {
        self.platforms.iter().any(|one| one == platform)
    }
}

#[derive(Template)]
#[template(path = "hosts/pack.html")]
struct PackPage {
    frame: Frame,
    /// The pack as it is stored; `None` for a new one.
    pack: Option<Row>,
    fields: Fields,
    /// The stored version, if somebody else has changed it since the form was made.
    current: Option<Fields>,
    /// The scheduled queries as they are stored, and the form of another one.
    queries: Vec<QueryRow>,
    query: QueryFields,
    platforms: [&'static str; 3],
    /// The labels to choose from: name, and whether it is chosen.
    labels: Vec<(String, bool)>,
    error: Option<Error>,
    problems: Vec<ProblemRow>,
    lacks: &'static str,
    /// The privilege that packs of all spaces need, if the person lacks it everywhere.
    lacks_all: &'static str,
    cli: String,
    api: String,
}

fn render(made: Result<PackPage, Error>, visitor: &Visitor) -> Response {
    match made {
        Ok(shown) => page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

/// Shows the form of a new pack.
pub async fn ask(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        visitor.context.grant::<OsqueryWrite>()?;
        form_page(&fleet, &visitor, None, Fields { document: EXAMPLE.to_owned(), ..Fields::default() }, None).await
    };
    render(made.await, &visitor)
}

async fn form_page(
    fleet: &Fleet,
    visitor: &Visitor,
    pack: Option<&ScopedPack>,
    fields: Fields,
    error: Option<Error>,
) -> Result<PackPage, Error> {
    let title = pack.map_or_else(|| "Create a pack".to_owned(), |one| format!("Pack {}", one.pack.name));
    let everywhere = visitor.context.check_everywhere(PrivilegeName::OsqueryWrite);
    let lacks_all = if everywhere.is_err() { PrivilegeName::OsqueryWrite.as_str() } else { "" };
    let is_of_all = pack.is_some_and(|one| one.is_of_all);
    Ok(PackPage {
        frame: Frame::new(visitor, title, TAB),
        current: None,
        queries: match pack {
            Some(one) => rows(&one.pack.document, &failures(fleet, visitor, one).await?, &visitor.base),
            None => Vec::new(),
        },
        query: QueryFields::new(fields.version.clone()),
        platforms: Platform::NAMES,
        labels: choices(names(fleet, visitor).await?, &fields.labels),
        problems: error.as_ref().map(problems).unwrap_or_default(),
        lacks: if is_of_all { lacks_all } else { visitor.lacks(PrivilegeName::OsqueryWrite) },
        lacks_all,
        cli: cli(visitor, &command(&fields)),
        api: curl(visitor, "POST", API, &body(&fields).to_string()),
        pack: pack.map(Row::new),
        fields,
        error,
    })
}

/// Returns the queries of a pack that do not work on hosts of the space.
async fn failures(fleet: &Fleet, visitor: &Visitor, one: &ScopedPack) -> Result<PackFailures, Error> {
    let found = fleet.query_failures().of_packs(&visitor.context.grant()?, std::slice::from_ref(one)).await?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// Returns the labels of a form: those that exist, and chosen ones that do not, such as those of a pack of all spaces.
pub fn choices(known: Vec<String>, chosen: &[String]) -> Vec<(String, bool)> {
    let is_same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
    let missing = chosen.iter().filter(|name| !known.iter().any(|one| is_same(one, name)));
    let missing: Vec<_> = missing.map(|name| (name.clone(), true)).collect();
    let known = known.into_iter().map(|name| {
        let is_chosen = chosen.iter().any(|one| is_same(one, &name));
        (name, is_chosen)
    });
    let mut all: Vec<_> = known.chain(missing).collect();
    // Chosen ones first: the list can be longer than what is visible of it.
    all.sort_by_key(|(_, is_chosen)| !is_chosen);
    all
}

fn command(fields: &Fields) -> String {
    let name = if fields.name.trim().is_empty() { "NAME" } else { fields.name.trim() };
    let mut command = format!("pack apply {} -f pack.yml", shell::argument(name));
    let mut add = |flag: &str, value: &str| command += &format!(" {}", shell::option(flag, value));
    if !fields.description.trim().is_empty() {
        add("--description", fields.description.trim());
    }
    fields.platforms.iter().for_each(|platform| add("--platform", platform));
    fields.labels.iter().for_each(|label| add("--label", label));
    if fields.is_of_all.is_some() {
        command += " --all-spaces";
    }
    command
}

fn body(fields: &Fields) -> serde_json::Value {
    serde_json::json!({
        "name": fields.name.trim(), "description": fields.description, "platforms": fields.platforms,
        "labels": fields.labels, "all_spaces": fields.is_of_all.is_some(), "pack": fields.document,
    })
}

/// Creates a pack. A name that is taken is not replaced here: the person has not seen what it would replace.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields, MAX_FORM>) -> Response {
    match fleet.packs().save(&visitor.context, fields.draft(0)).await {
        Ok(one) => saved(&visitor, &one),
        Err(error) => render(form_page(&fleet, &visitor, None, fields, Some(at_field(error))).await, &visitor),
    }
}

/// Redirects to the page of a pack that was saved.
pub fn saved(visitor: &Visitor, one: &ScopedPack) -> Response {
    let text = format!("The pack {} is saved. Hosts get it with their configuration.", one.pack.name);
    notice::redirect(visitor.base.link(format_args!("{PATH}/{}", one.pack.id)), &text)
}

/// Names the field of an error that has none.
fn at_field(error: Error) -> Error {
    let field = match error.code {
        "pack_exists" => "name",
        // The only thing that a pack refers to.
        "not_found" if error.message.starts_with("label ") => "labels",
        _ => return error,
    };
    Error { field: Some(field.into()), ..error }
}

/// Finds a pack.
pub async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<ScopedPack, Error> {
    fleet.packs().find(&visitor.context.grant::<OsqueryRead>()?, id).await
}

/// Shows a pack.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let one = find(&fleet, &visitor, &id).await?;
        form_page(&fleet, &visitor, Some(&one), Fields::of(&one), None).await
    };
    render(made.await, &visitor)
}

/// Shows a pack again after the form of a query has failed.
pub async fn after_failure(
    fleet: &Fleet,
    visitor: &Visitor,
    one: &ScopedPack,
    query: QueryFields,
    error: Error,
) -> Response {
    let made = form_page(fleet, visitor, Some(one), Fields::of(one), Some(error)).await;
    render(made.map(|shown| PackPage { query, problems: Vec::new(), ..shown }), visitor)
}

/// Changes a pack. Its name identifies it, so it stays, and so does its scope.
pub async fn update(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, fields): Posted<Fields, MAX_FORM>,
) -> Response {
    update_to(&fleet, &visitor, &id, fields).await
}

impl Edit for Fields {
    type Record = ScopedPack;

    const CHANGED: &'static str = CHANGED;

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Self::Record, Error> {
        visitor.context.grant::<OsqueryWrite>()?;
        find(fleet, visitor, id).await
    }

    fn version_of(one: &Self::Record) -> String {
        one.pack.version.to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what(_: &Self::Record) -> String {
        "pack".to_owned()
    }

    fn subject(_: &Visitor, one: &Self::Record) -> String {
        format!("pack:{}", one.pack.id)
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, one: &Self::Record) -> Result<Response, Error> {
        let draft = PackDraft { name: one.pack.name.clone(), is_of_all: one.is_of_all, ..self.draft(one.pack.version) };
        let after = fleet.packs().save(&visitor.context, draft).await.map_err(at_field)?;
        Ok(saved(visitor, &after))
    }

    async fn again(self, fleet: &Fleet, visitor: &Visitor, one: &Self::Record, error: Error) -> Response {
        let current = (error.code == CHANGED).then(|| Fields::of(one));
        // The form of a pack that exists does not send what cannot be changed.
        let is_of_all = one.is_of_all.then(|| "1".to_owned());
        let fields = Self { name: one.pack.name.clone(), is_of_all, ..self };
        let made = form_page(fleet, visitor, Some(one), fields, Some(error)).await;
        render(made.map(|shown| PackPage { current, ..shown }), visitor)
    }
}

/// Asks before a pack is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let one = <Fields as Edit>::find(&fleet, &visitor, &id).await?;
        // A dry run finds out whether the person may delete it.
        fleet.packs().delete(&visitor.context.clone().trying(true), &id).await?;
        let title = format!("Delete the pack {}?", one.pack.name);
        let queries = match count(&one.pack.document) {
            1 => "its scheduled query".to_owned(),
            number => format!("its {number} scheduled queries"),
        };
        let of_all = if one.is_of_all { " in all spaces" } else { "" };
        Ok(Confirm {
            text: vec![format!("Hosts{of_all} no longer run {queries}. This cannot be undone.")],
            button: "Delete the pack",
            cli: cli(&visitor, &format!("pack delete {}", shell::argument(&one.pack.name))),
            api: curl(&visitor, "DELETE", &format!("{API}/{}", one.pack.id), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{PATH}/{id}"), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a pack.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        fleet.packs().delete(&visitor.context, &id).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), "The pack is deleted."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_labels_that_do_not_exist_stay_in_the_form() {
        let chosen = ["PILOT".to_owned(), "gone".to_owned()];
        let offered = choices(vec!["macOS".into(), "pilot".into()], &chosen);
        assert_eq!(offered, [("pilot".into(), true), ("gone".into(), true), ("macOS".into(), false)]);
    }
}
