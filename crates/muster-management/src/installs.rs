//! `/v1/software/installs`: runs that install and uninstall software on hosts.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::PrivilegeName as Name;
use muster_core::host_run::DEFAULT_EXPIRY;
use muster_core::install::{InstallKind as Kind, InstallOnHost, InstallRun as Record};
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::host_runs::MAX_PAGE;
use muster_fleet::installs::NewInstall;
use muster_protocol::management::host_run::ListRunHosts;
use muster_protocol::management::install::{
    CreateInstall, HostInstall, HostInstalls, InstallKind, InstallOfHost, InstallRun,
};
use muster_protocol::management::{Empty, Item, Items};

use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::kql::agents::visible;
use super::query::Query;
use super::scripts::check_selection;

/// Privileges of which a caller needs one to read. With `software.install` alone, it sees its own runs.
const READ: &[Name] = &[Name::OsqueryRead, Name::SoftwareInstall];
const INSTALL: &[Name] = &[Name::SoftwareInstall];
/// Number of runs that are listed of a host.
const OF_HOST: usize = 50;

/// Endpoints for runs.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/v1/software/installs", create)
            .about("Install or uninstall software on hosts with orbit")
            .needs(INSTALL),
        Endpoint::get("/v1/software/installs", list).about("List installs and uninstalls").needs_one_of(READ),
        Endpoint::get("/v1/software/installs/{id}", get).about("Get an install or uninstall").needs_one_of(READ),
        Endpoint::get("/v1/software/installs/{id}/hosts", hosts)
            .about("List the hosts of an install, with their results")
            .needs_one_of(READ),
        Endpoint::post("/v1/software/installs/{id}/stop", stop)
            .about("Stop an install: no further host begins")
            .needs(INSTALL),
        Endpoint::get("/hosts/{id}/installs", of_host)
            .about("List the newest installs and uninstalls on a host")
            .needs(&[Name::AgentsRead]),
    ]
}

/// Converts a run.
fn converted(run: Record, now: Timestamp) -> InstallRun {
    InstallRun {
        state: run.state(now).to_owned(),
        id: run.id.to_string(),
        kind: match run.work.kind {
            Kind::Install => InstallKind::Install,
            Kind::Uninstall => InstallKind::Uninstall,
        },
        installer_id: run.work.installer.to_string(),
        name: run.name,
        version: run.work.version,
        targets: run.targets,
        finished: run.finished,
        failed: run.failed,
        max_retries: run.work.max_retries,
        created_by: run.created_by,
        created_at: time(run.created_at),
        expires_at: time(run.expires_at),
    }
}

fn on_host(found: InstallOnHost, run: &Record, now: Timestamp) -> HostInstall {
    let (outcome, failed_step) =
        (found.outcome(run, now).to_owned(), found.failed_step(run.work.kind).map(str::to_owned));
    let result = found.result.unwrap_or_default();
    HostInstall {
        agent_id: found.agent.to_string(),
        host_id: found.host.map(|host| host.to_string()),
        hostname: found.hostname,
        outcome,
        failed_step,
        attempts: found.attempts,
        retries_remaining: Some(result.retries_remaining).filter(|retries| *retries > 0),
        condition_output: result.condition,
        exit_code: result.script.as_ref().map(|step| step.exit_code),
        output: result.script.map(|step| step.output),
        post_install_exit_code: result.post_install.as_ref().map(|step| step.exit_code),
        post_install_output: result.post_install.map(|step| step.output),
        begun_at: found.begun_at.map(time),
        ended_at: found.ended_at.map(time),
    }
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<CreateInstall>,
) -> Answer<Item<InstallRun>> {
    let kuery = body.kuery.as_deref().map(str::trim);
    check_selection(&body.hosts, kuery)?;
    let new = NewInstall {
        kind: match body.kind {
            InstallKind::Install => Kind::Install,
            InstallKind::Uninstall => Kind::Uninstall,
        },
        installer: fleet.installs().installer(&context, &body.installer).await?,
        hosts: body.hosts,
        filter: visible(kuery.unwrap_or_default(), false, fleet.now())?,
        expiry: body.expires_in_seconds.map_or(DEFAULT_EXPIRY, Duration::from_secs),
        max_retries: body.max_retries.unwrap_or_default(),
    };
    let mut created = converted(fleet.installs().create(&context.grant()?, new).await?, fleet.now());
    if context.is_dry_run() {
        created.id = String::new();
    }
    Ok(item(created))
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<InstallRun>> {
    let (found, now) = (fleet.installs().list(&context).await?, fleet.now());
    Ok(every(found.into_iter().map(|run| converted(run, now)).collect()))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<InstallRun>> {
    let found = fleet.installs().find(&context, &id).await?;
    Ok(item(converted(found.run().clone(), fleet.now())))
}

async fn hosts(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<ListRunHosts>,
) -> Answer<HostInstalls> {
    let (found, now) = (fleet.installs().find(&context, &id).await?, fleet.now());
    let limit = query.limit.unwrap_or(MAX_PAGE);
    let page = fleet.installs().hosts(&found, query.after.as_deref(), limit).await?;
    let is_full = page.len() == limit as usize;
    Ok(Json(HostInstalls {
        next: page.last().filter(|_| is_full).map(|last| last.agent.to_string()),
        items: page.into_iter().map(|one| on_host(one, found.run(), now)).collect(),
        run: converted(found.run().clone(), now),
    }))
}

async fn stop(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(Empty {}): Body<Empty>,
) -> Answer<Item<InstallRun>> {
    let found = fleet.installs().find(&context, &id).await?;
    Ok(item(converted(fleet.installs().stop(&context, &found).await?, fleet.now())))
}

async fn of_host(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Items<InstallOfHost>> {
    let host = fleet.agents().host(&context.grant()?, &id).await?.host;
    let (found, now) = (fleet.installs().of_host(&context, &host.id, OF_HOST).await?, fleet.now());
    let converted = |(run, install): (Record, InstallOnHost)| {
        // Outputs are not read for this list.
        let without = HostInstall {
            condition_output: None,
            output: None,
            post_install_output: None,
            ..on_host(install, &run, now)
        };
        InstallOfHost { result: without, run: converted(run, now) }
    };
    Ok(every(found.into_iter().map(converted).collect()))
}
