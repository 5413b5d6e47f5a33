//! `/`: the fleet at a glance.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{AgentsRead, AlertsRead, Grant, PoliciesRead, RefusalsRead, Scope};
use muster_core::event::{Event, Severity, Subject};
use muster_core::id::SpaceId;
use muster_core::reported::{is_visible, shortened_to};
use muster_core::rollout::{Rollout, State as RolloutState};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::agent_history::CountsAt;
use muster_fleet::refusals::RefusedRow;
use muster_management::kql::agents as kql;
use muster_store::query::{AgentFilter, Page};

use super::agent::{name_of, name_or_id};
use super::asked::encoded;
use super::menu::{Known, versions};
use crate::chart;
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::names;
use crate::policies::{PolicyRow, rows};
use crate::rollouts::{readable, subjects};
use crate::text::{Badge, Moment, event_words};
use crate::visitor::Visitor;

/// Path of the page.
const TAB: &str = "/";
/// Number of rows in each of its tables.
const ROWS: usize = 5;
/// Maximum length of the name of a version or a platform, bytes.
const NAME: usize = 120;
/// Hours of the trend.
const HOURS: i64 = 7 * 24;

/// What a person should look at: what it is, of one agent and of several, and the query that finds the agents.
const ATTENTION: [(&str, &str, &str); 7] = [
    ("reports a failure", "report a failure", "status:error"),
    ("is offline", "are offline", "status:offline"),
    ("is degraded", "are degraded", "status:degraded"),
    ("left in the last 7 days", "left in the last 7 days", "left_at > now-7d"),
    (
        "has not applied a policy for over an hour",
        "have not applied a policy for over an hour",
        "policy_pending_since < now-1h",
    ),
    ("shares its key with another host", "share their key with another host", "duplicate_hosts:*"),
    ("failed to upgrade", "failed to upgrade", "upgrade_details.state:UPG_FAILED"),
];

#[derive(Template)]
#[template(path = "agents/overview.html")]
struct Overview {
    frame: Frame,
    total: u64,
    statuses: Vec<Bar>,
    trend: Option<Trend>,
    /// Whether the person sees all agents of the space.
    is_whole: bool,
    attention: Vec<Attention>,
    versions: Vec<Share>,
    platforms: Vec<Share>,
    /// Each `None` if the person lacks the privilege for it.
    policies: Option<Vec<PolicyRow>>,
    rollouts: Option<Vec<RolloutRow>>,
    alerts: Option<Vec<Alert>>,
    refused: Option<Vec<Refused>>,
    /// Whether this is the default space.
    is_default: bool,
}

/// A bar of the chart of statuses.
struct Bar {
    badge: Badge,
    count: u64,
    /// Length, in percent of the longest bar.
    percent: u64,
}

/// A group of agents.
struct Share {
    name: String,
    count: u64,
    percent: u64,
    link: String,
}

/// A rollout that has not ended.
struct RolloutRow {
    id: String,
    subject: String,
    state: String,
    /// Whether a person must decide about it.
    needs_decision: bool,
}

/// Agents that a person should look at.
struct Attention {
    count: u64,
    what: &'static str,
    link: String,
}

/// The numbers of the last days, as lines of a chart of 1,000 by 1,000.
struct Trend {
    online: String,
    all: String,
    most: u64,
    rows: Vec<(String, u64, u64)>,
}

/// A recent warning.
struct Alert {
    text: String,
    class: &'static str,
    link: String,
    at: Moment,
}

/// A kind of rejected requests.
struct Refused {
    /// Host name, id of an agent, or address.
    who: String,
    /// What the request says of its program; empty if nothing.
    program: String,
    /// Name or id of its key; empty if it has none.
    key: String,
    reason: String,
    remedy: &'static str,
    count: u64,
    at: Moment,
}

impl Overview {
    /// Whether a rollout waits for a person.
    fn needs_decision(&self) -> bool {
        self.rollouts.iter().flatten().any(|rollout| rollout.needs_decision)
    }
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    match read(&fleet, &visitor).await {
        Ok(overview) => page(StatusCode::OK, &overview),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor) -> Result<Overview, Error> {
    let grant = visitor.context.grant::<AgentsRead>()?;
    let counts = fleet.agents().count(&grant, &AgentFilter::default()).await?;
    let total = counts.iter().filter(|(status, _)| *status != Status::Unenrolled).map(|(_, count)| count).sum();
    let shown = kql::visible("", false, fleet.now())?;
    let found = fleet.agents().platforms(&grant, &shown).await?.into_iter().map(|(platform, number)| Known {
        condition: format!("local_metadata.os.platform:{}", super::asked::quoted(&platform)),
        name: if is_visible(&platform) { platform } else { "unknown".into() },
        number: Some(number),
    });
    Ok(Overview {
        frame: Frame::new(visitor, "Overview", TAB),
        total,
        statuses: bars(&counts),
        trend: trend(&fleet.agents().history(&grant, HOURS).await?),
        is_whole: *grant.scope() == Scope::Whole,
        attention: attention(fleet, visitor, &grant).await?,
        versions: shares(versions(fleet, visitor, &shown).await?, &visitor.base),
        platforms: shares(found.collect(), &visitor.base),
        policies: policies(fleet, visitor).await?,
        rollouts: rollouts(fleet, visitor).await?,
        alerts: alerts(fleet, visitor).await?,
        refused: refused(fleet, visitor).await,
        is_default: *visitor.context.space() == SpaceId::default(),
    })
}

fn bars(counts: &[(Status, u64)]) -> Vec<Bar> {
    let longest = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    // The healthy ones first, as people read the chart.
    let bar = |status: Status| {
        let count = counts.iter().find(|(counted, _)| *counted == status).map_or(0, |(_, count)| *count);
        Bar { badge: Badge(status), count, percent: (count * 100).div_ceil(longest) }
    };
    Status::ALL.into_iter().rev().map(bar).filter(|bar| bar.count > 0 || bar.badge.0 == Status::Online).collect()
}

fn shares(mut known: Vec<Known>, base: &Base) -> Vec<Share> {
    let longest = known.iter().filter_map(|one| one.number).max().unwrap_or(0).max(1);
    known.truncate(ROWS);
    let share = |one: Known| {
        let count = one.number.unwrap_or(0);
        let link = format!("{base}/agents?q={}", encoded(&one.condition));
        Share {
            name: shortened_to(&one.name, NAME).into_owned(),
            count,
            percent: (count * 100).div_ceil(longest),
            link,
        }
    };
    known.into_iter().map(share).collect()
}

/// The numbers of agents at a time.
struct Point {
    at: Timestamp,
    all: u64,
    online: u64,
}

/// Draws the numbers of agents; `None` if less than two hours are known.
fn trend(history: &[CountsAt]) -> Option<Trend> {
    let (first, last) = (history.first()?.at, history.last()?.at);
    let point = |one: &CountsAt| Point {
        at: one.at,
        all: one.counts.iter().map(|(_, number)| number).sum(),
        online: one.counts.iter().filter(|(status, _)| *status == Status::Online).map(|(_, number)| number).sum(),
    };
    let points: Vec<Point> = history.iter().map(point).collect();
    let most = points.iter().map(|point| point.all).max().unwrap_or(0).max(1);
    let length = last.since(first).as_secs();
    let line = |number: fn(&Point) -> u64| {
        chart::line(points.iter().map(|point| (point.at.since(first).as_secs(), number(point))), length, most)
    };
    // The table has a row for every sixth hour, and the last one.
    let is_shown = |index: usize| index.is_multiple_of(6) || index + 1 == points.len();
    let rows = points.iter().enumerate().filter(|(index, _)| is_shown(*index));
    (history.len() > 1).then(|| Trend {
        online: line(|point| point.online),
        all: line(|point| point.all),
        most,
        rows: rows.map(|(_, point)| (point.at.to_rfc3339_seconds(), point.all, point.online)).collect(),
    })
}

/// Returns what there is to look at.
async fn attention(fleet: &Fleet, visitor: &Visitor, grant: &Grant<AgentsRead>) -> Result<Vec<Attention>, Error> {
    let mut found = Vec::new();
    for (of_one, of_several, query) in ATTENTION {
        let counts = fleet.agents().count(grant, &kql::visible(query, false, fleet.now())?).await?;
        let count = counts.iter().map(|(_, count)| count).sum();
        let link = format!("{}/agents?q={}", visitor.base, encoded(query));
        let what = if count == 1 { of_one } else { of_several };
        found.push(Attention { count, what, link });
    }
    found.retain(|one| one.count > 0);
    Ok(found)
}

/// Returns the policies with the most agents; `None` for those who may not read policies.
async fn policies(fleet: &Fleet, visitor: &Visitor) -> Result<Option<Vec<PolicyRow>>, Error> {
    let Ok(grant) = visitor.context.grant::<PoliciesRead>() else { return Ok(None) };
    let mut all = rows(fleet, &grant).await?;
    all.sort_by_key(|row| std::cmp::Reverse(row.agents));
    all.truncate(ROWS);
    Ok(Some(all))
}

/// Returns the rollouts that have not ended.
async fn rollouts(fleet: &Fleet, visitor: &Visitor) -> Result<Option<Vec<RolloutRow>>, Error> {
    let Ok(grant) = visitor.context.grant::<PoliciesRead>() else { return Ok(None) };
    let newest = fleet.rollouts().list(&grant, Page { offset: 0, limit: 100 }).await?.items;
    let is_open = |one: &Rollout| !matches!(one.state, RolloutState::Completed | RolloutState::RolledBack { .. });
    let open: Vec<Rollout> = newest.into_iter().filter(is_open).take(ROWS).collect();
    let row = |(rollout, subject): (&Rollout, String)| RolloutRow {
        id: rollout.id.to_string(),
        subject,
        state: format!(
            "{}, wave {} of {}",
            readable(rollout.state.as_str()),
            rollout.started.len(),
            rollout.plan.waves.len()
        ),
        needs_decision: matches!(rollout.state, RolloutState::Halted { .. } | RolloutState::AwaitingApproval),
    };
    Ok(Some(open.iter().zip(subjects(fleet, &grant, &open).await?).map(row).collect()))
}

/// Returns the latest warnings; `None` for those who may not read alerts.
async fn alerts(fleet: &Fleet, visitor: &Visitor) -> Result<Option<Vec<Alert>>, Error> {
    let Ok(grant) = visitor.context.grant::<AlertsRead>() else { return Ok(None) };
    let now = fleet.now();
    let alert = |(event, name): (Event, String)| {
        let place = match event.subject.kind.as_str() {
            "agent" => "agents",
            "policy" => "policies",
            "rollout" => "rollouts",
            _ => "",
        };
        Alert {
            text: format!("{}: {name}", event_words(event.kind)),
            class: if event.kind.severity() == Severity::Error { "bad" } else { "warn" },
            link: if place.is_empty() {
                String::new()
            } else {
                format!("{}/{place}/{}", visitor.base, event.subject.id)
            },
            at: Moment::new(event.at, now),
        }
    };
    let mut alerts = Vec::new();
    for event in fleet.alerts().recent_problems(&grant, ROWS * 2).await? {
        let name = alert_name(fleet, visitor, &event).await?;
        let next = alert((event, name));
        // The programs of a host are lost together: one line is enough.
        let is_told = |one: &Alert| one.text == next.text && one.at.relative == next.at.relative;
        if !alerts.iter().any(is_told) {
            alerts.push(next);
        }
    }
    Ok(Some(alerts))
}

/// Returns the name of what an event is about. A rollout has none of its own.
async fn alert_name(fleet: &Fleet, visitor: &Visitor, event: &Event) -> Result<String, Error> {
    let Subject { kind, id, name, .. } = &event.subject;
    if kind == "rollout"
        && let Ok(rollout) = fleet.rollouts().find::<PoliciesRead>(&visitor.context, id).await
        && let Some(subject) = subjects(fleet, &visitor.context.grant()?, std::slice::from_ref(&*rollout)).await?.pop()
    {
        return Ok(subject);
    }
    Ok(name_or_id(name, id).to_owned())
}

/// Returns the latest rejected requests; `None` for those who may not read them. They come from every space, and from nobody that
/// is known: those are shown in the default space, and in another one only what belongs to it.
async fn refused(fleet: &Fleet, visitor: &Visitor) -> Option<Vec<Refused>> {
    let grant = visitor.context.grant::<RefusalsRead>().ok()?;
    let is_default = *visitor.context.space() == SpaceId::default();
    let mut all = fleet.refusals().list(&grant);
    all.sort_by_key(|row| std::cmp::Reverse(row.last));
    let mut shown = Vec::new();
    for RefusedRow { refused, count, last, .. } in all {
        let (mut host, mut key) = (None, None);
        if let Some(id) = &refused.agent {
            let found = fleet.agents().find::<AgentsRead>(&visitor.context, id).await;
            host = found.ok().map(|agent| name_of(&agent));
        }
        if let Some(id) = &refused.key {
            key = names::key(fleet, visitor, id).await;
        }
        if is_default || host.is_some() || key.is_some() {
            shown.push(Refused {
                who: host.or(refused.agent).unwrap_or(refused.address),
                program: refused.version,
                key: key.or(refused.key).unwrap_or_default(),
                reason: refused.message,
                remedy: refused.remedy,
                count,
                at: Moment::new(last, fleet.now()),
            });
        }
        if shown.len() == ROWS {
            break;
        }
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_trend_is_drawn_from_the_hours_that_are_known() {
        let at = |hours: u64, online, offline| CountsAt {
            at: Timestamp::from_micros(0).plus(Duration::from_secs(hours * 3_600)),
            counts: vec![(Status::Online, online), (Status::Offline, offline)],
        };
        assert!(trend(&[]).is_none() && trend(&[at(1, 1, 0)]).is_none());
        let drawn = trend(&[at(10, 5, 5), at(12, 8, 2), at(20, 4, 0)]).unwrap();
        assert_eq!((drawn.most, drawn.online.as_str()), (10, "M0 500L200 200L1000 600"));
        assert_eq!(drawn.all, "M0 0L200 0L1000 600");
        assert_eq!(drawn.rows.len(), 2);
    }
}
