//! Login, the caller, and what clients ask about the server.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use muster_core::ErrorKind;
use muster_core::authorization::PrivilegeName;
use muster_core::fleetd::numbers;
use muster_core::identity::User;
use muster_fleet::Fleet;
use muster_management::credentials::check_not_cross_site;
use muster_management::entry::{Connection, record_refusal};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::entry::{Caller, Credentials, SESSION, team_id};
use crate::failure::{Answer, Failure};
use crate::params::Input;
use crate::routes::Route;

/// Routes for sessions and for the server.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/login", log_in, "Log in with a password; `email` is the user name"),
        Route::post("/logout", log_out, "Log out"),
        Route::get("/me", me, "The caller"),
        Route::get("/version", version, "Version of the server"),
        Route::get("/config", config, "What clients read before other requests"),
        Route::get("/status/live_query", healthy, "Whether live queries work"),
        Route::get("/status/result_store", healthy, "Whether results of live queries are received"),
    ]
}

#[derive(Deserialize)]
struct LogIn {
    email: String,
    password: String,
}

async fn log_in(
    State(fleet): State<Arc<Fleet>>,
    connection: Connection,
    headers: HeaderMap,
    Input(body): Input<LogIn>,
) -> Answer {
    // A page of another site must not log a browser in under an account of its choice.
    check_not_cross_site(&headers)?;
    let found = fleet.sign_in().log_in(&body.email, &body.password, connection.ip()).await;
    let new = found.map_err(|error| {
        // Failed logins appear among the recent refusals, like those on the web pages.
        record_refusal(&fleet, &connection, &headers, &body.email, &error);
        match error.kind {
            // fleetctl shows this text.
            ErrorKind::Unauthenticated => {
                Failure::new(StatusCode::UNAUTHORIZED, "Authentication failed", "Authentication failed")
            }
            _ => error.into(),
        }
    })?;
    let token = format!("{SESSION}{}", *new.cookie);
    // As its next requests are: clients take the role from this response.
    let credentials = Credentials::of_token(&token, connection)?;
    let context = credentials.authenticate(&fleet, &headers).await?;
    let mut answer = described(&Caller { fleet, context, credentials }, &new.user).await?;
    answer["token"] = token.into();
    Ok(Json(answer))
}

async fn log_out(caller: Caller) -> Answer {
    let Some(key) = caller.credentials.session() else {
        return Err(Failure::bad("an API token has no session to end; revoke it with `muster token revoke`"));
    };
    caller.fleet.sign_in().log_out(&caller.context, key).await?;
    Ok(Json(json!({})))
}

async fn me(caller: Caller) -> Answer {
    let found = caller.fleet.sign_in().user(&caller.context).await?;
    let found = found.ok_or_else(|| Failure::not_found("user", caller.context.actor()))?;
    Ok(Json(described(&caller, &found).await?))
}

/// Returns a caller with its role, and the teams in which it has one.
async fn described(caller: &Caller, found: &User) -> Result<Value, Failure> {
    let spaces = caller.spaces().await?;
    let mut teams = Vec::new();
    for space in &spaces {
        let context = caller.within(&space.id);
        let Some((id, role)) = team_id(&space.id).zip(role(|name| context.check(name).is_ok())) else { continue };
        teams.push(json!({"id": id, "name": space.name, "description": space.description, "role": role}));
    }
    let mut shown = user(found);
    shown["global_role"] = json!(role(|name| caller.context.check_everywhere(name).is_ok()));
    // A user of FleetDM has either a role everywhere or roles in teams.
    if shown["global_role"].is_null() {
        shown["teams"] = json!(teams);
    }
    Ok(json!({"user": shown, "available_teams": teams}))
}

/// Returns the role of FleetDM that comes closest to privileges; `None` if there are none that it could stand for.
fn role(has: impl Fn(PrivilegeName) -> bool) -> Option<&'static str> {
    // The most powerful role that fits: clients offer functions by role.
    const ROLES: [(PrivilegeName, &str); 4] = [
        (PrivilegeName::UsersWrite, "admin"),
        (PrivilegeName::OsqueryWrite, "maintainer"),
        (PrivilegeName::QueriesRun, "observer_plus"),
        (PrivilegeName::AgentsRead, "observer"),
    ];
    ROLES.into_iter().find(|(privilege, _)| has(*privilege)).map(|(_, role)| role)
}

fn user(user: &User) -> Value {
    let name = if user.full_name.is_empty() { &user.name } else { &user.full_name };
    json!({
        "id": numbers::of(user.id.as_str()),
        "name": name,
        // Muster's users have no addresses; clients show this, and log in with it.
        "email": user.name,
        "enabled": !user.is_locked(),
        "force_password_reset": false,
        "gravatar_url": "",
        "sso_enabled": user.federated.is_some(),
        "api_only": false,
        "global_role": null,
        "teams": [],
        "created_at": user.created_at.to_rfc3339_seconds(),
        "updated_at": user.updated_at.to_rfc3339_seconds(),
    })
}

async fn version(_: Caller) -> Answer {
    let version = env!("CARGO_PKG_VERSION");
    let unknown = "";
    Ok(Json(json!({
        "version": version, "branch": unknown, "revision": unknown, "go_version": unknown, "build_date": unknown,
        "build_user": unknown, "product": "muster",
    })))
}

async fn healthy(_: Caller) -> Answer {
    Ok(Json(json!({})))
}

async fn config(caller: Caller) -> Answer {
    let url = caller.fleet.urls().first().unwrap_or_default();
    Ok(Json(json!({
        "org_info": {"org_name": "Muster", "org_logo_url": "", "contact_url": ""},
        "server_settings": {
            // Scripts are not part of this API, and results of queries are not stored: clients then offer neither.
            "server_url": url, "live_query_disabled": false, "enable_analytics": false, "scripts_disabled": true,
            "query_reports_disabled": true,
        },
        // Clients use teams only with this tier. It is no claim about a license of FleetDM.
        "license": {"tier": "premium", "organization": "", "device_count": 0, "note": "",
            "expiration": "2100-01-01T00:00:00Z"},
        "features": {"enable_host_users": true, "enable_software_inventory": true},
        "host_expiry_settings": {"host_expiry_enabled": false, "host_expiry_window": 0},
        "smtp_settings": null, "sso_settings": null, "agent_options": null,
        "webhook_settings": {}, "integrations": {"jira": null, "zendesk": null}, "mdm": {}, "fleet_desktop": {},
    })))
}
