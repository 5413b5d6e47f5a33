//! `/software/installs/{id}`: an install or uninstall with its hosts.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use muster_core::authorization::PrivilegeName;
use muster_core::install::{InstallOnHost, InstallRun};
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::host_runs::MAX_PAGE;
use serde::Deserialize;

use super::{INSTALLERS, INSTALLS, INSTALLS_API, progress, state, title};
use crate::agents::agent::name_or_id;
use crate::agents::asked::encoded;
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::hosts::TAB;
use crate::hosts::facts::cut;
use crate::hosts::runs::seen;
use crate::pager::Pager;
use crate::people::People;
use crate::request::{Id, Pressed};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The last agent of the previous page.
    after: String,
    /// What an open page shows. Only in requests that renew it.
    seen: String,
}

#[derive(Template)]
#[template(path = "hosts/install_run.html")]
struct RunPage {
    frame: Frame,
    id: String,
    /// Path of the installer, which may have been deleted.
    installer: String,
    state: super::State,
    progress: String,
    created: Moment,
    created_by: String,
    expires: Moment,
    retries: u64,
    is_running: bool,
    /// Link that renews the page; empty if no result can come any more.
    live: String,
    hosts: Vec<HostRow>,
    pager: Pager,
    lacks: &'static str,
    cli: String,
    api: String,
}

struct HostRow {
    /// Id of the host, or empty; then that of its orbit.
    host: String,
    agent: String,
    name: String,
    state: super::State,
    step: String,
    ended: Option<Moment>,
    attempts: u64,
    /// Names, exit codes and outputs of the steps that ran.
    outputs: Vec<(&'static str, String)>,
}

impl HostRow {
    fn new(one: InstallOnHost, run: &InstallRun, now: Timestamp) -> Self {
        let agent = one.agent.to_string();
        Self {
            state: super::outcome(one.outcome(run, now)),
            step: one.failed_step(run.work.kind).map(str::to_owned).unwrap_or_default(),
            host: one.host.as_ref().map(ToString::to_string).unwrap_or_default(),
            name: cut(name_or_id(&one.hostname, &agent)),
            ended: Moment::of(one.ended_at, now),
            attempts: one.attempts,
            outputs: outputs(one),
            agent,
        }
    }
}

fn outputs(one: InstallOnHost) -> Vec<(&'static str, String)> {
    let Some(result) = one.result else { return Vec::new() };
    let condition = result.condition.filter(|text| !text.is_empty()).map(|text| ("Condition", text));
    let steps = [("Script", result.script), ("Post-install script", result.post_install)];
    let ran = steps
        .into_iter()
        .filter_map(|(name, step)| step.map(|step| (name, format!("exit code {}\n{}", step.exit_code, step.output))));
    condition.into_iter().chain(ran).collect()
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
) -> Result<Option<RunPage>, Error> {
    let (found, now) = (fleet.installs().find(&visitor.context, id).await?, fleet.now());
    let after = Some(asked.after.as_str()).filter(|after| !after.is_empty());
    let hosts = fleet.installs().hosts(&found, after, MAX_PAGE).await?;
    let run = found.run();
    let seen = seen(run, &hosts, now);
    if is_renewal && asked.seen == seen {
        return Ok(None);
    }
    let here = format!("{}{INSTALLS}/{}?after=", visitor.base, run.id);
    let is_live = run.finished < run.targets && now < run.results_until();
    let last = hosts.last().filter(|_| hosts.len() == MAX_PAGE as usize);
    Ok(Some(RunPage {
        frame: Frame::new(visitor, title(run), TAB),
        installer: format!("{INSTALLERS}/{}", run.work.installer),
        state: state(run, now),
        progress: progress(run),
        created: Moment::new(run.created_at, now),
        created_by: People::new(fleet, visitor).name(&run.created_by).await,
        expires: Moment::new(run.expires_at, now),
        retries: run.work.max_retries,
        is_running: run.state(now) == "running",
        live: if is_live { format!("{here}{}&seen={seen}", encoded(&asked.after)) } else { String::new() },
        pager: Pager {
            next: last.map(|last| format!("{here}{}", encoded(last.agent.as_str()))).unwrap_or_default(),
            ..Pager::default()
        },
        hosts: hosts.into_iter().map(|one| HostRow::new(one, run, now)).collect(),
        lacks: visitor.lacks(PrivilegeName::SoftwareInstall),
        cli: cli(visitor, &format!("software results {}", shell::argument(run.id.as_str()))),
        api: curl(visitor, "GET", &format!("{INSTALLS_API}/{}/hosts", run.id), ""),
        id: run.id.to_string(),
    }))
}

/// Stops a run.
pub async fn stop(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let found = fleet.installs().find(&visitor.context, &id).await?;
        let run = fleet.installs().stop(&visitor.context, &found).await?;
        let text = "Stopped. Hosts that have begun report their results.";
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{INSTALLS}/{}", run.id)), text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
