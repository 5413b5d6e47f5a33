//! `/labels`: groups of hosts: list, create, change, delete. Their hosts are in `label_hosts.rs`.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{OsqueryRead, OsqueryWrite, PrivilegeName};
use muster_core::fleetd::platform::Platform;
use muster_core::plural::counted;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::labels::{LabelDraft, LabelKind, LabelView};
use muster_management::error::status_of;
use serde::Deserialize;

use super::TAB;
use super::facts::cut;
use super::label_hosts::{Asked, Members};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, commands, curl, or_placeholder};
use crate::frame::{Frame, page};
use crate::request::{Id, Posted, Pressed};
use crate::settings::{given, lines, shown};
use crate::versioned::{Edit, update_to};
use crate::visitor::{May, Params, Visitor};
use crate::{failure, notice};

/// Path of the list, and of it in the API.
pub const PATH: &str = "/labels";
pub const API: &str = "/api/fleet/labels";
/// Maximum size of the form, bytes: SQL can take three bytes for each of its own.
const MAX_FORM: usize = 900 << 10;
/// Name of the conflict of two editors.
const CHANGED: &str = "label_changed";

#[derive(Template)]
#[template(path = "hosts/labels_list.html")]
struct LabelsPage {
    frame: Frame,
    rows: Vec<Row>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// What pages show of a label.
pub struct Row {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    description: String,
    kind: LabelKind,
    platforms: String,
    hosts: u64,
    failing: u64,
    error: String,
}

impl Row {
    fn new(view: LabelView) -> Self {
        let LabelView { label, kind, hosts, failing, error } = view;
        Self {
            id: label.id.to_string(),
            description: cut(&label.description),
            platforms: if label.platforms.is_empty() { "all".to_owned() } else { label.platforms.join(", ") },
            name: label.name,
            kind,
            hosts,
            failing,
            error,
        }
    }

    /// How hosts get it, in a word.
    fn kind(&self) -> &'static str {
        match self.kind {
            LabelKind::BuiltIn => "built-in",
            LabelKind::Dynamic => "dynamic",
            LabelKind::Manual => "manual",
        }
    }

    fn is_built_in(&self) -> bool {
        self.kind == LabelKind::BuiltIn
    }

    /// Whether people choose its hosts.
    pub fn is_manual(&self) -> bool {
        self.kind == LabelKind::Manual
    }
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let found = fleet.labels().list(&visitor.context.grant()?).await?;
        let mut rows: Vec<Row> = found.into_iter().map(Row::new).collect();
        // What people have made comes first: the built-in labels never change.
        rows.sort_by_key(Row::is_built_in);
        Ok(LabelsPage {
            frame: Frame::new(&visitor, "Labels", TAB),
            rows,
            lacks: visitor.lacks(PrivilegeName::OsqueryWrite),
            cli: cli(&visitor, "label list"),
            api: curl(&visitor, "GET", API, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// The form of a label.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    description: String,
    /// SQL; empty for a manual label.
    query: String,
    platforms: Vec<String>,
    /// Names or ids of hosts, one per line. Only of a new manual label.
    hosts: String,
    /// The version that the form was made from; empty for a new label.
    version: String,
}

impl Fields {
    fn of(view: &LabelView) -> Self {
        let label = &view.label;
        Self {
            name: label.name.clone(),
            description: label.description.clone(),
            query: label.query.clone().unwrap_or_default(),
            platforms: label.platforms.clone(),
            hosts: String::new(),
            version: label.version.to_string(),
        }
    }

    fn draft(&self, kind: LabelKind) -> LabelDraft {
        let is_dynamic = kind == LabelKind::Dynamic;
        LabelDraft {
            name: Some(self.name.clone()),
            description: Some(self.description.clone()),
            query: is_dynamic.then(|| self.query.clone()),
            platforms: (is_dynamic || !self.platforms.is_empty()).then(|| self.platforms.clone()),
        }
    }

    fn has(&self, platform: &str) -> bool {
        self.platforms.iter().any(|one| one == platform)
    }

    fn hosts(&self) -> Vec<String> {
        lines(&self.hosts.replace(',', "\n"))
    }
}

#[derive(Template)]
#[template(path = "hosts/label.html")]
struct LabelPage {
    frame: Frame,
    /// The label as it is stored; `None` for a new one.
    label: Option<Row>,
    fields: Fields,
    /// The stored version, if somebody else has changed it since the form was made.
    current: Option<Fields>,
    /// Its hosts; `None` on the form of a new label.
    members: Option<Members>,
    platforms: [&'static str; 3],
    error: Option<Error>,
    lacks: &'static str,
    cli: String,
    api: String,
}

/// Shows the form of a new label.
pub async fn ask(May { visitor, .. }: May<OsqueryWrite>) -> Response {
    render(&form_page(&visitor, None, Fields::default(), None))
}

fn render(shown: &LabelPage) -> Response {
    page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), shown)
}

fn form_page(visitor: &Visitor, label: Option<Row>, fields: Fields, error: Option<Error>) -> LabelPage {
    let (title, all, method, path) = match &label {
        None => ("Create a label".to_owned(), vec![command("create", "NAME", &fields)], "POST", API.to_owned()),
        Some(row) => {
            let name = shell::argument(&row.name);
            let (all, method) = match row.kind {
                LabelKind::BuiltIn => (vec![format!("label show {name}")], "GET"),
                LabelKind::Dynamic => (vec![command("update", &row.name, &fields)], "PUT"),
                LabelKind::Manual => {
                    (vec![command("update", &row.name, &fields), format!("label add-hosts {name} HOST")], "PUT")
                }
            };
            (format!("Label {}", cut(&row.name)), all, method, format!("{API}/{}", row.id))
        }
    };
    let body = match method {
        "GET" => String::new(),
        _ => body(&fields).to_string(),
    };
    LabelPage {
        frame: Frame::new(visitor, title, TAB),
        current: None,
        members: None,
        platforms: Platform::NAMES,
        lacks: visitor.lacks(PrivilegeName::OsqueryWrite),
        cli: commands(visitor, &all),
        api: curl(visitor, method, &path, &body),
        label,
        fields,
        error,
    }
}

fn command(verb: &str, named: &str, fields: &Fields) -> String {
    let typed = fields.name.trim();
    let subject = if verb == "create" && !typed.is_empty() { typed } else { named };
    let mut command = format!("label {verb} {}", shell::argument(subject));
    let mut add = |flag: &str, value: &str| {
        if !value.trim().is_empty() {
            command += &format!(" {}", shell::option(flag, value.trim()));
        }
    };
    if verb == "update" && typed != named {
        add("--name", typed);
    }
    add("--description", &fields.description);
    add("--query", &fields.query);
    fields.platforms.iter().for_each(|platform| add("--platform", platform));
    fields.hosts().iter().for_each(|host| add("--host", host));
    command
}

fn body(fields: &Fields) -> serde_json::Value {
    let mut body = serde_json::json!({"name": or_placeholder(&fields.name, "NAME"), "description": fields.description});
    if !fields.query.trim().is_empty() {
        body["query"] = fields.query.trim().into();
        body["platforms"] = fields.platforms.clone().into();
    }
    if !fields.hosts().is_empty() {
        body["hosts"] = fields.hosts().into();
    }
    body
}

/// Creates a label.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields, MAX_FORM>) -> Response {
    let kind = if given(&fields.query).is_some() { LabelKind::Dynamic } else { LabelKind::Manual };
    let made = async {
        let grant = visitor.context.grant()?;
        fleet.labels().create(&grant, fields.draft(kind), &fields.hosts()).await
    };
    match made.await {
        Ok(view) => {
            let text = match kind {
                LabelKind::Dynamic => {
                    format!("The label {} is created. Hosts answer it within seconds.", view.label.name)
                }
                _ => format!("The label {} is created, with {}.", view.label.name, counted(view.hosts, "host")),
            };
            notice::redirect(visitor.base.link(format_args!("{PATH}/{}", view.label.id)), &text)
        }
        Err(error) => render(&form_page(&visitor, None, fields, Some(at_field(error)))),
    }
}

/// Names the field of an error that has none.
fn at_field(error: Error) -> Error {
    let field = match error.code {
        "label_exists" => "name",
        // The only thing that a new label refers to.
        "not_found" if error.message.starts_with("host ") => "hosts",
        _ => return error,
    };
    Error { field: Some(field.into()), ..error }
}

/// Shows a label with its hosts.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<Asked>,
) -> Response {
    let made = async {
        let view = fleet.labels().find(&visitor.context.grant::<OsqueryRead>()?, &id).await?;
        with_members(&fleet, &visitor, view, &asked, None).await
    };
    shown(&visitor, TAB, made.await)
}

/// Shows a label again after an act on its hosts has failed.
pub async fn after_failure(fleet: &Fleet, visitor: &Visitor, id: &str, typed: String, error: Error) -> Response {
    let made = async {
        let view = fleet.labels().find(&visitor.context.grant::<OsqueryRead>()?, id).await?;
        let mut shown = with_members(fleet, visitor, view, &Asked::default(), Some(error)).await?;
        shown.members.iter_mut().for_each(|members| members.typed.clone_from(&typed));
        Ok::<_, Error>(shown)
    };
    match made.await {
        Ok(shown) => render(&shown),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

async fn with_members(
    fleet: &Fleet,
    visitor: &Visitor,
    view: LabelView,
    asked: &Asked,
    error: Option<Error>,
) -> Result<LabelPage, Error> {
    let members = Members::of(fleet, visitor, &view, asked).await?;
    let fields = Fields::of(&view);
    let form = form_page(visitor, Some(Row::new(view)), fields, error);
    Ok(LabelPage { members: Some(members), ..form })
}

/// Changes a label.
pub async fn update(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, fields): Posted<Fields, MAX_FORM>,
) -> Response {
    update_to(&fleet, &visitor, &id, fields).await
}

impl Edit for Fields {
    type Record = LabelView;

    const CHANGED: &'static str = CHANGED;

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Self::Record, Error> {
        visitor.context.grant::<OsqueryWrite>()?;
        fleet.labels().find(&visitor.context.grant::<OsqueryRead>()?, id).await
    }

    fn version_of(view: &Self::Record) -> String {
        view.label.version.to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.version
    }

    fn what(_: &Self::Record) -> String {
        "label".to_owned()
    }

    fn subject(_: &Visitor, view: &Self::Record) -> String {
        format!("label:{}", view.label.id)
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, view: &Self::Record) -> Result<Response, Error> {
        let grant = visitor.context.grant()?;
        let (id, version) = (view.label.id.as_str(), view.label.version);
        let after = fleet.labels().update(&grant, id, self.draft(view.kind), Some(version)).await.map_err(at_field)?;
        let link = visitor.base.link(format_args!("{PATH}/{id}"));
        Ok(notice::redirect(link, &format!("The label {} is saved.", after.label.name)))
    }

    async fn again(self, _: &Fleet, visitor: &Visitor, view: &Self::Record, error: Error) -> Response {
        let current = (error.code == CHANGED).then(|| Fields::of(view));
        let row = Row::new(view.clone());
        render(&LabelPage { current, ..form_page(visitor, Some(row), self, Some(error)) })
    }
}

/// Asks before a label is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let trial = visitor.context.clone().trying(true);
        let view = <Fields as Edit>::find(&fleet, &visitor, &id).await?;
        // A dry run finds out whether a host check or a pack still uses it.
        let used = fleet.labels().delete(&trial.grant()?, view.label.id.as_str()).await.err();
        let title = format!("Delete the label {}?", cut(&view.label.name));
        Ok(Confirm {
            text: vec![format!(
                "{} {} the label. Filters and saved lists that name it no longer match any host. This cannot be undone.",
                counted(view.hosts, "host"),
                if view.hosts == 1 { "loses" } else { "lose" }
            )],
            refused: used.map(|error| crate::text::sentence(&error.message)).unwrap_or_default(),
            button: "Delete the label",
            cli: cli(&visitor, &format!("label delete {}", shell::argument(&view.label.name))),
            api: curl(&visitor, "DELETE", &format!("{API}/{}", view.label.id), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{PATH}/{id}"), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a label.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        fleet.labels().delete(&visitor.context.grant()?, &id).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), "The label is deleted."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
