//! `/scripts/runs/{id}`: a run with what became of it on each host.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use muster_core::script::{ScriptOnHost, ScriptRun};
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::scripts::SeenScript;
use serde::Deserialize;

use super::super::TAB;
use super::super::facts::cut;
use super::super::runs::seen;
use super::{API, PATH, State3, state_of};
use crate::agents::agent::name_or_id;
use crate::agents::asked::encoded;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::people::People;
use crate::request::{Id, Pressed};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Number of hosts on a page.
const ROWS: u32 = 25;
/// Maximum length of an output in the list, and of the script, bytes. The page of one host shows the whole output.
const OUTPUT: usize = 1_200;
const SCRIPT: usize = 32 << 10;

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Agent after which the hosts begin.
    after: String,
    /// The only agent that is shown.
    agent: String,
    /// What an open page shows. Only in requests that renew it.
    seen: String,
}

#[derive(Template)]
#[template(path = "hosts/script_results.html")]
struct ResultsPage {
    frame: Frame,
    id: String,
    name: String,
    sha256: String,
    /// The script, cut; empty for those who may not read it.
    script: String,
    state: State3,
    /// Whether results may still come.
    is_live: bool,
    /// Whether the run can be stopped.
    is_running: bool,
    targets: u64,
    finished: u64,
    failed: u64,
    by: String,
    created: Moment,
    expires: Moment,
    timeout: u64,
    rows: Vec<Row>,
    /// Whether only one host is shown.
    is_one: bool,
    /// Whether the page does not begin with the first host.
    is_later: bool,
    here: String,
    next: String,
    /// Link that renews the page.
    live: String,
    /// Why the person may not stop the run.
    no_stop: String,
    cli: String,
    api: String,
}

/// The execution on a host.
struct Row {
    host: String,
    agent: String,
    name: String,
    state: State3,
    exit_code: Option<i64>,
    runtime: Option<u64>,
    at: Option<Moment>,
    output: String,
    /// Whether the output is longer.
    is_cut: bool,
}

/// Returns what became of a run on a host.
pub fn outcome(execution: &ScriptOnHost, run: &ScriptRun, now: Timestamp) -> State3 {
    let (class, sign, text) = match execution.outcome(run, now) {
        "pending" => ("busy", "◐", "waiting for the host"),
        "running" => ("busy", "◐", "running"),
        "success" => ("good", "●", "succeeded"),
        "timed_out" => return ("bad", "✕", format!("killed after {} s", run.work.timeout)),
        "disabled" => ("warn", "▲", "scripts are switched off on the host"),
        "expired" => ("warn", "▲", "not fetched in time"),
        "stopped" => ("quiet", "–", "stopped before the host fetched it"),
        "no_result" => ("warn", "▲", "no result in time"),
        "host_deleted" => ("quiet", "–", "the host has left the space"),
        _ => ("bad", "✕", "failed"),
    };
    (class, sign, text.to_owned())
}

impl Row {
    fn new(execution: &ScriptOnHost, run: &ScriptRun, most: usize, now: Timestamp) -> Self {
        let agent = execution.agent.to_string();
        let result = execution.result.as_ref();
        let whole = result.map(|result| result.output.replace("\r\n", "\n")).unwrap_or_default();
        let output = end_of(whole.trim_end(), most);
        Self {
            host: execution.host.as_ref().map(ToString::to_string).unwrap_or_default(),
            name: cut(name_or_id(&execution.hostname, &agent)),
            state: outcome(execution, run, now),
            // Those of orbit itself are no exit codes of the script; the state tells what they mean.
            exit_code: result.map(|result| result.exit_code).filter(|code| *code >= 0),
            runtime: result.map(|result| result.runtime),
            at: Moment::of(execution.ended_at.or(execution.begun_at), now),
            is_cut: output.len() < whole.trim_end().len(),
            output: output.to_owned(),
            agent,
        }
    }
}

/// Returns the end of a text: errors come last.
fn end_of(text: &str, most: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(most))..]
}

/// Shows a run.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    match content(&fleet, &visitor, &id, &asked, headers.contains_key("hx-request")).await {
        Ok(Some(shown)) => page(StatusCode::OK, &shown),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

/// Returns the page; `None` if an open page already shows it.
async fn content(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    asked: &Asked,
    is_renewal: bool,
) -> Result<Option<ResultsPage>, Error> {
    let seen_run = fleet.scripts().find(&visitor.context, id).await?;
    let executions = read(fleet, &seen_run, asked).await?;
    let (run, now) = (seen_run.run(), fleet.now());
    let seen = seen(run, &executions, now);
    if is_renewal && asked.seen == seen {
        return Ok(None);
    }
    let here = format!("{}{PATH}/runs/{id}", visitor.base);
    let is_one = !asked.agent.is_empty();
    let most = if is_one { usize::MAX } else { OUTPUT };
    let next = executions.last().filter(|_| !is_one && executions.len() == ROWS as usize);
    let no_stop = fleet.scripts().may_stop(&visitor.context, &seen_run).err();
    Ok(Some(ResultsPage {
        frame: Frame::new(visitor, format!("Run of {}", run.name), TAB),
        id: run.id.to_string(),
        script: muster_core::reported::shortened_to(&run.work.script, SCRIPT).into_owned(),
        state: state_of(run, now),
        is_live: run.finished < run.targets && now < run.results_until(),
        is_running: run.state(now) == "running",
        by: People::new(fleet, visitor).name(&run.created_by).await,
        created: Moment::new(run.created_at, now),
        expires: Moment::new(run.expires_at, now),
        rows: executions.iter().map(|one| Row::new(one, run, most, now)).collect(),
        next: next.map(|last| format!("{here}?after={}", encoded(last.agent.as_str()))).unwrap_or_default(),
        live: format!("{here}?after={}&agent={}&seen={seen}", encoded(&asked.after), encoded(&asked.agent)),
        no_stop: no_stop.map(|error| error.message.to_string()).unwrap_or_default(),
        is_later: !asked.after.is_empty(),
        name: run.name.clone(),
        sha256: run.work.sha256.clone(),
        targets: run.targets,
        finished: run.finished,
        failed: run.failed,
        timeout: run.work.timeout,
        is_one,
        here,
        cli: cli(visitor, &format!("script results {}", shell::argument(id))),
        api: curl(visitor, "GET", &format!("{API}/{id}/results"), ""),
    }))
}

async fn read(fleet: &Fleet, run: &SeenScript, asked: &Asked) -> Result<Vec<ScriptOnHost>, Error> {
    if !asked.agent.is_empty() {
        return Ok(vec![fleet.scripts().host(run, &asked.agent).await?]);
    }
    let after = Some(asked.after.as_str()).filter(|after| !after.is_empty());
    fleet.scripts().hosts(run, after, ROWS).await
}

/// Stops a run.
pub async fn stop(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let seen = fleet.scripts().find(&visitor.context, &id).await?;
        fleet.scripts().stop(&visitor.context, &seen).await?;
        let text = "The run is stopped. Hosts that have fetched the script finish it.";
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{PATH}/runs/{id}")), text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_is_shown_whole_characters_only() {
        assert_eq!(end_of("abc", 5), "abc");
        assert_eq!(end_of("aäb", 2), "b");
        assert_eq!(end_of("abc", usize::MAX), "abc");
    }
}
