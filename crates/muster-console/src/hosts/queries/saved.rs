//! `/queries/saved/{id}`: saved queries: create, change, delete.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{OsqueryWrite, PrivilegeName};
use muster_core::saved_query::SavedQuery;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::saved_queries::SavedQueryDraft;
use muster_management::error::status_of;
use serde::Deserialize;

use super::{PATH, SAVED_API, TAB};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::request::{Id, Posted, Pressed};
use crate::settings::shown;
use crate::versioned::{Edit, update_to};
use crate::visitor::{May, Visitor};
use crate::{failure, notice};

/// Maximum size of the form, bytes: SQL can take three bytes for each of its own.
const MAX_FORM: usize = 256 << 10;
/// Code of the error about a change by somebody else.
const CHANGED: &str = "saved_query_changed";

/// The form of a saved query.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    description: String,
    sql: String,
    /// Empty, or `1`: only people who may run any SQL may run it.
    restricted: String,
    /// The version that the form was made from; empty for a new query.
    version: String,
}

impl Fields {
    fn of(query: &SavedQuery) -> Self {
        Self {
            name: query.name.clone(),
            description: query.description.clone(),
            sql: query.sql.clone(),
            restricted: if query.is_restricted { "1" } else { "" }.to_owned(),
            version: query.version.to_string(),
        }
    }

    fn draft(&self) -> SavedQueryDraft {
        SavedQueryDraft {
            name: self.name.clone(),
            description: self.description.clone(),
            sql: self.sql.clone(),
            is_restricted: self.is_restricted(),
        }
    }

    fn is_restricted(&self) -> bool {
        !self.restricted.is_empty()
    }
}

#[derive(Template)]
#[template(path = "hosts/query_saved.html")]
struct SavedPage {
    frame: Frame,
    /// Empty for a new query.
    id: String,
    fields: Fields,
    /// The stored version, if somebody else has changed it since the form was made.
    current: Option<Fields>,
    error: Option<Error>,
    lacks: &'static str,
    lacks_run: &'static str,
    cli: String,
    api: String,
}

/// Shows the form of a new query.
pub async fn ask(May { visitor, .. }: May<OsqueryWrite>) -> Response {
    render(&form_page(&visitor, "", Fields::default(), None))
}

fn render(shown: &SavedPage) -> Response {
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), shown)
}

fn form_page(visitor: &Visitor, id: &str, fields: Fields, error: Option<Error>) -> SavedPage {
    let name = if fields.name.trim().is_empty() { "NAME" } else { fields.name.trim() };
    let command = format!(
        "query save {} {} {}{}",
        shell::argument(name),
        shell::word(fields.sql.trim()),
        shell::option("--description", &fields.description),
        if fields.is_restricted() { " --restricted" } else { "" }
    );
    let mut body = serde_json::json!({"name": name, "sql": fields.sql, "description": fields.description});
    if fields.is_restricted() {
        body["restricted"] = true.into();
    }
    SavedPage {
        frame: Frame::new(
            visitor,
            if id.is_empty() { "Save a query".to_owned() } else { format!("Query {name}") },
            TAB,
        ),
        id: id.to_owned(),
        current: None,
        lacks: visitor.lacks(PrivilegeName::OsqueryWrite),
        lacks_run: visitor.lacks(PrivilegeName::QueriesRunSaved),
        cli: cli(visitor, &command),
        api: curl(visitor, "POST", SAVED_API, &body.to_string()),
        fields,
        error,
    }
}

/// Returns the saved query with this id.
async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<SavedQuery, Error> {
    let all = fleet.saved_queries().list(&visitor.context).await?;
    all.into_iter().find(|query| query.id.as_str() == id).ok_or_else(|| Error::not_found("saved query", id))
}

/// Saves a new query. A name that is taken is not replaced here: the person has not seen what it would replace.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields, MAX_FORM>) -> Response {
    let made = async { fleet.saved_queries().create(&visitor.context.grant()?, fields.draft()).await };
    match made.await {
        Ok(query) => saved(&visitor, &query),
        Err(error) => {
            let is_taken = error.code == "saved_query_exists";
            let error = if is_taken { Error { field: Some("name".into()), ..error } } else { error };
            render(&form_page(&visitor, "", fields, Some(error)))
        }
    }
}

fn saved(visitor: &Visitor, query: &SavedQuery) -> Response {
    notice::redirect(
        visitor.base.link(format_args!("{PATH}/saved/{}", query.id)),
        &format!("The query {} is saved.", query.name),
    )
}

/// Shows a saved query.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let query = find(&fleet, &visitor, &id).await?;
        Ok(form_page(&visitor, &id, Fields::of(&query), None))
    };
    shown(&visitor, TAB, made.await)
}

/// Changes a saved query. Its name identifies it, so it stays.
pub async fn update(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, fields): Posted<Fields, MAX_FORM>,
) -> Response {
    update_to(&fleet, &visitor, &id, fields).await
}

impl Edit for Fields {
    type Record = SavedQuery;

    const CHANGED: &'static str = CHANGED;

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<SavedQuery, Error> {
        find(fleet, visitor, id).await
    }

    fn version_of(query: &SavedQuery) -> String {
        query.version.to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what(_: &Self::Record) -> String {
        "query".to_owned()
    }

    fn subject(_: &Visitor, query: &Self::Record) -> String {
        format!("saved_query:{}", query.id)
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, query: &SavedQuery) -> Result<Response, Error> {
        let draft = SavedQueryDraft { name: query.name.clone(), ..self.draft() };
        let query = fleet.saved_queries().save(&visitor.context.grant()?, draft, Some(query.version)).await?;
        Ok(saved(visitor, &query))
    }

    async fn again(self, _: &Fleet, visitor: &Visitor, query: &SavedQuery, error: Error) -> Response {
        let current = (error.code == CHANGED).then(|| Self::of(query));
        let fields = Self { name: query.name.clone(), ..self };
        let form = form_page(visitor, query.id.as_str(), fields, Some(error));
        render(&SavedPage { current, ..form })
    }
}

/// Asks before a saved query is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        visitor.context.grant::<OsqueryWrite>()?;
        let query = find(&fleet, &visitor, &id).await?;
        let title = format!("Delete the query {}?", query.name);
        Ok(Confirm {
            text: vec![
                "People who may run only saved queries can no longer run it. Its results are kept. This \
                 cannot be undone."
                    .to_owned(),
            ],
            button: "Delete the query",
            cli: cli(&visitor, &format!("query delete {}", shell::argument(&query.name))),
            api: curl(&visitor, "DELETE", &format!("{SAVED_API}/{id}"), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{PATH}/saved/{id}"), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a saved query.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        fleet.saved_queries().delete(&visitor.context.grant()?, &id).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), "The query is deleted."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
