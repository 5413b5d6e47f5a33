//! `/add-agent`: creates an enrollment key, shows the commands that enroll an agent with it, and waits for the agent.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::Error;
use muster_core::authorization::{AgentsRead, EnrollmentCreate, PoliciesRead, RefusalsRead};
use muster_core::id::EnrollmentKeyId;
use muster_core::shell;
use muster_fleet::Fleet;
use muster_fleet::agent_views::{AgentListQuery, Rows};
use muster_fleet::keys::NewEnrollmentKey;
use muster_management::form;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Page};
use serde::Deserialize;

use crate::failure;
use crate::frame::{Frame, page};
use crate::policies::{PolicyRow, rows};
use crate::text::{Badge, Moment};
use crate::visitor::{Params, Visitor};

/// Path of the list of agents.
const TAB: &str = "/agents";
/// Lifetime of the keys that the page creates: long enough to enroll a number of hosts by hand.
const LIFETIME: &str = "1d";
/// Number of agents and rejected requests that the page shows.
const SHOWN: u32 = 10;

/// How agents verify the server's certificate.
pub struct ServerTrust {
    /// Path of the CA certificate of the server's own CA; `None` if its certificate is another CA's.
    pub ca: Option<String>,
    /// Whether agents connect over plain HTTP.
    pub is_plain: bool,
}

impl ServerTrust {
    /// The flags of an enrollment (MG184): only what the server's certificate makes necessary.
    fn flags(&self) -> String {
        match (&self.ca, self.is_plain) {
            (_, true) => " --insecure".to_owned(),
            (Some(_), false) => " --certificate-authorities=ca.crt".to_owned(),
            (None, false) => String::new(),
        }
    }
}

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The key whose agents a waiting page asks for.
    key: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    policy: String,
}

#[derive(Template)]
#[template(path = "agents/add_agent.html")]
struct AddAgentPage<'a> {
    frame: Frame,
    policies: Vec<PolicyRow>,
    has_url: bool,
    commands: Option<Commands<'a>>,
    error: Option<Error>,
}

/// The commands that enroll an agent.
struct Commands<'a> {
    key: String,
    flags: String,
    ca: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "agents/arrivals.html")]
struct Arrivals {
    base: String,
    key: String,
    agents: Vec<Arrival>,
    refused: Vec<(String, String, Moment)>,
}

struct Arrival {
    id: String,
    name: String,
    badge: Badge,
    policy: Option<(i64, Moment)>,
}

/// Shows the form; or, for a waiting page, the agents that have enrolled with its key.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    let shown = match asked.key.as_str() {
        key if headers.contains_key("hx-request") && !key.is_empty() => {
            arrivals(&fleet, &visitor, key).await.map(|arrivals| page(StatusCode::OK, &arrivals))
        }
        _ => form_page(&fleet, &visitor).await.map(|form| page(StatusCode::OK, &form)),
    };
    shown.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

async fn form_page(fleet: &Fleet, visitor: &Visitor) -> Result<AddAgentPage<'static>, Error> {
    visitor.context.grant::<EnrollmentCreate>()?;
    Ok(AddAgentPage {
        frame: Frame::new(visitor, "Add an agent", TAB),
        policies: rows(fleet, &visitor.context.grant::<PoliciesRead>()?).await?,
        has_url: fleet.urls().first().is_some(),
        commands: None,
        error: None,
    })
}

/// Creates a key for the chosen policy, and shows the commands.
pub async fn create(
    State(fleet): State<Arc<Fleet>>,
    Extension(trust): Extension<Arc<ServerTrust>>,
    visitor: Visitor,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match commands(&fleet, &trust, &visitor, &headers, body).await {
        Ok(response) => response.into_response(),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn commands(
    fleet: &Fleet,
    trust: &ServerTrust,
    visitor: &Visitor,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let fields: Fields = form::read(headers, body).await?;
    let mut form = form_page(fleet, visitor).await?;
    let Some(url) = fleet.urls().first() else { return Ok(page(StatusCode::OK, &form)) };
    let new = NewEnrollmentKey {
        policy_id: Some(fields.policy).filter(|policy| !policy.is_empty()),
        name: Some(format!("added by {} {}", visitor.name, fleet.now().to_rfc3339_seconds())),
        expiration: Some(LIFETIME.to_owned()),
        ..NewEnrollmentKey::default()
    };
    let (key, token) = fleet.enrollment_keys().create(&visitor.context.grant()?, &new).await?;
    let (url, token) = (shell::option("--url", &url), shell::option("--enrollment-token", &token));
    form.commands = Some(Commands {
        key: key.id.to_string(),
        flags: format!("{url} {token}{}", trust.flags()),
        ca: trust.ca.as_deref().filter(|_| !trust.is_plain),
    });
    Ok(page(StatusCode::OK, &form))
}

/// Returns the agents that have enrolled with a key, and what this server has rejected: an agent that does not come may be
/// among it.
async fn arrivals(fleet: &Fleet, visitor: &Visitor, key: &str) -> Result<Arrivals, Error> {
    let id = EnrollmentKeyId::parse(key).map_err(|_| Error::not_found("enrollment key", key))?;
    let question = AgentListQuery {
        filter: AgentFilter::all([AgentCondition::EnrollmentKeys(vec![id])]),
        sort: AgentSort::EnrolledAt,
        descending: true,
        rows: Rows::Page(Page { offset: 0, limit: SHOWN }),
    };
    let found = fleet.agents().list(&visitor.context.grant::<AgentsRead>()?, &question).await?;
    let now = fleet.now();
    let agents = found.items.into_iter().map(|view| {
        let record = view.details.record;
        let id = record.id.to_string();
        let applied = record.policy_revision_at.map(|at| (record.policy_revision, Moment::new(at, now)));
        Arrival {
            name: if record.hostname.is_empty() { id.clone() } else { record.hostname },
            badge: Badge(record.status),
            policy: applied.filter(|(revision, _)| *revision > 0),
            id,
        }
    });
    let refused =
        visitor.context.grant::<RefusalsRead>().map(|grant| fleet.refusals().list(&grant)).unwrap_or_default();
    let enrolling = refused.into_iter().filter(|row| matches!(row.refused.operation, "enroll" | ""));
    let refused = enrolling.take(SHOWN as usize).map(|row| {
        let text = format!("{} {}", row.refused.message, row.refused.remedy);
        (row.refused.address, text, Moment::new(row.last, now))
    });
    Ok(Arrivals {
        base: visitor.base.clone(),
        key: key.to_owned(),
        agents: agents.collect(),
        refused: refused.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mg184_commands_contain_what_the_certificate_needs() {
        let flags = |ca: Option<&str>, is_plain| ServerTrust { ca: ca.map(Into::into), is_plain }.flags();
        assert_eq!(flags(Some("/var/lib/muster/ca.crt"), false), " --certificate-authorities=ca.crt");
        assert_eq!((flags(None, false).as_str(), flags(None, true).as_str()), ("", " --insecure"));
    }
}
