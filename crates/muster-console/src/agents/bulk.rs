//! `/agents/bulk`: an act on chosen agents, in three steps: the choice of the act, its details with a preview, and the act.
//!
//! The first two only read, so each is a URL; only the act is a POST. It sends the visible fields, and the values that were
//! previewed: if they differ, the page shows a new preview instead of acting.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{AgentsRead, PoliciesRead};
use muster_core::id::AgentId;
use muster_core::plural::counted;
use muster_core::policy::Policy;
use muster_fleet::Fleet;
use muster_fleet::actions::{Eligible, Surveyed};
use muster_management::entry::checked_reason;
use muster_management::error::status_of;
use muster_store::query::Page;
use serde::Deserialize;

use super::acts::{Act, Done, LEVELS, NO_POLICY};
use super::agent::names_of;
use super::asked::{Asked, TAB, encoded};
use super::selection::Chosen;
use crate::elsewhere::{commands, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::notice;
use crate::request::Posted;
use crate::visitor::{Params, Visitor};

/// Maximum size of the form, bytes: thousands of ids fit.
const MAX_FORM: usize = 1 << 20;
/// Maximum number of policies to choose from.
const POLICIES: u32 = 1_000;
/// Maximum number of agents that are named as examples for a reason.
const EXAMPLES: usize = 3;

/// Which agents, which act, and its details.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Order {
    /// Ids of ticked agents.
    pub agent: Vec<String>,
    /// `all` for all agents that match; otherwise the ticked ones.
    pub of: String,
    /// With `all`: the query.
    pub q: String,
    /// With `all`: the status; empty for all that are not hidden.
    pub status: String,
    /// An action: the agents for which it failed.
    pub failed: String,
    /// Key of the act; empty to choose one.
    pub act: String,
    /// Tags to add, separated by commas.
    pub add: String,
    /// Tags to remove.
    pub remove: String,
    /// Id of a policy, or [`NO_POLICY`].
    pub policy: String,
    /// Target version.
    pub version: String,
    /// Minutes over which upgrades start.
    pub over: String,
    /// Start time, RFC 3339.
    pub start: String,
    /// Log level.
    pub level: String,
    /// Set to include a CPU profile.
    pub cpu: String,
    /// Set to override checks against mistakes.
    pub force: String,
    /// Reason for the audit log.
    pub reason: String,
    /// Set after the details were entered.
    pub preview: String,
    /// The number of agents that the person has confirmed.
    pub count: u64,
    /// The details that the person has seen a preview of, as [`Order::previewable`] writes them.
    pub previewed: String,
}

impl Order {
    /// Returns the fields that say which agents are meant.
    fn selection(&self) -> Vec<(&'static str, &str)> {
        let agents = self.agent.iter().map(|id| ("agent", id.as_str()));
        let others = [("of", &self.of), ("q", &self.q), ("status", &self.status), ("failed", &self.failed)];
        agents
            .chain(others.map(|(name, value)| (name, value.as_str())))
            .filter(|(_, value)| !value.is_empty())
            .collect()
    }

    /// Returns the page from which the agents were chosen: its link and the text of the link.
    fn origin(&self, base: &Base) -> (String, &'static str) {
        let asked = Asked { q: self.q.clone(), status: self.status.clone(), ..Asked::default() };
        match self.agent.as_slice() {
            _ if !self.failed.is_empty() => (format!("{base}/actions/{}", encoded(&self.failed)), "Back to the action"),
            // The page of an agent sends nothing else.
            [id] if self.of.is_empty() => (format!("{base}{TAB}/{}", encoded(id)), "Back to the agent"),
            _ => (asked.link(base, &[]), "Back to the list"),
        }
    }

    /// Returns the details that decide what an act does and to which agents, as one text. The reason is not among them: it can
    /// be entered after the preview.
    fn previewable(&self, act: Act) -> String {
        let details = [
            ("add", self.add.trim()),
            ("remove", self.remove.trim()),
            ("policy", &self.policy),
            ("version", self.version.trim()),
            ("over", self.over.trim()),
            ("start", self.start.trim()),
            ("level", &self.level),
            // Checkboxes: any value means that they are set.
            ("cpu", if self.cpu.is_empty() { "" } else { "1" }),
            ("force", if self.force.is_empty() { "" } else { "1" }),
        ];
        let shown = details.iter().filter(|(name, value)| !value.is_empty() && act.fields().contains(name));
        let shown: Vec<_> = shown.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        std::iter::once(format!("act={}", act.key())).chain(shown).collect::<Vec<_>>().join("&")
    }
}

/// Why a confirmed act was not carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unconfirmed {
    /// More agents are eligible than the person has confirmed.
    Number,
    /// The fields were changed after the preview.
    Fields,
}

/// The acts that are possible on the chosen agents.
#[derive(Template)]
#[template(path = "agents/bulk.html")]
struct ChoicePage<'a> {
    frame: Frame,
    text: String,
    hidden: Vec<(&'static str, &'a str)>,
    /// Where the agents were chosen.
    back: (String, &'static str),
    acts: Vec<Item>,
}

/// An act in the menu (MG185).
struct Item {
    act: Act,
    /// Number of eligible agents.
    eligible: u64,
    /// Why the others are not, with their numbers.
    reasons: Vec<(String, u64)>,
    /// Why the person may not do it.
    missing: Option<String>,
}

impl Item {
    fn is_possible(&self) -> bool {
        self.missing.is_none() && self.eligible > 0
    }
}

/// The details of an act, and what it would do.
#[derive(Template)]
#[template(path = "agents/act.html")]
struct ActPage<'a> {
    frame: Frame,
    act: Act,
    text: String,
    order: &'a Order,
    hidden: Vec<(&'static str, &'a str)>,
    /// Where the agents were chosen.
    back: (String, &'static str),
    /// The details of the preview, which the confirmation sends beside the fields.
    previewed: String,
    /// What the confirmation does, and to how many agents.
    button: String,
    /// Ids and names, and which is chosen.
    policies: Vec<(String, String, bool)>,
    levels: Vec<(&'static str, bool)>,
    preview: Option<Preview>,
    error: Option<Error>,
    unconfirmed: Option<Unconfirmed>,
    cli: String,
    api: String,
}

/// What an act would do.
struct Preview {
    count: u64,
    agents: String,
    excluded: u64,
    refused: Vec<Refused>,
}

/// Agents that are not eligible for the same reason: their number, the reason, ids and names of examples.
type Refused = (u64, String, Vec<(String, String)>);

impl Preview {
    async fn of(fleet: &Fleet, visitor: &Visitor, done: Done) -> Result<Self, Error> {
        let mut reasons: BTreeMap<String, (u64, Vec<AgentId>)> = BTreeMap::new();
        for (agent, reason) in done.refused {
            let (number, examples) = reasons.entry(reason).or_default();
            *number += 1;
            if examples.len() < EXAMPLES {
                examples.push(agent);
            }
        }
        let mut refused = Vec::new();
        for (reason, (number, examples)) in reasons {
            refused.push((number, reason, names_of(fleet, visitor, &examples).await?));
        }
        refused.sort_by_key(|(number, _, _)| std::cmp::Reverse(*number));
        let agents = counted(done.agents, "agent");
        Ok(Self { count: done.agents, agents, excluded: done.excluded, refused })
    }
}

/// Shows the acts, or the details of one with its preview.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(order): Params<Order>) -> Response {
    let shown = match order.act.as_str() {
        "" => choice(&fleet, &visitor, &order).await.map(|choice| page(StatusCode::OK, &choice)),
        _ => details(&fleet, &visitor, &order).await,
    };
    shown.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

async fn choice<'a>(fleet: &Fleet, visitor: &Visitor, order: &'a Order) -> Result<ChoicePage<'a>, Error> {
    let chosen = Chosen::of(fleet, visitor, order).await?;
    let agents = fleet.agents().select::<AgentsRead>(&visitor.context, &chosen.selected).await?;
    let found = fleet.actions().survey(&agents).await?;
    let item = |act: Act| {
        // All agents can be deleted.
        let all = || Eligible { agents: agents.len() as u64, ..Eligible::default() };
        let of = |surveyed: Surveyed| found.get(&surveyed).cloned().unwrap_or_default();
        let Eligible { agents, reasons } = act.surveyed().map_or_else(all, of);
        let missing = visitor.needs(act.privilege());
        Item { act, eligible: agents, reasons: reasons.into_iter().collect(), missing }
    };
    Ok(ChoicePage {
        frame: Frame::new(visitor, "Act on agents", TAB),
        text: chosen.text,
        hidden: order.selection(),
        back: order.origin(&visitor.base),
        acts: Act::ALL.map(item).into(),
    })
}

async fn details(fleet: &Fleet, visitor: &Visitor, order: &Order) -> Result<Response, Error> {
    let act = Act::parse(&order.act)?;
    visitor.context.check(act.privilege())?;
    let chosen = Chosen::of(fleet, visitor, order).await?;
    if order.preview.is_empty() && !act.is_complete() {
        return Ok(page(StatusCode::OK, &act_page(fleet, visitor, order, act, &chosen, None).await?));
    }
    let tried = try_act(fleet, visitor, order, act, &chosen).await;
    // An invalid detail is shown at its field, with what was typed.
    let status = tried.as_ref().err().map_or(StatusCode::OK, |error| status_of(error.kind));
    Ok(page(status, &act_page(fleet, visitor, order, act, &chosen, Some(tried)).await?))
}

async fn act_page<'a>(
    fleet: &Fleet,
    visitor: &Visitor,
    order: &'a Order,
    act: Act,
    chosen: &Chosen,
    tried: Option<Result<Done, Error>>,
) -> Result<ActPage<'a>, Error> {
    let (preview, error) = match tried {
        None => (None, None),
        Some(Ok(done)) => (Some(Preview::of(fleet, visitor, done).await?), None),
        Some(Err(error)) => (None, Some(error)),
    };
    let is_shown = preview.is_some();
    let policies = if act == Act::Assign { policies(fleet, visitor, &order.policy).await? } else { Vec::new() };
    let policy =
        policies.iter().find(|(_, _, is_chosen)| *is_chosen).map_or(order.policy.as_str(), |(_, name, _)| name);
    let button = preview.as_ref().map(|preview| act.sentence(&preview.agents, policy, order)).unwrap_or_default();
    let (path, body) = act.request(&chosen.api, order);
    Ok(ActPage {
        frame: Frame::new(visitor, act.title(), TAB),
        act,
        text: chosen.text.clone(),
        order,
        hidden: order.selection(),
        back: order.origin(&visitor.base),
        previewed: order.previewable(act),
        button,
        policies,
        levels: LEVELS.map(|level| (level, level == if order.level.is_empty() { "info" } else { &order.level })).into(),
        preview,
        error,
        unconfirmed: None,
        cli: if is_shown { commands(visitor, &act.commands(&chosen.cli, order)) } else { String::new() },
        api: if is_shown { curl(visitor, "POST", &path, &body.to_string()) } else { String::new() },
    })
}

/// Returns the ids and names of the policies to choose from, and which is chosen.
async fn policies(fleet: &Fleet, visitor: &Visitor, chosen: &str) -> Result<Vec<(String, String, bool)>, Error> {
    let Ok(grant) = visitor.context.grant::<PoliciesRead>() else { return Ok(Vec::new()) };
    let found = fleet.policies().list(&grant, Page { offset: 0, limit: POLICIES }).await?.items;
    let choice = |policy: Policy| (policy.id.to_string(), policy.name, policy.id.as_str() == chosen);
    Ok(found.into_iter().map(choice).collect())
}

async fn try_act(fleet: &Fleet, visitor: &Visitor, order: &Order, act: Act, chosen: &Chosen) -> Result<Done, Error> {
    let reason = checked_reason(Some(&order.reason))?;
    act.run(fleet, &visitor.context.clone().because(reason).trying(true), &chosen.selected, order).await
}

/// Does the act, and leads to its action.
pub async fn run(State(fleet): State<Arc<Fleet>>, Posted(visitor, order): Posted<Order, MAX_FORM>) -> Response {
    act(&fleet, &visitor, &order).await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

async fn act(fleet: &Fleet, visitor: &Visitor, order: &Order) -> Result<Response, Error> {
    let act = Act::parse(&order.act)?;
    let chosen = Chosen::of(fleet, visitor, order).await?;
    let tried = try_act(fleet, visitor, order, act, &chosen).await;
    let unconfirmed = tried.as_ref().map_or(None, |done| unconfirmed(order, act, done));
    if tried.is_err() || unconfirmed.is_some() {
        let status = tried.as_ref().err().map_or(StatusCode::CONFLICT, |error| status_of(error.kind));
        let shown = act_page(fleet, visitor, order, act, &chosen, Some(tried)).await?;
        return Ok(page(status, &ActPage { unconfirmed, ..shown }));
    }
    let context = visitor.context.clone().because(checked_reason(Some(&order.reason))?);
    let done = act.run(fleet, &context, &chosen.selected, order).await?;
    let agents = counted(done.agents, "agent");
    let base = &visitor.base;
    let (page, notice) = match done.actions.as_slice() {
        [] => (base.link(TAB), act.done(&agents)),
        [one] => (base.link(format_args!("/actions/{one}")), act.done(&agents)),
        // A rollback is an action for each version.
        several => (base.link("/actions"), format!("{} These are {} actions.", act.done(&agents), several.len())),
    };
    Ok(notice::redirect(page, &notice))
}

/// Compares an act with what the person has confirmed: details, and a number of agents. Since then, more may match the query.
fn unconfirmed(order: &Order, act: Act, done: &Done) -> Option<Unconfirmed> {
    if order.previewed != order.previewable(act) {
        return Some(Unconfirmed::Fields);
    }
    (done.agents == 0 || done.agents > order.count).then_some(Unconfirmed::Number)
}
