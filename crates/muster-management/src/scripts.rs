//! `/v1/scripts`: runs of scripts on hosts, and saved scripts.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::host_run::DEFAULT_EXPIRY;
use muster_core::script::{DEFAULT_TIMEOUT, SavedScript as SavedRecord, ScriptOnHost, ScriptRun as Record};
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::host_runs::MAX_PAGE;
use muster_fleet::scripts::{NewScriptRun, SavedScriptDraft, ScriptSource};
use muster_protocol::management::host_run::ListRunHosts;
use muster_protocol::management::script::{
    RunScript, SaveScript, SavedScript, ScriptExecution, ScriptExecutions, ScriptRun, ScriptSettings,
};
use muster_protocol::management::{Empty, Item, Items};

use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::kql::agents::visible;
use super::query::{IfMatch, Query};

/// Privileges of which a caller needs one to read. With `scripts.run` alone, it sees its own runs.
const READ: &[Name] = &[Name::ScriptsRead, Name::ScriptsRun];
const RUN: &[Name] = &[Name::ScriptsRun];
const WRITE: &[Name] = &[Name::ScriptsWrite];

/// Endpoints for scripts.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/v1/scripts/run", run).about("Run a script on hosts with orbit").needs(RUN),
        Endpoint::get("/v1/scripts/run", list).about("List runs of scripts").needs_one_of(READ),
        Endpoint::get("/v1/scripts/run/{id}", get).about("Get a run with its script").needs_one_of(READ),
        Endpoint::get("/v1/scripts/run/{id}/results", results).about("List the results of a run").needs_one_of(READ),
        Endpoint::post("/v1/scripts/run/{id}/stop", stop)
            .about("Stop a run: no further host gets the script")
            .needs(RUN),
        Endpoint::get("/v1/scripts", saved).about("List saved scripts").needs_one_of(READ),
        Endpoint::post("/v1/scripts", save).about("Save a script under a name").needs(WRITE),
        Endpoint::get("/v1/scripts/settings", settings)
            .about("Get whether scripts are enabled in the space")
            .needs_one_of(READ),
        Endpoint::put("/v1/scripts/settings", switch).about("Enable or disable scripts in the space").needs(WRITE),
        Endpoint::get("/v1/scripts/{id}", saved_one).about("Get a saved script, by id or name").needs_one_of(READ),
        Endpoint::delete("/v1/scripts/{id}", delete).about("Delete a saved script").needs(WRITE),
    ]
}

fn converted(run: Record, now: Timestamp) -> ScriptRun {
    ScriptRun {
        state: run.state(now).to_owned(),
        id: run.id.to_string(),
        name: run.name,
        script: Some(run.work.script).filter(|script| !script.is_empty()),
        sha256: run.work.sha256,
        targets: run.targets,
        finished: run.finished,
        failed: run.failed,
        created_by: run.created_by,
        created_at: time(run.created_at),
        expires_at: time(run.expires_at),
        timeout_seconds: run.work.timeout,
    }
}

fn execution(found: ScriptOnHost, run: &Record, now: Timestamp) -> ScriptExecution {
    let outcome = found.outcome(run, now).to_owned();
    let result = found.result.as_ref();
    ScriptExecution {
        agent_id: found.agent.to_string(),
        host_id: found.host.map(|host| host.to_string()),
        hostname: found.hostname,
        outcome,
        exit_code: result.map(|result| result.exit_code),
        runtime_seconds: result.map(|result| result.runtime),
        output: found.result.map(|result| result.output),
        begun_at: found.begun_at.map(time),
        ended_at: found.ended_at.map(time),
    }
}

fn saved_script(script: SavedRecord) -> SavedScript {
    SavedScript {
        id: script.id.to_string(),
        name: script.name,
        description: script.description,
        script: Some(script.script).filter(|script| !script.is_empty()),
        sha256: script.sha256,
        version: script.version,
        updated_by: script.updated_by,
        updated_at: time(script.updated_at),
    }
}

/// Validates which hosts a script or software is for. It never goes to all hosts by accident: hosts or a filter are required, and an empty
/// filter is an error.
pub fn check_selection(hosts: &[String], kuery: Option<&str>) -> Result<(), Error> {
    if kuery == Some("") || (kuery.is_none() && hosts.is_empty()) {
        return Err(Error::invalid("hosts", "name the hosts, or select them with `kuery`")
            .remedy("to select all hosts, use the kuery `family:orbit`"));
    }
    Ok(())
}

async fn run(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<RunScript>,
) -> Answer<Item<ScriptRun>> {
    let kuery = body.kuery.as_deref().map(str::trim);
    check_selection(&body.hosts, kuery)?;
    let source = match body.saved {
        Some(_) if !body.script.is_empty() => {
            return Err(Error::invalid("saved", "cannot be combined with `script`").into());
        }
        Some(named) => ScriptSource::Saved(Box::new(fleet.scripts().find_saved(&context, &named).await?)),
        None => ScriptSource::Text { name: body.name, script: body.script },
    };
    let new = NewScriptRun {
        source,
        hosts: body.hosts,
        filter: visible(kuery.unwrap_or_default(), false, fleet.now())?,
        expiry: body.expires_in_seconds.map_or(DEFAULT_EXPIRY, Duration::from_secs),
        timeout: body.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT),
    };
    let run = fleet.scripts().create(&context.grant()?, new).await?;
    let mut created = converted(fleet.scripts().shown(&context, run)?, fleet.now());
    if context.is_dry_run() {
        created.id = String::new();
    }
    Ok(item(created))
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<ScriptRun>> {
    let (found, now) = (fleet.scripts().list(&context).await?, fleet.now());
    Ok(every(found.into_iter().map(|run| converted(run, now)).collect()))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<ScriptRun>> {
    let found = fleet.scripts().find(&context, &id).await?;
    Ok(item(converted(found.run().clone(), fleet.now())))
}

async fn results(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<ListRunHosts>,
) -> Answer<ScriptExecutions> {
    let (found, now) = (fleet.scripts().find(&context, &id).await?, fleet.now());
    let limit = query.limit.unwrap_or(MAX_PAGE);
    let page = fleet.scripts().hosts(&found, query.after.as_deref(), limit).await?;
    let is_full = page.len() == limit as usize;
    Ok(Json(ScriptExecutions {
        next: page.last().filter(|_| is_full).map(|last| last.agent.to_string()),
        items: page.into_iter().map(|one| execution(one, found.run(), now)).collect(),
        run: ScriptRun { script: None, ..converted(found.run().clone(), now) },
    }))
}

async fn stop(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(Empty {}): Body<Empty>,
) -> Answer<Item<ScriptRun>> {
    let found = fleet.scripts().find(&context, &id).await?;
    Ok(item(converted(fleet.scripts().stop(&context, &found).await?, fleet.now())))
}

async fn saved(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<SavedScript>> {
    Ok(every(fleet.scripts().saved(&context).await?.into_iter().map(saved_script).collect()))
}

async fn saved_one(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<SavedScript>> {
    Ok(item(saved_script(fleet.scripts().show_saved(&context, &id).await?)))
}

async fn save(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    version: IfMatch,
    Body(body): Body<SaveScript>,
) -> Answer<Item<SavedScript>> {
    let SaveScript { name, description, script } = body;
    let draft = SavedScriptDraft { name, description, script };
    Ok(item(saved_script(fleet.scripts().save(&context.grant()?, draft, version.number()?).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.scripts().delete_saved(&context.grant()?, &id).await?;
    Ok(Json(Empty {}))
}

async fn settings(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Item<ScriptSettings>> {
    Ok(item(ScriptSettings { enabled: fleet.scripts().are_enabled(&context).await? }))
}

async fn switch(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<ScriptSettings>,
) -> Answer<Item<ScriptSettings>> {
    fleet.scripts().enable(&context.grant()?, body.enabled).await?;
    Ok(item(body))
}
