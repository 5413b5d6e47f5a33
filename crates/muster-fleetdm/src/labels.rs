//! Built-in labels of FleetDM: all hosts, and the hosts of a platform.

use axum::Json;
use axum::extract::Path;
use muster_core::agent::AgentRecord;
use muster_core::authorization::AgentsRead;
use muster_core::fleetd::platform::Platform;
use muster_store::query::AgentCondition;
use muster_store::search::Fact;
use serde_json::{Value, json};

use crate::entry::Caller;
use crate::failure::{Answer, Failure};
use crate::host_query::HostQuery;
use crate::hosts::list_of;
use crate::params::Params;
use crate::routes::Route;

/// Routes for labels.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/labels", list, "List labels: the built-in ones"),
        Route::get("/labels/summary", summarize, "List labels, without numbers of hosts"),
        Route::get("/labels/{id}", get, "A label"),
        Route::get("/labels/{id}/hosts", hosts, "List the hosts with a label"),
    ]
}

/// A label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its number, as in FleetDM.
    pub id: u64,
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    platform: &'static str,
}

const fn label(id: u64, name: &'static str, about: &'static str, platform: &'static str) -> Label {
    Label { id, name, about, platform }
}

/// All of them.
pub const BUILT_IN: [Label; 7] = [
    label(6, "All Hosts", "All hosts that have enrolled", ""),
    label(7, "macOS", "All macOS hosts", "darwin"),
    label(8, "Ubuntu Linux", "All Ubuntu hosts", "ubuntu"),
    label(9, "CentOS Linux", "All CentOS hosts", "centos"),
    label(10, "MS Windows", "All Windows hosts", "windows"),
    label(11, "Red Hat Linux", "All Red Hat Enterprise Linux hosts", "rhel"),
    label(12, "All Linux", "All Linux distributions", "linux"),
];

/// Returns the condition of hosts with a platform: `linux`, or one that osquery reports.
pub fn of_platform(platform: &str) -> AgentCondition {
    let is = |platform: &str| AgentCondition::Os(Fact::Platform, platform.to_ascii_lowercase(), false);
    match platform {
        "" => AgentCondition::All(Vec::new()),
        // osquery calls each distribution a platform. An empty one is unknown.
        "linux" => !AgentCondition::Any(vec![is("darwin"), is("windows"), is("")]),
        other => is(other),
    }
}

impl Label {
    /// Returns the condition of its hosts.
    pub fn condition(self) -> AgentCondition {
        of_platform(self.platform)
    }

    fn has(self, record: &AgentRecord) -> bool {
        match self.platform {
            "" => true,
            "linux" => Platform::of(record) == Some(Platform::Linux),
            platform => record.os.lines().next() == Some(platform),
        }
    }

    /// Returns it in FleetDM's form.
    pub fn json(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "description": self.about,
            "query": "",
            "platform": "",
            "label_type": "builtin",
            "label_membership_type": "dynamic",
            "display_text": self.name,
        })
    }

    /// Returns it as `fleetctl` applies and prints it.
    pub fn spec(&self) -> Value {
        let mut spec = self.json();
        if let Value::Object(members) = &mut spec {
            members.remove("display_text");
        }
        spec
    }
}

/// Finds a label by its number.
pub fn numbered(id: u64) -> Result<Label, Failure> {
    BUILT_IN.into_iter().find(|label| label.id == id).ok_or_else(|| Failure::not_found("label", id))
}

/// Finds a label by its name.
pub fn named(name: &str) -> Result<Label, Failure> {
    BUILT_IN.into_iter().find(|label| label.name == name).ok_or_else(|| Failure::not_found("label", name))
}

/// Returns the labels of a host.
pub fn of_host(record: &AgentRecord) -> impl Iterator<Item = &'static Label> {
    BUILT_IN.iter().filter(|label| label.has(record))
}

async fn counted(caller: &Caller, label: Label) -> Result<Value, Failure> {
    let mut query = HostQuery::matching(caller, &Params::from([]), None).await?;
    query.and(label.condition());
    let count = query.count(caller).await?;
    let mut json = label.json();
    (json["count"], json["host_count"]) = (count.into(), count.into());
    Ok(json)
}

async fn list(caller: Caller) -> Answer {
    let mut labels = Vec::new();
    for label in BUILT_IN {
        labels.push(counted(&caller, label).await?);
    }
    Ok(Json(json!({"labels": labels})))
}

async fn summarize(caller: Caller) -> Answer {
    caller.everywhere::<AgentsRead>(None).await?;
    Ok(Json(json!({"labels": BUILT_IN.iter().map(Label::json).collect::<Vec<_>>()})))
}

async fn get(caller: Caller, Path(id): Path<u64>) -> Answer {
    Ok(Json(json!({"label": counted(&caller, numbered(id)?).await?})))
}

async fn hosts(caller: Caller, params: Params, Path(id): Path<u64>) -> Answer {
    let (paging, label) = (params.paging()?, numbered(id)?);
    let mut query = HostQuery::of(&caller, &params).await?;
    query.and(label.condition());
    list_of(&caller, &params, &query, &paging).await
}
