//! `/scripts/saved/{id}`: saved scripts: create, change, delete.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PrivilegeName, ScriptsWrite};
use muster_core::script::SavedScript;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::scripts::SavedScriptDraft;
use muster_management::error::status_of;
use serde::Deserialize;

use super::super::TAB;
use super::{MAX_FORM, PATH, SAVED_API};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::request::{Id, Posted, Pressed};
use crate::versioned::{Edit, update_to};
use crate::visitor::{May, Visitor};
use crate::{confirm, failure, notice};

/// Code of the error about a change by somebody else.
const CHANGED: &str = "saved_script_changed";

/// The form of a saved script.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    description: String,
    script: String,
    /// The version that the form was made from; empty for a new script.
    version: String,
}

impl Fields {
    fn of(script: &SavedScript) -> Self {
        Self {
            name: script.name.clone(),
            description: script.description.clone(),
            script: script.script.clone(),
            version: script.version.to_string(),
        }
    }

    fn draft(&self) -> SavedScriptDraft {
        SavedScriptDraft { name: self.name.clone(), description: self.description.clone(), script: self.script.clone() }
    }
}

#[derive(Template)]
#[template(path = "hosts/script_saved.html")]
struct SavedPage {
    frame: Frame,
    /// Empty for a new script.
    id: String,
    fields: Fields,
    /// The stored version, if somebody else has changed it since the form was made.
    current: Option<Fields>,
    error: Option<Error>,
    lacks: &'static str,
    lacks_read: &'static str,
    lacks_run: &'static str,
    cli: String,
    api: String,
}

/// Shows the form of a new script.
pub async fn ask(May { visitor, .. }: May<ScriptsWrite>) -> Response {
    render(&form_page(&visitor, "", Fields::default(), None))
}

fn render(shown: &SavedPage) -> Response {
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), shown)
}

fn form_page(visitor: &Visitor, id: &str, fields: Fields, error: Option<Error>) -> SavedPage {
    let name = if fields.name.trim().is_empty() { "NAME" } else { fields.name.trim() };
    let mut command = format!("script save {} script.sh", shell::argument(name));
    if !fields.description.trim().is_empty() {
        command += &format!(" {}", shell::option("--description", fields.description.trim()));
    }
    let body = serde_json::json!({"name": name, "script": fields.script,
        "description": fields.description});
    let title = if id.is_empty() { "Save a script".to_owned() } else { format!("Script {name}") };
    let lacks_read = if id.is_empty() { "" } else { visitor.lacks(PrivilegeName::ScriptsRead) };
    SavedPage {
        frame: Frame::new(visitor, title, TAB),
        id: id.to_owned(),
        current: None,
        // Without read access, saving would replace the script with an empty one.
        lacks: match visitor.lacks(PrivilegeName::ScriptsWrite) {
            "" => lacks_read,
            lacks => lacks,
        },
        lacks_read,
        lacks_run: visitor.lacks(PrivilegeName::ScriptsRun),
        cli: cli(visitor, &command),
        api: curl(visitor, "POST", SAVED_API, &body.to_string()),
        fields,
        error,
    }
}

/// Saves a new script. A name that is taken is not replaced here: the person has not seen what it would replace.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields, MAX_FORM>) -> Response {
    let made = async { fleet.scripts().save(&visitor.context.grant()?, fields.draft(), Some(0)).await };
    match made.await {
        Ok(script) => saved(&visitor, &script),
        Err(error) => {
            let is_taken = error.code == "saved_script_exists";
            let error = if is_taken { Error { field: Some("name".into()), ..error } } else { error };
            render(&form_page(&visitor, "", fields, Some(error)))
        }
    }
}

fn saved(visitor: &Visitor, script: &SavedScript) -> Response {
    notice::redirect(
        visitor.base.link(format_args!("{PATH}/saved/{}", script.id)),
        &format!("The script {} is saved.", script.name),
    )
}

/// Returns the saved script with this id; the look-up also finds names.
async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<SavedScript, Error> {
    let found = fleet.scripts().show_saved(&visitor.context, id).await?;
    if found.id.as_str() == id { Ok(found) } else { Err(Error::not_found("saved script", id)) }
}

/// Shows a saved script.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    match find(&fleet, &visitor, &id).await {
        Ok(script) => render(&form_page(&visitor, &id, Fields::of(&script), None)),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

/// Changes a saved script. Its name identifies it, so it stays.
pub async fn update(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, fields): Posted<Fields, MAX_FORM>,
) -> Response {
    update_to(&fleet, &visitor, &id, fields).await
}

impl Edit for Fields {
    type Record = SavedScript;

    const CHANGED: &'static str = CHANGED;

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<SavedScript, Error> {
        find(fleet, visitor, id).await
    }

    fn version_of(script: &SavedScript) -> String {
        script.version.to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what(_: &Self::Record) -> String {
        "script".to_owned()
    }

    fn subject(_: &Visitor, script: &Self::Record) -> String {
        format!("saved_script:{}", script.id)
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, script: &SavedScript) -> Result<Response, Error> {
        let draft = SavedScriptDraft { name: script.name.clone(), ..self.draft() };
        let script = fleet.scripts().save(&visitor.context.grant()?, draft, Some(script.version)).await?;
        Ok(saved(visitor, &script))
    }

    async fn again(self, _: &Fleet, visitor: &Visitor, script: &SavedScript, error: Error) -> Response {
        let current = (error.code == CHANGED).then(|| Self::of(script));
        let fields = Self { name: script.name.clone(), ..self };
        let form = form_page(visitor, script.id.as_str(), fields, Some(error));
        render(&SavedPage { current, ..form })
    }
}

/// Asks before a saved script is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        visitor.context.grant::<ScriptsWrite>()?;
        let script = find(&fleet, &visitor, &id).await?;
        let title = format!("Delete the script {}?", script.name);
        Ok(Confirm {
            text: vec!["Runs of it go on, and their results are kept. This cannot be undone.".to_owned()],
            button: "Delete the script",
            cli: cli(&visitor, &format!("script delete {}", shell::argument(&script.name))),
            api: curl(&visitor, "DELETE", &format!("{SAVED_API}/{id}"), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{PATH}/saved/{id}"), "delete")
        })
    };
    confirm::shown(&visitor, TAB, made.await)
}

/// Deletes a saved script.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        fleet.scripts().delete_saved(&visitor.context.grant()?, &id).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), "The script is deleted."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
