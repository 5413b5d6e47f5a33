//! The form of an object that policies refer to.

use std::marker::PhantomData;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::connection_test::Tested;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_management::error::status_of;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::TAB;
use super::super::side::Side;
use super::inputs::{AGAIN, SECRET, Shape, Typed, join, located, split};
use super::known::Hints;
use super::review::Review;
use super::view::{Shown, inputs, of_document};
use super::{Draft, Kind, Record, address};
use crate::elsewhere::{cli, curl, or_placeholder};
use crate::frame::{Frame, page};
use crate::request::{Id, Posted};
use crate::versioned::{Edit, Field, update_to};
use crate::visitor::Visitor;
use crate::{failure, notice, terraform};

/// Step of the form that connects to what it describes.
const TEST: &str = "test";
/// Maximum size of the form, bytes. A document contains certificates of some kilobytes.
const MAX_FORM: usize = 512 << 10;

/// What was typed.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    kind: String,
    is_default: Option<String>,
    is_default_monitoring: Option<String>,
    /// All fields without an input.
    yaml: String,
    /// The time of the last change that the form was made from; empty for a new object.
    seen: String,
    /// `test` connects to it instead of saving it.
    step: String,
    /// What was confirmed: the seal of a [`Review`].
    confirmed: String,
    /// What was typed into the inputs of the kind, by their names.
    #[serde(flatten)]
    inputs: Typed,
}

/// What decides about an object: name, type, defaults, document and inputs.
type Decisive<'f> = (&'f str, &'f str, bool, bool, &'f str, Vec<(&'f str, &'f str)>);

impl Fields {
    /// Returns what decides about the object. Of a secret, only that it is set, because it is entered again.
    pub fn typed(&self) -> Decisive<'_> {
        let is_set = |flag: &Option<String>| flag.is_some();
        let inputs = self.inputs.iter().filter(|(_, text)| !text.trim().is_empty()).map(|(name, text)| {
            let secret = name.strip_prefix(SECRET).or_else(|| name.strip_prefix(AGAIN));
            secret.map_or((name.as_str(), text.trim()), |secret| (secret, "set"))
        });
        let mut inputs: Vec<_> = inputs.collect();
        inputs.sort_unstable();
        inputs.dedup();
        (&self.name, &self.kind, is_set(&self.is_default), is_set(&self.is_default_monitoring), &self.yaml, inputs)
    }
}

/// What the form shows besides the fields.
enum Outcome {
    /// Nothing.
    Nothing,
    /// The result of a connection test.
    Tested(Vec<Tested>),
    /// What saving would change.
    Review(Review),
    /// Why it was not saved.
    Failed(Error),
}

#[derive(Template)]
#[template(path = "settings/object.html")]
struct ObjectPage {
    frame: Frame,
    side: Side,
    path: &'static str,
    /// `this output`.
    what: String,
    id: String,
    fields: Fields,
    inputs: Vec<Shown>,
    hints: Hints,
    types: &'static [&'static str],
    has_default: bool,
    lacks: &'static str,
    error: Option<Error>,
    /// The error about the document.
    of_yaml: Option<Error>,
    /// The object as somebody else has changed it in the meantime.
    current: String,
    health: Option<(String, String)>,
    tested: Option<Vec<Tested>>,
    review: Option<Review>,
    cli: String,
    api: String,
    terraform: String,
}

impl ObjectPage {
    /// Whether every address of the test can be used.
    fn has_passed(&self) -> bool {
        self.tested.iter().flatten().all(Tested::is_usable)
    }
}

/// Shows the form of a new object.
pub async fn ask<K: Kind>(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    if let Err(error) = visitor.context.check(K::WRITE) {
        return failure::inside(&visitor, &error.into(), TAB);
    }
    let fields = Fields { kind: K::TYPES.first().copied().unwrap_or_default().to_owned(), ..Fields::default() };
    render::<K>(&fleet, &visitor, None, fields, Outcome::Nothing).await
}

/// Shows an object with its form.
pub async fn show<K: Kind>(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    match K::find(&fleet, &visitor.context, &id).await {
        Ok(record) => render::<K>(&fleet, &visitor, Some(&record), fields_of::<K>(&record), Outcome::Nothing).await,
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

fn fields_of<K: Kind>(record: &Record) -> Fields {
    let (inputs, rest) = split(K::INPUTS, &record.kind, &record.fields);
    let flag = |is_set: bool| is_set.then(|| "1".to_owned());
    Fields {
        name: record.name.clone(),
        kind: record.kind.clone(),
        is_default: flag(record.is_default),
        is_default_monitoring: flag(record.is_default_monitoring),
        yaml: yaml(&rest),
        inputs,
        seen: record.updated_at.as_micros().to_string(),
        step: String::new(),
        confirmed: String::new(),
    }
}

fn yaml(fields: &Map<String, Value>) -> String {
    if fields.is_empty() {
        return String::new();
    }
    serde_saphyr::to_string(fields).unwrap_or_else(|_| Value::Object(fields.clone()).to_string())
}

async fn render<K: Kind>(
    fleet: &Fleet,
    visitor: &Visitor,
    record: Option<&Record>,
    fields: Fields,
    outcome: Outcome,
) -> Response {
    let (mut tested, mut review, mut errors) = (None, None, Vec::new());
    match outcome {
        Outcome::Nothing => {}
        Outcome::Tested(found) => tested = Some(found),
        Outcome::Review(found) => review = Some(found),
        Outcome::Failed(found) => errors = located(K::INPUTS, &found, &OWN),
    }
    let id = record.map(|record| record.id.clone()).unwrap_or_default();
    let health = match record {
        Some(record) => K::health(fleet, &visitor.context, &record.id).await,
        None => Ok(None),
    };
    let current = record.filter(|_| errors.iter().any(|error| error.code == CHANGED)).map(stored);
    let title = record.map_or_else(|| K::NEW_TITLE.to_owned(), |record| record.name.clone());
    let (cli, api, terraform) = copies::<K>(visitor, &id, &fields);
    let page_of = ObjectPage {
        frame: Frame::new(visitor, title, TAB),
        side: Side::new(visitor, K::LIST),
        path: K::LIST,
        what: K::THE.replacen("The ", "this ", 1),
        id,
        inputs: inputs::<K>(fleet, visitor, record, &fields.inputs, &errors).await,
        hints: K::HINTS,
        types: K::TYPES,
        has_default: K::HAS_DEFAULT,
        lacks: visitor.lacks(K::WRITE),
        current: current.unwrap_or_default(),
        health: health.ok().flatten(),
        tested,
        review,
        of_yaml: of_document(&errors),
        fields,
        cli,
        api,
        terraform,
        error: errors.into_iter().next(),
    };
    page(page_of.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &page_of)
}

/// Fields that the form of every object has.
const OWN: [&str; 4] = ["name", "type", "is_default", "is_default_monitoring"];

/// Code of the error for an object that somebody else has changed.
const CHANGED: &str = "changed_meanwhile";

fn stored(record: &Record) -> String {
    format!("name: {}\n{}", record.name, yaml(&record.fields))
}

fn copies<K: Kind>(visitor: &Visitor, id: &str, fields: &Fields) -> (String, String, String) {
    // Requests are copied without secrets.
    let mut open = fields.inputs.clone();
    open.retain(|name, _| K::INPUTS.iter().any(|input| input.name == name));
    let parsed = members(&fields.yaml).unwrap_or_default();
    let parsed = join(K::INPUTS, &fields.kind, &open, parsed.clone(), &Map::new()).unwrap_or(parsed);
    let mut body = parsed.clone();
    let name = or_placeholder(&fields.name, "NAME");
    body.insert("name".into(), json!(name));
    if !K::TYPES.is_empty() {
        body.insert("type".into(), json!(fields.kind));
    }
    let address = match address(&parsed) {
        none if none.is_empty() => "ADDRESS".to_owned(),
        address => shell::argument(&address),
    };
    let (method, path, verb) = match id {
        "" => ("POST", K::API.to_owned(), format!("create {} --address {address}", shell::argument(name))),
        id => ("PUT", format!("{}/{id}", K::API), format!("show {}", shell::argument(id))),
    };
    let mut attributes: terraform::Attributes = Vec::new();
    if !K::TYPES.is_empty() {
        attributes.push(("type", json!(fields.kind)));
    }
    let field = |name: &str| parsed.get(name).cloned().unwrap_or_default();
    attributes.extend(K::ATTRIBUTES.iter().map(|(attribute, name)| (*attribute, field(name))));
    let flags = [fields.is_default.is_some(), fields.is_default_monitoring.is_some()];
    attributes.extend(K::FLAGS.iter().copied().zip(flags.map(Value::from)));
    let terraform = terraform::resource(visitor, K::TERRAFORM, name, attributes);
    let api = curl(visitor, method, &path, &Value::Object(body).to_string());
    // The command line has no command that creates an output.
    let has_command = !id.is_empty() || K::TYPES.is_empty();
    let command = if has_command { cli(visitor, &format!("{} {verb}", K::CLI)) } else { String::new() };
    (command, api, terraform)
}

/// Parses the document of the form.
fn members(text: &str) -> Result<Map<String, Value>, Error> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let parsed: Value =
        serde_saphyr::from_str(text).map_err(|error| Error::invalid("yaml", format!("cannot be parsed: {error}")))?;
    match parsed {
        Value::Object(members) => Ok(members),
        _ => Err(Error::invalid("yaml", "must consist of lines such as `name: value`")),
    }
}

/// Returns the draft of a form. Fields that are no longer in the document are removed.
fn draft<K: Kind>(fields: &Fields, before: Option<&Record>) -> Result<Draft, Error> {
    let changed = members(&fields.yaml)?;
    for own in ["id"].iter().chain(&OWN) {
        if changed.contains_key(*own) {
            return Err(Error::invalid("yaml", format!("`{own}` does not belong here: it is a field of the form")));
        }
    }
    let stored = before.map(|record| record.fields.clone()).unwrap_or_default();
    let mut changed = join(K::INPUTS, &fields.kind, &fields.inputs, changed, &stored)?;
    for known in stored.keys() {
        changed.entry(known.clone()).or_insert(Value::Null);
    }
    Ok(Draft {
        name: fields.name.clone(),
        kind: (!K::TYPES.is_empty()).then(|| fields.kind.clone()),
        is_default: fields.is_default.is_some(),
        is_default_monitoring: fields.is_default_monitoring.is_some(),
        fields: changed,
    })
}

/// Connects to what the form describes, and shows the form with the result. Nothing is saved.
async fn tested<K: Kind>(fleet: &Fleet, visitor: &Visitor, record: Option<&Record>, fields: Fields) -> Response {
    let id = record.map(|record| record.id.as_str()).unwrap_or_default();
    let made = async { K::test(fleet, &visitor.context, id, draft::<K>(&fields, record)?).await };
    let outcome = made.await.map_or_else(Outcome::Failed, Outcome::Tested);
    render::<K>(fleet, visitor, record, fields, outcome).await
}

/// Creates an object.
pub async fn create<K: Kind>(
    State(fleet): State<Arc<Fleet>>,
    Posted(visitor, fields): Posted<Fields, MAX_FORM>,
) -> Response {
    if fields.step == TEST {
        return tested::<K>(&fleet, &visitor, None, fields).await;
    }
    let made = async { K::create(&fleet, &visitor.context, draft::<K>(&fields, None)?).await };
    match made.await {
        Ok(record) => saved::<K>(&visitor, &record, "is created"),
        Err(error) => render::<K>(&fleet, &visitor, None, fields, Outcome::Failed(error)).await,
    }
}

/// Changes an object.
pub async fn update<K: Kind>(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, fields): Posted<Fields, MAX_FORM>,
) -> Response {
    if fields.step == TEST {
        return match K::find(&fleet, &visitor.context, &id).await {
            Ok(record) => tested::<K>(&fleet, &visitor, Some(&record), fields).await,
            Err(error) => failure::inside(&visitor, &error, TAB),
        };
    }
    update_to(&fleet, &visitor, &id, OfKind::<K>(fields, PhantomData)).await
}

/// The form of a kind.
struct OfKind<K>(Fields, PhantomData<fn() -> K>);

impl<K: Kind> Edit for OfKind<K> {
    type Record = Record;

    const CHANGED: &'static str = CHANGED;

    async fn find(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Record, Error> {
        K::find(fleet, &visitor.context, id).await
    }

    fn version_of(record: &Record) -> String {
        record.updated_at.as_micros().to_string()
    }

    fn version(&mut self) -> &mut String {
        &mut self.0.seen
    }

    fn what(record: &Self::Record) -> String {
        format!("{} {:?}", K::THE.trim_start_matches("The "), record.name)
    }

    fn subject(_: &Visitor, record: &Self::Record) -> String {
        // The audit log has underscores in the words of the command line.
        format!("{}:{}", K::CLI.replace('-', "_"), record.id)
    }

    fn fields(&self, record: &Record) -> Vec<Field> {
        let flag = |is_set: bool| if is_set { "yes" } else { "no" }.to_owned();
        let (typed, stored) = (&self.0, fields_of::<K>(record));
        vec![
            ("name", typed.name.clone(), stored.name),
            ("type", typed.kind.clone(), stored.kind),
            ("default", flag(typed.is_default.is_some()), flag(record.is_default)),
            (
                "default for monitoring data",
                flag(typed.is_default_monitoring.is_some()),
                flag(record.is_default_monitoring),
            ),
        ]
    }

    async fn save(&self, fleet: &Fleet, visitor: &Visitor, before: &Record) -> Result<Response, Error> {
        let draft = draft::<K>(&self.0, Some(before))?;
        let revised = K::revised(fleet, &visitor.context, &before.id, draft.clone()).await?;
        // One object can cut off every agent, so the person sees first whom the change reaches.
        if let Some(review) = Review::of(fleet, visitor, &self.0, revised).await?
            && review.seal != self.0.confirmed
        {
            return Ok(render::<K>(fleet, visitor, Some(before), self.0.clone(), Outcome::Review(review)).await);
        }
        let record = K::update(fleet, &visitor.context, &before.id, draft).await?;
        Ok(saved::<K>(visitor, &record, "is saved"))
    }

    async fn again(self, fleet: &Fleet, visitor: &Visitor, before: &Record, error: Error) -> Response {
        render::<K>(fleet, visitor, Some(before), self.0, Outcome::Failed(error)).await
    }
}

fn saved<K: Kind>(visitor: &Visitor, record: &Record, done: &str) -> Response {
    notice::redirect(visitor.base.link(K::LIST), &format!("{} {:?} {done}.", K::THE, record.name))
}
