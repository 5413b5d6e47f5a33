//! `/hosts/{id}/transfer`: moves a host to another space, after a page that says what happens.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{AgentsPurge, EnrollmentCreate, SpacesRead};
use muster_core::id::SpaceId;
use muster_core::plural::counted;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::transfers::{HostTransfer, HostsToMove};
use muster_management::error::status_of;
use serde::Deserialize;
use serde_json::json;

use super::TAB;
use super::facts::cut;
use super::host::name_of;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::request::{Id, Posted};
use crate::visitor::{May, Visitor};
use crate::{failure, notice};

#[derive(Template)]
#[template(path = "hosts/transfer.html")]
struct TransferPage {
    frame: Frame,
    id: String,
    agents: String,
    has_disk_key: bool,
    /// The other spaces that the person may admit hosts to, with their names.
    spaces: Vec<(SpaceId, String)>,
    /// The space that was chosen. None is chosen for the person: the button moves the host.
    to: Option<SpaceId>,
    /// Why the host cannot move; empty if it can.
    refused: String,
    error: Option<Error>,
    cli: String,
    api: String,
}

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    to_space: String,
}

/// Asks before a host is transferred.
pub async fn ask(State(fleet): State<Arc<Fleet>>, May { visitor, .. }: May<AgentsPurge>, Id(id): Id) -> Response {
    shown(&visitor, form(&fleet, &visitor, &id, "", None).await)
}

fn shown(visitor: &Visitor, made: Result<TransferPage, Error>) -> Response {
    match made {
        Ok(form) => page(form.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &form),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

async fn form(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    to: &str,
    error: Option<Error>,
) -> Result<TransferPage, Error> {
    let view = fleet.agents().host(&visitor.context.grant()?, id).await?;
    let id = view.host.id.to_string();
    let spaces = spaces(fleet, visitor).await?;
    let to = spaces.iter().map(|(space, _)| space).find(|space| space.as_str() == to).cloned();
    let (mut agents, mut has_disk_key, mut refused) = (view.agents.len() as u64, false, String::new());
    // Whether the host can move at all is the same for each of them.
    match to.as_ref().or_else(|| spaces.first().map(|(space, _)| space)) {
        None => {
            "There is no other space to which you may admit hosts: that requires the privilege enrollment.create there."
                .clone_into(&mut refused);
        }
        Some(space) => {
            let trial = visitor.context.clone().trying(true);
            let tried = fleet.transfers().transfer(&trial, &named(&id), space.as_str()).await?;
            match tried.into_iter().next().map(|HostTransfer { outcome, .. }| outcome) {
                Some(Ok(moved)) => (agents, has_disk_key) = (moved.agents, moved.has_disk_key),
                Some(Err(why)) => refused = format!("The host cannot be transferred: {why}; {}.", why.remedy()),
                None => {}
            }
        }
    }
    let named = to.as_ref().map_or("SPACE", SpaceId::as_str);
    let command = format!("host transfer {} --to-space {}", shell::argument(&id), shell::argument(named));
    let body = json!({"to_space": named, "hosts": [id]}).to_string();
    Ok(TransferPage {
        frame: Frame::new(visitor, format!("Transfer the host {}", cut(&name_of(&view))), TAB),
        agents: counted(agents, "agent"),
        cli: cli(visitor, &command),
        api: curl(visitor, "POST", "/api/fleet/hosts/_transfer", &body),
        id,
        has_disk_key,
        spaces,
        to,
        refused,
        error,
    })
}

fn named(id: &str) -> HostsToMove {
    HostsToMove::Named(vec![id.to_owned()])
}

/// Returns the other spaces in which the person may admit hosts.
async fn spaces(fleet: &Fleet, visitor: &Visitor) -> Result<Vec<(SpaceId, String)>, Error> {
    let known = match visitor.context.grant::<SpacesRead>() {
        Ok(grant) => fleet.spaces().list(&grant).await?.into_iter().map(|space| (space.id, space.name)).collect(),
        // Names of spaces are not the person's to read.
        Err(_) => visitor.other_spaces().into_iter().map(|id| (id.clone(), id.to_string())).collect::<Vec<_>>(),
    };
    let may_admit = |space: &SpaceId| {
        let there = visitor.context.clone().in_space(space.clone());
        there.may_enter_space() && there.grant::<EnrollmentCreate>().is_ok()
    };
    let mut offered: Vec<_> =
        known.into_iter().filter(|(id, _)| id != visitor.context.space() && may_admit(id)).collect();
    tell_apart(&mut offered);
    Ok(offered)
}

/// Adds the ids to names that several spaces have.
fn tell_apart(spaces: &mut [(SpaceId, String)]) {
    let names: Vec<String> = spaces.iter().map(|(_, name)| name.to_lowercase()).collect();
    for (id, name) in spaces {
        if names.iter().filter(|other| **other == name.to_lowercase()).count() > 1 {
            *name = format!("{name} ({id})");
        }
    }
}

/// Transfers a host, and leads to it in the other space if the person may see it there.
pub async fn send(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, fields): Posted<Fields>) -> Response {
    let made = fleet.transfers().transfer(&visitor.context, &named(&id), &fields.to_space).await;
    let outcome = made.map(|done| done.into_iter().next().map(|host| host.outcome));
    match outcome {
        Ok(Some(Ok(moved))) => {
            let there = SpaceId::trusted(fields.to_space.as_str());
            let is_seen = visitor.context.clone().in_space(there.clone());
            let is_seen = is_seen.check(muster_core::authorization::PrivilegeName::AgentsRead).is_ok();
            let text = format!("The host is in the space {there} now, with {}.", counted(moved.agents, "agent"));
            let page = match moved.host.filter(|_| is_seen) {
                Some(host) => Base::of(&there).link(format_args!("{TAB}/{host}")),
                None => visitor.base.link(TAB),
            };
            notice::redirect(page, &text)
        }
        // The page says why.
        Ok(_) => shown(&visitor, form(&fleet, &visitor, &id, &fields.to_space, None).await),
        Err(error) => shown(&visitor, form(&fleet, &visitor, &id, &fields.to_space, Some(error)).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_with_the_same_name_are_told_apart_by_their_ids() {
        let space = |id: &str, name: &str| (SpaceId::trusted(id), name.to_owned());
        let mut spaces = [space("a", "Finance"), space("b", "finance"), space("c", "IT")];
        tell_apart(&mut spaces);
        assert_eq!(spaces.map(|(_, name)| name), ["Finance (a)", "finance (b)", "IT"]);
    }
}
