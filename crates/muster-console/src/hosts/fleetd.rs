//! `/fleetd`: the osquery configuration of a space's hosts, and how fleetd gets onto hosts.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use muster_core::agent::Family;
use muster_core::authorization::{AgentsRead, OsqueryRead, OsqueryWrite, PrivilegeName};
use muster_core::plural::counted;
use muster_core::policy::diff::Difference;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_fleet::fleetd_options::SpaceOptions;
use muster_management::error::status_of;
use muster_store::query::{AgentCondition, AgentFilter};
use serde::Deserialize;

use super::TAB;
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::people::People;
use crate::policies::differences::Changes;
use crate::policies::edit::{ProblemRow, problems};
use crate::request::{Posted, Pressed};
use crate::settings::shown;
use crate::text::Moment;
use crate::versioned;
use crate::visitor::Visitor;
use crate::{failure, notice};

/// Path of the page, and of the options in the API.
const PATH: &str = "/fleetd";
const API: &str = "/api/fleet/fleetd_options";
/// Maximum size of the form, bytes: the document can take three bytes for each of its own.
const MAX_FORM: usize = 800 << 10;
/// Code of the conflict of two editors.
const CHANGED: &str = "fleetd_options_changed";

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    text: String,
    /// The version that the form was made from.
    version: String,
    /// The review that was confirmed: [`Fields::seal`] of the text that was reviewed.
    confirmed: String,
}

impl Fields {
    fn seal(&self) -> String {
        let mut hasher = DefaultHasher::new();
        // Not a secret: it only shows whether the text has changed since it was reviewed.
        (&self.text, &self.version).hash(&mut hasher);
        format!("{:x}", hasher.finish())
    }
}

#[derive(Template)]
#[template(path = "hosts/fleetd.html")]
struct FleetdPage {
    frame: Frame,
    fields: Fields,
    is_default: bool,
    updated: Option<(Moment, String)>,
    /// Number of hosts with osquery, as a text; empty for people who may not see them.
    hosts: String,
    /// What the text changes, once it was reviewed, with the confirmation of it.
    review: Option<(Changes, String)>,
    /// The stored text, if somebody else has changed it since the form was made.
    current: String,
    error: Option<Error>,
    problems: Vec<ProblemRow>,
    lacks: &'static str,
    lacks_key: &'static str,
    lacks_reveal: &'static str,
    cli: String,
    api: String,
}

/// Shows the options.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    shown(&visitor, TAB, content(&fleet, &visitor, None).await)
}

async fn content(fleet: &Fleet, visitor: &Visitor, typed: Option<Fields>) -> Result<FleetdPage, Error> {
    let options = fleet.fleetd_options().read(&visitor.context.grant::<OsqueryRead>()?).await?;
    let fields = typed.unwrap_or_else(|| Fields {
        text: options.document().to_owned(),
        version: options.version.to_string(),
        confirmed: String::new(),
    });
    Ok(FleetdPage {
        frame: Frame::new(visitor, "fleetd", TAB),
        is_default: options.is_default(),
        updated: updated(fleet, visitor, &options).await,
        hosts: hosts(fleet, visitor).await?,
        review: None,
        current: String::new(),
        error: None,
        problems: Vec::new(),
        lacks: visitor.lacks(PrivilegeName::OsqueryWrite),
        lacks_key: visitor.lacks(PrivilegeName::EnrollmentCreate),
        lacks_reveal: visitor.lacks(PrivilegeName::EnrollmentReveal),
        cli: ["fleetd-options show > options.yml", "fleetd-options apply -f options.yml"]
            .map(|words| cli(visitor, words))
            .join("\n"),
        api: curl(visitor, "GET", API, ""),
        fields,
    })
}

async fn updated(fleet: &Fleet, visitor: &Visitor, options: &SpaceOptions) -> Option<(Moment, String)> {
    let at = Moment::new(options.updated_at()?, fleet.now());
    let by = People::new(fleet, visitor).name(options.updated_by.as_deref().unwrap_or_default()).await;
    Some((at, by))
}

/// Returns the number of hosts that get the options.
async fn hosts(fleet: &Fleet, visitor: &Visitor) -> Result<String, Error> {
    let Ok(grant) = visitor.context.grant::<AgentsRead>() else { return Ok(String::new()) };
    // Counted by osqueryd, which is what runs with these options.
    let osquery = AgentFilter::all([AgentCondition::Families(vec![Family::Osquery])]);
    let counts = fleet.agents().count(&grant, &osquery).await?;
    Ok(counted(counts.into_iter().map(|(_, count)| count).sum::<u64>(), "host"))
}

/// Reviews a text; with the confirmation of the review, saves it.
pub async fn save(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields, MAX_FORM>) -> Response {
    match saved(&fleet, &visitor, &fields).await {
        Ok(None) => notice::redirect(visitor.base.link(PATH), "The options are saved. Hosts get them soon."),
        Ok(Some(found)) => {
            let review = Some((Changes::of(found), fields.seal()));
            let made = content(&fleet, &visitor, Some(fields)).await;
            shown(&visitor, TAB, made.map(|shown| FleetdPage { review, ..shown }))
        }
        Err(error) => again(&fleet, &visitor, fields, error).await,
    }
}

/// Returns the differences to review; `None` if the options were saved.
async fn saved(fleet: &Fleet, visitor: &Visitor, fields: &Fields) -> Result<Option<Vec<Difference>>, Error> {
    let is_reviewed = fields.confirmed == fields.seal();
    // The review is a dry run of the same change, so it finds the same errors.
    let context = visitor.context.clone().trying(!is_reviewed);
    let version = fields.version.parse().map_err(|_| Error::invalid("version", "is not a number"))?;
    let text = Some(fields.text.clone());
    let (_, differences) = fleet.fleetd_options().update(&context.grant()?, text, Some(version)).await?;
    Ok((!is_reviewed).then_some(differences))
}

/// Shows the form again, with what is wrong with it.
async fn again(fleet: &Fleet, visitor: &Visitor, mut fields: Fields, error: Error) -> Response {
    let options = async { fleet.fleetd_options().read(&visitor.context.grant::<OsqueryRead>()?).await };
    let options = match options.await {
        Ok(options) => options,
        Err(error) => return failure::inside(visitor, &error, TAB),
    };
    let (mut error, mut current) = (error, String::new());
    if error.code == CHANGED {
        options.document().clone_into(&mut current);
        fields.version = options.version.to_string();
        let (by, at) = (options.updated_by.as_deref().unwrap_or_default(), options.updated_at());
        let at = at.unwrap_or_else(|| fleet.now());
        error = Error::new(ErrorKind::Conflict, CHANGED, versioned::by(fleet, visitor, by, at, "options").await)
            .remedy("the stored text is below; review and save again to overwrite it");
    }
    let status = status_of(error.kind);
    match content(fleet, visitor, Some(fields)).await {
        Ok(shown) => page(status, &FleetdPage { problems: problems(&error), current, error: Some(error), ..shown }),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

/// Asks before the options are reset to the default.
pub async fn ask_to_reset(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let trial = visitor.context.clone().trying(true);
        let (_, differences) = fleet.fleetd_options().update(&trial.grant::<OsqueryWrite>()?, None, None).await?;
        let hosts = hosts(&fleet, &visitor).await?;
        let of_hosts = if hosts.is_empty() { String::new() } else { format!(" of {hosts}") };
        // A text that only spells out the default changes nothing for hosts.
        let changes = match differences.len() {
            0 => "does not change".to_owned(),
            number => format!("changes in {}", counted(number, "difference")),
        };
        let title = "Reset the options to the default?";
        let (action, back) = (visitor.base.link(format_args!("{PATH}/reset")), visitor.base.link(PATH));
        Ok(Confirm {
            text: vec![format!("The configuration{of_hosts} {changes}. The current text is deleted.")],
            button: "Reset to the default",
            cli: cli(&visitor, "fleetd-options reset"),
            api: curl(&visitor, "DELETE", API, ""),
            ..Confirm::new(&visitor, title, TAB, action, back)
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Resets the options to the default.
pub async fn reset(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed) -> Response {
    let made = async {
        fleet.fleetd_options().update(&visitor.context.grant()?, None, None).await?;
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), "The options are reset to the default."))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
