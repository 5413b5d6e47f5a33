//! `/rollouts/{id}`: the waves of a rollout, the figures of its gate, what was done to it, and what can be done.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::authorization::{PoliciesRead, PrivilegeName};
use muster_core::rollout::{Observation, Rollout, State as Phase, Subject};
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::audit_log::{AuditQuery, AuditView};
use serde::Deserialize;

use super::plan::{DrawnWave, draw};
use super::{StateText, TAB, named, names, readable};
use crate::confirm::{Confirm, shown};
use crate::durations::written;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::people::People;
use crate::policies::agents;
use crate::policies::change::because;
use crate::request::{Id, Posted, newest_change};
use crate::text::{Moment, sentence};
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Number of lines of the audit log on the page.
const HISTORY: u32 = 30;

/// Parameters of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The newest change that the browser has seen. Only in requests that renew the page.
    seen: Option<i64>,
}

/// An act, and the form of its confirmation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    act: String,
    reason: String,
}

#[derive(Template)]
#[template(path = "rollouts/rollout.html")]
struct RolloutPage {
    frame: Frame,
    id: String,
    state: StateText,
    reason: String,
    /// Link to the policy; empty for an upgrade.
    policy: String,
    /// The revision that a roll back returns to.
    last_good: Option<i64>,
    by: String,
    created: Moment,
    updated: Moment,
    waves: Vec<DrawnWave>,
    started: Vec<Moment>,
    gate: Vec<Figure>,
    /// When the next wave can start.
    next_at: Option<Moment>,
    reached: String,
    acts: Vec<Act>,
    cannot: &'static str,
    history: Option<Vec<Event>>,
    live: String,
    cli: String,
    api: String,
}

/// A figure of the gate.
struct Figure {
    label: &'static str,
    count: u64,
    of: u64,
    /// Share in percent.
    share: u64,
    limit: String,
    /// Class of the color, sign and words of its state.
    state: (&'static str, &'static str, &'static str),
}

/// Something that can be done in the rollout's state.
struct Act {
    word: &'static str,
    button: &'static str,
    /// Class of its button.
    class: &'static str,
}

/// What was done to the rollout.
struct Event {
    at: Moment,
    actor: String,
    action: String,
    reason: String,
}

/// Shows the page.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    let Some(newest) = newest_change(&fleet, &headers, asked.seen) else {
        return StatusCode::NO_CONTENT.into_response();
    };
    match read(&fleet, &visitor, &id, newest).await {
        Ok(rollout) => page(StatusCode::OK, &rollout),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, id: &str, newest: i64) -> Result<RolloutPage, Error> {
    let rollout = fleet.rollouts().find::<PoliciesRead>(&visitor.context, id).await?;
    let seen = fleet.rollouts().observe(&rollout).await?;
    let reach = fleet.rollouts().reach(&rollout).await?;
    let names = names(fleet, &visitor.context.grant()?, std::slice::from_ref(&*rollout)).await?;
    let now = fleet.now();
    let base = &visitor.base;
    let (policy, last_good) = match &rollout.subject {
        Subject::Policy { policy, last_good, .. } => (format!("{base}/policies/{policy}"), Some(*last_good)),
        Subject::Upgrade { .. } => (String::new(), None),
    };
    let acts = acts(&rollout);
    Ok(RolloutPage {
        frame: Frame::new(visitor, format!("Rollout of {}", named(&rollout, &names)), TAB),
        state: StateText::of(&rollout.state),
        reason: reason(&rollout.state),
        by: People::new(fleet, visitor).name(&rollout.created_by).await,
        created: Moment::new(rollout.created_at, now),
        updated: Moment::new(rollout.updated_at, now),
        waves: draw(&rollout.plan, &reach, |wave| wave_state(&rollout, wave)),
        started: rollout.started.iter().map(|wave| Moment::new(wave.at, now)).collect(),
        gate: figures(&rollout, &seen, now),
        next_at: next_at(&rollout, now),
        reached: agents(seen.agents),
        cannot: if acts.is_empty() { "" } else { visitor.lacks(privilege(&rollout)) },
        history: history(fleet, visitor, &rollout, now).await?,
        live: format!("{base}{TAB}/{}?seen={newest}", rollout.id),
        cli: cli(visitor, &format!("rollout show {}", rollout.id)),
        api: curl(visitor, "GET", &format!("/api/fleet/rollouts/{}", rollout.id), ""),
        id: rollout.id.to_string(),
        policy,
        last_good,
        acts,
    })
}

const fn privilege(rollout: &Rollout) -> PrivilegeName {
    match rollout.subject {
        Subject::Policy { .. } => PrivilegeName::PoliciesRollout,
        Subject::Upgrade { .. } => PrivilegeName::AgentsRollout,
    }
}

/// Why a rollout does not go on.
fn reason(state: &Phase) -> String {
    match state {
        Phase::Halted { breach, .. } => format!("The health gate has stopped it: {breach}."),
        Phase::RolledBack { halted: Some(breach) } => format!("The health gate had stopped it: {breach}."),
        Phase::AwaitingAgents => "No agent of the current wave has applied the change.".to_owned(),
        Phase::AwaitingApproval => "The current wave has soaked. The next one needs an approval.".to_owned(),
        Phase::Paused => "No further wave starts. The agents that were reached keep what they got.".to_owned(),
        _ => String::new(),
    }
}

fn acts(rollout: &Rollout) -> Vec<Act> {
    let act = |word, button, class| Act { word, button, class };
    let pause = act("pause", "Pause", "plain");
    let roll_back = act("rollback", "Roll back", "plain");
    match rollout.state {
        // The gate has closed for a reason, so the safe act comes first.
        Phase::Halted { .. } => vec![act("rollback", "Roll back", ""), act("resume", "Resume", "plain")],
        Phase::Created | Phase::Running => vec![pause, roll_back],
        Phase::AwaitingApproval | Phase::AwaitingAgents => {
            vec![act("approve", "Approve the next wave", ""), pause, roll_back]
        }
        Phase::Paused => vec![act("resume", "Resume", ""), roll_back],
        Phase::Completed | Phase::RolledBack { .. } => Vec::new(),
    }
}

/// State of a wave: class, sign and word.
fn wave_state(rollout: &Rollout, wave: usize) -> (&'static str, &'static str, &'static str) {
    let started = rollout.started.len();
    match &rollout.state {
        Phase::Completed => ("good", "●", "done"),
        _ if wave + 1 < started => ("good", "●", "done"),
        Phase::RolledBack { .. } if wave < started => ("quiet", "–", "rolled back"),
        Phase::Halted { .. } if wave + 1 == started => ("bad", "✕", "halted"),
        _ if wave + 1 == started => ("busy", "◐", "current"),
        _ => ("quiet", "○", "not started"),
    }
}

fn next_at(rollout: &Rollout, now: Timestamp) -> Option<Moment> {
    let (wave, started) = rollout.current().filter(|_| rollout.state == Phase::Running)?;
    let at = started.at.plus(wave.soak);
    (at > now).then(|| Moment::new(at, now))
}

/// The figures of the gate, as it compares them.
fn figures(rollout: &Rollout, seen: &Observation, now: Timestamp) -> Vec<Figure> {
    let gate = &rollout.plan.gate;
    let newest = rollout.started.last();
    let turned = seen.unhealthy.saturating_sub(newest.map_or(0, |wave| wave.baseline.unhealthy));
    let most = |label, count: u64, percent: u8| {
        let is_open = count.saturating_mul(100) <= seen.agents.saturating_mul(percent.into());
        let state = if is_open { WITHIN } else { BEYOND };
        Figure {
            label,
            count,
            of: seen.agents,
            share: share(count, seen.agents),
            limit: format!("at most {percent}%"),
            state,
        }
    };
    let is_late = newest.is_some_and(|wave| now >= gate.deadline(wave.at));
    let applied = match (gate.is_applied(seen), is_late) {
        (true, _) => WITHIN,
        (false, true) => BEYOND,
        (false, false) => ("busy", "◐", "not yet"),
    };
    vec![
        most("turned degraded or failed", turned, gate.max_unhealthy_percent),
        most("rejected the change", seen.failed, gate.max_failed_percent),
        most("went offline after it", seen.silent, gate.max_silent_percent),
        Figure {
            label: "connected agents have applied it",
            count: seen.applied,
            of: seen.reachable,
            share: share(seen.applied, seen.reachable),
            limit: format!("at least {}% within {}", gate.min_applied_percent, written(gate.apply_within)),
            state: applied,
        },
    ]
}

/// State of a figure.
const WITHIN: (&str, &str, &str) = ("good", "●", "within the limit");
/// State of a figure.
const BEYOND: (&str, &str, &str) = ("bad", "✕", "beyond the limit");

fn share(count: u64, of: u64) -> u64 {
    count.saturating_mul(100).checked_div(of).unwrap_or(0)
}

/// Returns what was done to a rollout; `None` for those who may not read the audit log.
async fn history(
    fleet: &Fleet,
    visitor: &Visitor,
    rollout: &Rollout,
    now: Timestamp,
) -> Result<Option<Vec<Event>>, Error> {
    let Ok(view) = AuditView::of(&visitor.context) else { return Ok(None) };
    let query = AuditQuery {
        subject: Some(format!("rollout:{}", rollout.id)),
        since: Some(rollout.created_at),
        limit: HISTORY,
        ..AuditQuery::default()
    };
    let lines = fleet.audit().list(&view, &query).await?.lines;
    let (mut people, mut events) = (People::new(fleet, visitor), Vec::new());
    for event in lines.into_iter().map(|line| line.event) {
        events.push(Event {
            at: Moment::new(event.at, now),
            actor: people.name(&event.actor).await,
            action: happened(&event.action),
            reason: event.reason.unwrap_or_default(),
        });
    }
    Ok(Some(events))
}

/// Returns what happened to a rollout, in words.
fn happened(action: &str) -> String {
    let words = match action {
        "rollout.create" => "Created",
        "rollout.wave" => "Wave started",
        "rollout.await_approval" => "Waiting for approval",
        "rollout.await_agents" => "Waiting for agents",
        "rollout.approve" => "Approved",
        "rollout.pause" => "Paused",
        "rollout.halt" => "Halted by the health gate",
        "rollout.resume" => "Resumed",
        "rollout.complete" => "Completed",
        "rollout.rollback" => "Rolled back",
        _ => return sentence(&action.replace(['.', '_'], " ")),
    };
    words.to_owned()
}

/// Asks before an act.
pub async fn confirm(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(fields): Params<Fields>,
) -> Response {
    shown(&visitor, TAB, confirm_page(&fleet, &visitor, &id, &fields, None).await)
}

async fn confirm_page(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    fields: &Fields,
    error: Option<Error>,
) -> Result<Confirm, Error> {
    let rollout = fleet.rollouts().find::<PoliciesRead>(&visitor.context, id).await?;
    visitor.context.check(privilege(&rollout))?;
    let seen = fleet.rollouts().observe(&rollout).await?;
    let names = names(fleet, &visitor.context.grant()?, std::slice::from_ref(&*rollout)).await?;
    let (act, button, verb) = match fields.act.as_str() {
        "pause" => ("pause", "Pause", "Pause"),
        "resume" => ("resume", "Resume", "Resume"),
        "approve" => ("approve", "Approve", "Approve the next wave of"),
        "rollback" => ("rollback", "Roll back", "Roll back"),
        other => return Err(Error::invalid("act", format!("unknown act {other:?}"))),
    };
    let title = format!("{verb} the rollout of {}", named(&rollout, &names));
    let page = visitor.base.link(format_args!("{TAB}/{}", rollout.id));
    Ok(Confirm {
        text: vec![effect(&rollout, act, &seen)],
        hidden: vec![("act", act.to_owned())],
        reason: Some(fields.reason.clone()),
        button,
        is_dangerous: false,
        error,
        cli: cli(visitor, &format!("rollout {act} {}", shell::word(rollout.id.as_str()))),
        ..Confirm::new(visitor, title, TAB, page.clone(), page)
    })
}

/// Returns what an act will do, and to how many agents.
fn effect(rollout: &Rollout, act: &str, seen: &Observation) -> String {
    let reached = agents(seen.agents);
    match (act, &rollout.subject) {
        ("pause", _) => format!("No further wave starts. {reached} that the rollout has reached keep what they got."),
        ("resume", _) => format!(
            "The current wave, with {reached}, soaks once more. If its agents are still unhealthy, the rollout halts again."
        ),
        ("approve", _) => "The next wave starts now, unless the health gate has closed since.".to_owned(),
        (_, Subject::Policy { last_good, .. }) => format!(
            "All agents of the policy, of which the rollout has reached {}, get a new revision with the content of \
             revision {last_good}. The rollout ends.",
            seen.agents
        ),
        (_, Subject::Upgrade { .. }) => format!(
            "The rollout ends. Those of {reached} that run the new version return to the one before, if they still \
             have it."
        ),
    }
}

/// Does what was confirmed.
pub async fn act(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, fields): Posted<Fields>) -> Response {
    match done(&fleet, &visitor, &id, &fields).await {
        // With its time: the rollout may soon be in another state, while the page still shows the notice.
        Ok(done) => {
            let now = fleet.now();
            let text = format!("{done} at {}.", Moment::new(now, now).local);
            notice::redirect(visitor.base.link(format_args!("{TAB}/{id}")), &text)
        }
        Err(error) => {
            let error = in_words(error);
            shown(&visitor, TAB, confirm_page(&fleet, &visitor, &id, &fields, Some(error)).await)
        }
    }
}

/// Says in the words of the page that an act is not possible in the rollout's state.
fn in_words(error: Error) -> Error {
    if error.code != "wrong_rollout_state" {
        return error;
    }
    let message = error.message.split_once(": ").map_or(error.message.as_str(), |(_, reason)| reason);
    let remedy = Some("somebody else may have been faster; go back to see its state".to_owned());
    Error { message: readable(message), remedy, ..error }
}

async fn done(fleet: &Fleet, visitor: &Visitor, id: &str, fields: &Fields) -> Result<&'static str, Error> {
    let context = because(&visitor.context, &fields.reason)?;
    let rollouts = fleet.rollouts();
    let found = rollouts.control(&context, id).await?;
    match fields.act.as_str() {
        "pause" => rollouts.pause(&found).await.map(|_| "Paused"),
        "resume" => rollouts.resume(&found).await.map(|_| "Resumed"),
        "approve" => rollouts.approve(&found).await.map(|_| "Approved"),
        "rollback" => rollouts.roll_back(&context, &found).await.map(|_| "Rolled back"),
        other => Err(Error::invalid("act", format!("unknown act {other:?}"))),
    }
}
