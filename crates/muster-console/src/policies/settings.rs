//! `/policies/{id}/settings`: the settings of a policy as a form. Its changes are reviewed like those of the editor.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PoliciesRead, PrivilegeName};
use muster_core::policy::{Policy, file};
use muster_core::{Error, ErrorKind, shell};
use muster_fleet::Fleet;
use muster_fleet::network_objects::{NetworkFamily, NetworkObjects};
use muster_fleet::policies::version_token;
use muster_management::error::status_of;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::change::Draft;
use super::text::of_fields;
use super::{API, TAB, review};
use crate::durations;
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::request::{Id, Posted};
use crate::visitor::Visitor;

/// Settings that are references to other objects.
const REFERENCES: [&str; 4] = ["data_output_id", "monitoring_output_id", "fleet_server_host_id", "download_source_id"];
/// What agents may send about themselves.
const MONITORING: [(&str, &str); 4] = [
    ("logs", "logs"),
    ("metrics", "metrics"),
    ("logs,metrics", "logs and metrics"),
    ("logs,metrics,traces", "logs, metrics and traces"),
];

/// The form. A check box is empty if it is not checked.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    version: String,
    revision: Option<i64>,
    force: String,
    name: String,
    description: String,
    namespace: String,
    inactivity_timeout: String,
    unenroll_timeout: String,
    duplicate_hosts: String,
    is_protected: String,
    is_default: String,
    is_managed: String,
    /// Empty: as the configuration says; `off`; or signals.
    monitoring: String,
    keep_monitoring_alive: String,
    data_output_id: String,
    monitoring_output_id: String,
    fleet_server_host_id: String,
    download_source_id: String,
}

#[derive(Template)]
#[template(path = "policies/settings.html")]
struct SettingsPage<'a> {
    frame: Frame,
    id: String,
    fields: &'a Fields,
    references: Vec<Reference>,
    /// Values and words.
    monitoring: Vec<(&'static str, &'static str)>,
    is_managed: bool,
    error: Option<&'a Error>,
    cannot_update: &'static str,
    cannot_protect: &'static str,
    cli: String,
    api: String,
}

impl SettingsPage<'_> {
    /// Whether agents send something about themselves that is not among the choices.
    fn is_other_monitoring(&self) -> bool {
        let chosen = self.fields.monitoring.as_str();
        !matches!(chosen, "" | "off") && self.monitoring.iter().all(|(value, _)| *value != chosen)
    }
}

/// A choice of another object.
struct Reference {
    name: &'static str,
    label: &'static str,
    chosen: String,
    /// Ids and names.
    choices: Vec<(String, String)>,
    /// The privilege to see the choices, if it is missing.
    missing: String,
}

/// Shows the form.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let policy = match fleet.policies().find::<PoliciesRead>(&visitor.context, &id).await {
        Ok(policy) => policy.into_inner(),
        Err(error) => return failure::inside(&visitor, &error, TAB),
    };
    form_page(&fleet, &visitor, &policy, &Fields::of(&policy), None).await
}

async fn form_page(
    fleet: &Fleet,
    visitor: &Visitor,
    policy: &Policy,
    fields: &Fields,
    error: Option<&Error>,
) -> Response {
    let references = match references(fleet, visitor, fields).await {
        Ok(references) => references,
        Err(error) => return failure::inside(visitor, &error, TAB),
    };
    let shown = SettingsPage {
        frame: Frame::new(visitor, format!("Settings of {}", policy.name), TAB),
        id: policy.id.to_string(),
        references,
        monitoring: MONITORING.to_vec(),
        is_managed: policy.is_managed,
        cannot_update: visitor.lacks(PrivilegeName::PoliciesUpdate),
        cannot_protect: visitor.lacks(PrivilegeName::PoliciesProtect),
        cli: cli(visitor, &format!("policy apply -f {}", shell::word(&format!("{}.yml", policy.name)))),
        api: curl(visitor, "PUT", &format!("{API}/{}", policy.id), &fields.body().to_string()),
        fields,
        error,
    };
    page(error.map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Shows the review of the changed settings.
pub async fn review(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, fields): Posted<Fields>) -> Response {
    let policy = match fleet.policies().find::<PoliciesRead>(&visitor.context, &id).await {
        Ok(policy) => policy.into_inner(),
        Err(error) => return failure::inside(&visitor, &error, TAB),
    };
    let may_protect = visitor.lacks(PrivilegeName::PoliciesProtect).is_empty();
    let draft = match fields.draft(&policy, may_protect) {
        Ok(draft) => draft,
        Err(error) => return form_page(&fleet, &visitor, &policy, &fields, Some(&error)).await,
    };
    match review::reviewed(&fleet, &visitor, &id, &draft).await {
        Ok(response) => response,
        Err(error) if error.kind == ErrorKind::Invalid => {
            let field = error.field.as_deref().map(|field| field.trim_start_matches("settings.").to_owned());
            let error = Error { field, ..error };
            form_page(&fleet, &visitor, &policy, &fields, Some(&error)).await
        }
        Err(error) => review::refused(&fleet, &visitor, &id, &draft, &error).await,
    }
}

impl Fields {
    /// The settings of a policy.
    fn of(policy: &Policy) -> Self {
        let text = |name: &str| policy.fields[name].as_str().unwrap_or_default().to_owned();
        let checked = |is: bool| if is { "on".to_owned() } else { String::new() };
        Self {
            version: version_token(policy),
            revision: Some(policy.revision),
            force: String::new(),
            name: policy.name.clone(),
            description: policy.description.clone(),
            namespace: policy.namespace.clone(),
            inactivity_timeout: timeout(policy.inactivity_timeout),
            unenroll_timeout: policy.unenroll_timeout.map(timeout).unwrap_or_default(),
            duplicate_hosts: text("duplicate_hosts"),
            is_protected: checked(policy.fields["is_protected"] == true),
            is_default: checked(policy.is_default),
            is_managed: checked(policy.is_managed),
            monitoring: monitoring(&policy.fields),
            keep_monitoring_alive: checked(policy.fields["keep_monitoring_alive"] == true),
            data_output_id: text("data_output_id"),
            monitoring_output_id: text("monitoring_output_id"),
            fleet_server_host_id: text("fleet_server_host_id"),
            download_source_id: text("download_source_id"),
        }
    }

    /// The same change as a request: the fields that the API always needs, and the times.
    fn body(&self) -> Value {
        let mut body = json!({"name": self.name, "namespace": self.namespace, "description": self.description});
        let times = [("inactivity_timeout", &self.inactivity_timeout), ("unenroll_timeout", &self.unenroll_timeout)];
        for (name, text) in times {
            if let Ok(Some(seconds)) = durations::parse_optional(name, text) {
                body[name] = seconds.into();
            }
        }
        body
    }

    fn reference(&self, name: &str) -> &str {
        match name {
            "data_output_id" => &self.data_output_id,
            "monitoring_output_id" => &self.monitoring_output_id,
            "fleet_server_host_id" => &self.fleet_server_host_id,
            _ => &self.download_source_id,
        }
    }

    /// Returns the file of the policy with these settings; `may_protect` is whether the tamper protection may change.
    fn draft(&self, policy: &Policy, may_protect: bool) -> Result<Draft, Error> {
        let mut settings: Map<String, Value> = Map::new();
        let mut fields = file::fields_of(policy);
        fields.retain(|(name, value)| match *name {
            "settings" => {
                settings = value.as_object().cloned().unwrap_or_default();
                false
            }
            name => !matches!(name, "name" | "description" | "namespace"),
        });
        self.write(policy, may_protect, &mut settings)?;
        settings.retain(|_, value| !value.is_null());
        let first = [("name", &self.name), ("description", &self.description), ("namespace", &self.namespace)];
        let first = first.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, json!(text)));
        let all: Vec<_> = first.chain([("settings", Value::Object(settings))]).chain(fields).collect();
        Ok(Draft {
            text: of_fields(&all),
            version: self.version.clone(),
            revision: self.revision,
            force: self.force.clone(),
            ..Draft::default()
        })
    }

    fn write(&self, policy: &Policy, may_protect: bool, settings: &mut Map<String, Value>) -> Result<(), Error> {
        let checked = |text: &str| if text.is_empty() { Value::Null } else { true.into() };
        let mut set = |name: &str, value: Value| drop(settings.insert(name.to_owned(), value));
        set("inactivity_timeout", durations::parse_optional("inactivity_timeout", &self.inactivity_timeout)?.into());
        set("unenroll_timeout", durations::parse_optional("unenroll_timeout", &self.unenroll_timeout)?.into());
        set("is_default", checked(&self.is_default));
        set("is_managed", checked(&self.is_managed));
        // Only what the form changes: `false` and an absent field are the same for agents, but a difference in the review.
        let mut switch = |name: &str, text: &str| {
            if (policy.fields[name] == true) == text.is_empty() {
                set(name, checked(text));
            }
        };
        if may_protect {
            switch("is_protected", &self.is_protected);
        }
        switch("keep_monitoring_alive", &self.keep_monitoring_alive);
        if self.monitoring != monitoring(&policy.fields) {
            set("monitoring_enabled", signals(&self.monitoring));
        }
        if policy.fields["duplicate_hosts"].as_str().unwrap_or("warn") != self.duplicate_hosts {
            set("duplicate_hosts", text(&self.duplicate_hosts));
        }
        for name in REFERENCES {
            set(name, text(self.reference(name)));
        }
        Ok(())
    }
}

/// Returns a time as the form shows it.
fn timeout(seconds: i64) -> String {
    u64::try_from(seconds).map(durations::written).unwrap_or_default()
}

fn text(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// Returns the choice of monitoring that the fields of a policy have.
fn monitoring(fields: &Value) -> String {
    match fields["monitoring_enabled"].as_array() {
        None => String::new(),
        Some(signals) if signals.is_empty() => "off".to_owned(),
        Some(signals) => signals.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
    }
}

fn signals(choice: &str) -> Value {
    match choice {
        "" => Value::Null,
        "off" => json!([]),
        signals => signals.split(',').collect(),
    }
}

/// Ids and names to choose from, or the privilege that is needed to see them.
type Choices = Result<Vec<(String, String)>, String>;

async fn references(fleet: &Fleet, visitor: &Visitor, fields: &Fields) -> Result<Vec<Reference>, Error> {
    let outputs = match visitor.context.grant() {
        Ok(grant) => {
            let all = fleet.outputs().list(&grant).await?;
            Ok(all.into_iter().map(|one| (one.id.to_string(), one.name)).collect())
        }
        Err(forbidden) => Err(forbidden.0.to_string()),
    };
    let (hosts, sources) =
        (objects(fleet.server_hosts(), visitor).await?, objects(fleet.download_sources(), visitor).await?);
    let labels = ["Output for data", "Output for monitoring", "Fleet Server host", "Download source"];
    let found: [Choices; 4] = [outputs.clone(), outputs, hosts, sources];
    let all = REFERENCES.into_iter().zip(labels).zip(found);
    Ok(all.map(|((name, label), found)| reference(name, label, fields.reference(name), found)).collect())
}

async fn objects<F: NetworkFamily>(of: &NetworkObjects<F>, visitor: &Visitor) -> Result<Choices, Error> {
    match visitor.context.grant::<F::Read>() {
        Ok(grant) => {
            let all = of.list(&grant).await?;
            Ok(Ok(all.into_iter().map(|one| (one.id.to_string(), one.name)).collect()))
        }
        Err(forbidden) => Ok(Err(forbidden.0.to_string())),
    }
}

fn reference(name: &'static str, label: &'static str, chosen: &str, found: Choices) -> Reference {
    let missing = found.as_ref().err().cloned().unwrap_or_default();
    let mut choices = found.unwrap_or_default();
    // What the visitor may not see, or what is gone, stays chosen.
    if !chosen.is_empty() && !choices.iter().any(|(id, _)| id == chosen) {
        choices.push((chosen.to_owned(), chosen.to_owned()));
    }
    Reference { name, label, chosen: chosen.to_owned(), choices, missing }
}
