//! `/agents/menu/{kind}`: values to filter the list by: policies, tags, versions, enrollment keys.

use std::sync::Arc;

use askama::Template;
use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::agent::Family;
use muster_core::authorization::{AgentsRead, EnrollmentRead, PoliciesRead, PrivilegeName};
use muster_core::id::PolicyId;
use muster_fleet::Fleet;
use muster_management::kql::agents as kql;
use muster_store::query::{AgentFilter, Page};

use super::asked::{Asked, TAB, has, quoted, toggled};
use crate::failure;
use crate::frame::{Frame, page};
use crate::hosts::label_hosts::names as label_names;
use crate::visitor::{Params, Visitor};

/// Maximum number of values.
pub const VALUES: usize = 500;

#[derive(Template)]
#[template(path = "agents/menu.html")]
struct MenuPage {
    frame: Frame,
    values: Vec<Value>,
    is_cut: bool,
    back: String,
}

struct Value {
    name: String,
    number: Option<u64>,
    link: String,
    is_chosen: bool,
}

/// A value, as a condition.
pub struct Known {
    /// For people.
    pub name: String,
    /// The condition.
    pub condition: String,
    /// Number of agents, if it is counted.
    pub number: Option<u64>,
}

/// Shows the page.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    params: RawPathParams,
    Params(asked): Params<Asked>,
) -> Response {
    let kind = params.iter().find(|(name, _)| *name == "kind").map(|(_, kind)| kind).unwrap_or_default();
    match read(&fleet, &visitor, kind, &asked).await {
        Ok(menu) => page(StatusCode::OK, &menu),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, kind: &str, asked: &Asked) -> Result<MenuPage, Error> {
    let title = match kind {
        "policy" => "Agents by policy",
        "tag" => "Agents by tag",
        "version" => "Agents by version",
        "key" => "Agents by enrollment key",
        _ => return Err(Error::not_found("menu", kind)),
    };
    let mut known = values(fleet, visitor, kind).await?;
    let is_cut = known.len() > VALUES;
    known.truncate(VALUES);
    let base = visitor.base.clone();
    let value = |one: Known| Value {
        link: asked.link(&base, &[("q", &toggled(&asked.q, &one.condition))]),
        is_chosen: has(&asked.q, &one.condition),
        name: one.name,
        number: one.number,
    };
    Ok(MenuPage {
        frame: Frame::new(visitor, title, TAB),
        values: known.into_iter().map(value).collect(),
        is_cut,
        back: asked.link(&base, &[]),
    })
}

/// Returns the values of a kind, as many as there are.
pub async fn values(fleet: &Fleet, visitor: &Visitor, kind: &str) -> Result<Vec<Known>, Error> {
    let context = &visitor.context;
    let of = |field: &str, name: String, value: &str, number| Known {
        name,
        condition: format!("{field}:{}", quoted(value)),
        number,
    };
    let limit = u32::try_from(VALUES).unwrap_or(u32::MAX) + 1;
    Ok(match kind {
        // Without the privilege to read policies, those that the agents have.
        "policy" if context.check(PrivilegeName::PoliciesRead).is_err() => {
            let used = fleet.policies().in_use(&context.grant::<AgentsRead>()?).await?;
            used.into_iter().map(|(id, name, number)| of("policy_id", name, id.as_str(), Some(number))).collect()
        }
        "policy" => {
            let grant = context.grant::<PoliciesRead>()?;
            let counts = fleet.policies().agent_counts(&grant).await?;
            let found = fleet.policies().list(&grant, Page { offset: 0, limit }).await?.items;
            let number =
                |id: &PolicyId| counts.iter().find(|(policy, _)| policy == id).map_or(0, |(_, number)| *number);
            found
                .into_iter()
                .map(|policy| of("policy_id", policy.name, policy.id.as_str(), Some(number(&policy.id))))
                .collect()
        }
        "tag" => {
            let tags = fleet.agents().tags_in_use(&context.grant::<AgentsRead>()?, &AgentFilter::default()).await?;
            let untagged = Known { name: "no tags".into(), condition: "not tags:*".into(), number: None };
            let tags = tags.into_iter().map(|tag| of("tags", tag.clone(), &tag, None));
            std::iter::once(untagged).chain(tags).collect()
        }
        "label" => {
            let names = label_names(fleet, visitor).await?;
            names.into_iter().map(|name| of("labels", name.clone(), &name, None)).collect()
        }
        "version" => versions(fleet, visitor, &kql::visible("", false, fleet.now())?).await?,
        _ => {
            let grant = context.grant::<EnrollmentRead>()?;
            let found = fleet.enrollment_keys().list(&grant, None, Page { offset: 0, limit }).await?.items;
            let name = |name: &str, id: String| if name.is_empty() { id } else { name.to_owned() };
            found
                .into_iter()
                .map(|key| of("enrollment_key_id", name(&key.name, key.id.to_string()), key.id.as_str(), None))
                .collect()
        }
    })
}

/// Returns the programs and versions of matching agents, those of most agents first.
pub async fn versions(fleet: &Fleet, visitor: &Visitor, filter: &AgentFilter) -> Result<Vec<Known>, Error> {
    let versions = fleet.agents().versions(&visitor.context.grant::<AgentsRead>()?, filter).await?;
    let known = |(family, version, number): (Family, String, u64)| Known {
        condition: format!("family:{} and version:{}", family.as_str(), quoted(&version)),
        name: format!("{} {}", family.program(), if version.is_empty() { "of unknown version" } else { &version }),
        number: Some(number),
    };
    Ok(versions.into_iter().map(known).collect())
}
