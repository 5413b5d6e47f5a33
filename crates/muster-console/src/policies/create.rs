//! `/policies/new`: creates a policy, and opens the editor with a template.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::PoliciesCreate;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::policies::PolicyDraft;
use muster_management::error::status_of;
use serde::Deserialize;
use serde_json::json;

use super::TAB;
use crate::elsewhere::{cli, curl, or_placeholder};
use crate::frame::{Frame, page};
use crate::request::Posted;
use crate::visitor::{May, Visitor};
use crate::{notice, terraform};

/// A configuration to begin with.
pub struct Sample {
    /// Word in URLs.
    pub id: &'static str,
    /// Name.
    pub title: &'static str,
    /// The configuration, indented as in a policy file.
    pub config: &'static str,
}

/// The templates.
pub static TEMPLATES: [Sample; 3] = [
    Sample {
        id: "logs",
        title: "System logs to Elasticsearch",
        config: include_str!("../../templates/policies/logs.yml"),
    },
    Sample { id: "kafka", title: "Log files to Kafka", config: include_str!("../../templates/policies/kafka.yml") },
    Sample {
        id: "process",
        title: "A program that muster-agent keeps running",
        config: include_str!("../../templates/policies/process.yml"),
    },
];

/// Finds a template.
pub fn template(id: &str) -> Option<&'static Sample> {
    TEMPLATES.iter().find(|template| template.id == id)
}

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    description: String,
    template: String,
}

#[derive(Template)]
#[template(path = "policies/new.html")]
struct NewPage<'a> {
    frame: Frame,
    fields: &'a Fields,
    templates: &'static [Sample],
    error: Option<&'a Error>,
    cli: String,
    api: String,
    terraform: String,
}

/// Shows the form.
pub async fn show(May { visitor, .. }: May<PoliciesCreate>) -> Response {
    form_page(&visitor, &Fields::default(), None)
}

fn form_page(visitor: &Visitor, fields: &Fields, error: Option<&Error>) -> Response {
    let name = or_placeholder(&fields.name, "NAME");
    let body = json!({"name": name, "namespace": "default"});
    let attributes = vec![("namespace", json!("default")), ("description", json!(fields.description))];
    let shown = NewPage {
        frame: Frame::new(visitor, "Create a policy", TAB),
        templates: &TEMPLATES,
        cli: cli(visitor, &format!("policy create {}", shell::argument(name))),
        api: curl(visitor, "POST", "/api/fleet/agent_policies", &body.to_string()),
        terraform: terraform::resource(visitor, "elasticstack_fleet_agent_policy", name, attributes),
        fields,
        error,
    };
    page(error.map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Creates the policy, without a configuration: that of a template is reviewed in the editor first.
pub async fn create(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    match created(&fleet, &visitor, &fields).await {
        Ok(response) => response,
        Err(error) => form_page(&visitor, &fields, Some(&at_field(error))),
    }
}

async fn created(fleet: &Fleet, visitor: &Visitor, fields: &Fields) -> Result<Response, Error> {
    let draft = PolicyDraft {
        name: Some(fields.name.clone()),
        description: Some(fields.description.clone()),
        ..PolicyDraft::default()
    };
    let policy = fleet.policies().create(&visitor.context.grant()?, draft).await?.policy;
    let page = format!("{TAB}/{}", policy.id);
    let made = format!("Created the policy {}, and an enrollment key of the same name.", policy.name);
    Ok(match template(&fields.template) {
        Some(template) => {
            notice::redirect(visitor.base.link(format_args!("{page}/edit?template={}", template.id)), &made)
        }
        None => notice::redirect(visitor.base.link(page), &made),
    })
}

/// Names the field of an error that has none.
pub fn at_field(error: Error) -> Error {
    if error.code == "policy_name_taken" { Error { field: Some("name".into()), ..error } } else { error }
}
