//! `/uninstall-tokens`: the tokens that hosts with tamper protection ask for: list, reveal, rotate.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{AgentsRead, PoliciesRead, PrivilegeName, UninstallRead, UninstallRotate};
use muster_core::id::PolicyId;
use muster_core::shell;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::agent_views::{AgentListQuery, Rows};
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, ListedToken, Page, TokenSearch};
use serde::Deserialize;

use super::keys::TAB;
use super::shown;
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::Frame;
use crate::pager::Pager;
use crate::request::{Id, Pressed};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Path of the page.
const PATH: &str = "/uninstall-tokens";
/// Path of the tokens in the API.
const API: &str = "/api/fleet/uninstall_tokens";
/// Number of tokens on a page.
const ROWS: u32 = 20;

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    search: String,
    page: u32,
}

#[derive(Template)]
#[template(path = "settings/uninstall_tokens.html")]
struct TokensPage {
    frame: Frame,
    search: String,
    rows: Vec<Row>,
    pager: Pager,
    /// The token that was just revealed.
    revealed: Option<Revealed>,
    cli: String,
    api: String,
    lacks_reveal: &'static str,
    lacks_rotate: &'static str,
}

/// A token that was just revealed.
struct Revealed {
    /// Name of its policy.
    policy: String,
    token: String,
    /// The commands that use it: id on the page, where to run it, and the command.
    commands: Vec<(&'static str, &'static str, String)>,
}

struct Row {
    id: String,
    policy: String,
    policy_name: Option<String>,
    created: Moment,
    /// How many agents of the policy have the token: those that run its newest revision.
    state: (&'static str, &'static str, String),
}

/// Shows the list.
pub async fn list(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    shown(&visitor, TAB, read(&fleet, &visitor, asked, None).await)
}

async fn read(fleet: &Fleet, visitor: &Visitor, asked: Asked, revealed: Option<Revealed>) -> Result<TokensPage, Error> {
    let grant = visitor.context.grant::<UninstallRead>()?;
    let search = match asked.search.trim() {
        "" => TokenSearch::All,
        text => TokenSearch::PolicyIdOrName(text.to_owned()),
    };
    let found = fleet.uninstall_tokens().list(&grant, &search).await?;
    let total = found.len() as u64;
    let start = asked.page.saturating_mul(ROWS) as usize;
    let here: Vec<ListedToken> = found.into_iter().skip(start).take(ROWS as usize).collect();
    let mut rows = Vec::new();
    for token in here {
        rows.push(row(fleet, visitor, token).await?);
    }
    let link = |page: u32| {
        let search = percent_encoding::utf8_percent_encode(&asked.search, percent_encoding::NON_ALPHANUMERIC);
        format!("{}{PATH}?search={search}&page={page}", visitor.base)
    };
    Ok(TokensPage {
        frame: Frame::new(visitor, "Uninstall tokens", TAB),
        rows,
        pager: Pager::numbered(asked.page, ROWS, total, link),
        revealed,
        cli: cli(visitor, "uninstall-token list"),
        api: curl(visitor, "GET", API, ""),
        lacks_reveal: visitor.lacks(PrivilegeName::UninstallReveal),
        lacks_rotate: visitor.lacks(PrivilegeName::UninstallRotate),
        search: asked.search,
    })
}

async fn row(fleet: &Fleet, visitor: &Visitor, token: ListedToken) -> Result<Row, Error> {
    let state = match (&token.policy_name, carriers(fleet, visitor, &token.policy_id, token.created_at).await?) {
        (None, _) => ("quiet", "–", "the policy is deleted".to_owned()),
        (_, None) => ("quiet", "–", "needs agents.read and policies.read".to_owned()),
        (_, Some((_, 0))) => ("quiet", "–", "no agents".to_owned()),
        (_, Some((1, 1))) => ("good", "●", "on its only agent".to_owned()),
        (_, Some((with, all))) if with == all => ("good", "●", format!("on all {all} agents")),
        (_, Some((with, all))) => ("busy", "◐", format!("on {with} of {all} agents")),
    };
    Ok(Row {
        id: token.id.to_string(),
        policy: token.policy_id.to_string(),
        policy_name: token.policy_name,
        created: Moment::new(token.created_at, fleet.now()),
        state,
    })
}

/// Returns how many agents of a policy have a token that was created at this time, and how many agents there are. Those have it
/// that run a revision which is not older. `None` for people who may not see that.
async fn carriers(
    fleet: &Fleet,
    visitor: &Visitor,
    policy: &PolicyId,
    created: Timestamp,
) -> Result<Option<(u64, u64)>, Error> {
    let Ok(grant) = visitor.context.grant::<AgentsRead>() else { return Ok(None) };
    let Ok(policy) = fleet.policies().find::<PoliciesRead>(&visitor.context, policy.as_str()).await else {
        return Ok(None);
    };
    let revisions = fleet.policies().revisions(&policy).await?;
    // Newest first. The revision is committed with the token, by the same clock.
    let first = revisions.iter().take_while(|(_, at, _)| *at >= created).last();
    let revision = first.map_or(policy.revision, |(revision, _, _)| *revision);
    let count = async |conditions: Vec<AgentCondition>| {
        let query = AgentListQuery {
            filter: AgentFilter::all(conditions),
            sort: AgentSort::EnrolledAt,
            descending: false,
            rows: Rows::Page(Page { offset: 0, limit: 0 }),
        };
        fleet.agents().list(&grant, &query).await.map(|found| found.total)
    };
    let on_policy = AgentCondition::Policies(vec![policy.id.clone()]);
    let all = count(vec![on_policy.clone()]).await?;
    let with = if all == 0 { 0 } else { count(vec![on_policy, AgentCondition::RunsRevision(revision)]).await? };
    Ok(Some((with, all)))
}

/// Shows the text of a token. An audit event, so it is not a link.
pub async fn reveal(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let token = fleet.uninstall_tokens().find(&visitor.context, &id).await?;
        let (text, policy) = fleet.uninstall_tokens().reveal(&token).await?;
        let option = shell::option("--uninstall-token", &text);
        let revealed = Revealed {
            policy: policy.unwrap_or_else(|| token.policy_id.to_string()),
            commands: vec![
                ("elastic", "Elastic Agent on Linux and macOS", format!("sudo elastic-agent uninstall {option}")),
                (
                    "windows",
                    "Elastic Agent on Windows, as an administrator",
                    format!("& \"C:\\Program Files\\Elastic\\Agent\\elastic-agent.exe\" uninstall {option}"),
                ),
                ("muster", "muster-agent", format!("sudo muster-agent uninstall {option}")),
            ],
            token: text,
        };
        read(&fleet, &visitor, Asked::default(), Some(revealed)).await
    };
    shown(&visitor, TAB, made.await)
}

/// Asks before the token of a policy is replaced.
pub async fn ask_to_rotate(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let policy = fleet.policies().find::<UninstallRotate>(&visitor.context, &id).await?;
        let agents = carriers(&fleet, &visitor, &policy.id, fleet.now()).await?.map_or(0, |(_, all)| all);
        Ok(Confirm {
            text: vec![format!(
                "The policy gets a new revision, which its {agents} agents apply. From then on, they accept only the \
                     new token; agents that are offline accept the old one until they return."
            )],
            button: "Rotate the token",
            cli: cli(&visitor, &format!("uninstall-token rotate {}", shell::argument(&id))),
            api: curl(&visitor, "POST", &format!("{API}/{id}/rotate"), ""),
            ..Confirm::new(
                &visitor,
                format!("Rotate the uninstall token of {}?", policy.name),
                TAB,
                visitor.base.link(format_args!("{PATH}/{id}/rotate")),
                visitor.base.link(PATH),
            )
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Replaces the token of a policy.
pub async fn rotate(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let policy = fleet.policies().find(&visitor.context, &id).await?;
        fleet.policies().rotate_uninstall_token(&policy).await?;
        let text = format!("The policy {} has a new uninstall token.", policy.name);
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
