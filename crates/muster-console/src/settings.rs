//! Keys, alerts, the audit log and the settings.

mod account;
mod alerts;
mod audit;
mod bindings;
pub mod keys;
#[cfg(debug_assertions)]
mod kit;
mod objects;
mod one_time;
mod privileges;
mod providers;
mod roles;
mod servers;
mod side;
mod signing_key;
mod space_settings;
mod spaces;
mod tokens;
mod uninstall_tokens;
mod users;

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use muster_core::Error;
use muster_core::authorization::PoliciesRead;
use muster_fleet::Fleet;
use muster_store::query::Page;

use crate::frame::page;
use crate::versioned::update;
use crate::visitor::Visitor;
use crate::{Route, failure};

/// Path of the settings, which is their tab.
const TAB: &str = "/settings";
/// Maximum number of policies that a form offers.
const POLICIES: u32 = 1_000;

/// The pages of this family.
pub fn pages() -> Vec<Route> {
    let mut pages = vec![
        ("/keys", get(keys::list)),
        ("/keys/new", get(keys::ask).post(keys::create)),
        ("/keys/one-time", get(one_time::list)),
        ("/keys/one-time/new", get(one_time::ask).post(one_time::create)),
        ("/keys/{id}", get(keys::show)),
        ("/keys/{id}/reveal", post(keys::reveal)),
        ("/keys/{id}/replace", get(keys::ask_to_replace).post(keys::replace)),
        ("/keys/{id}/revoke", get(keys::ask_to_revoke).post(keys::revoke)),
        ("/uninstall-tokens", get(uninstall_tokens::list)),
        ("/uninstall-tokens/{id}/reveal", post(uninstall_tokens::reveal)),
        ("/uninstall-tokens/{id}/rotate", get(uninstall_tokens::ask_to_rotate).post(uninstall_tokens::rotate)),
        ("/alerts", get(alerts::list)),
        ("/alerts/new", get(alerts::ask).post(alerts::create)),
        ("/alerts/{id}", get(alerts::show).post(update::<alerts::Fields>)),
        ("/alerts/{id}/test", post(alerts::test)),
        ("/alerts/{id}/mute", post(alerts::mute)),
        ("/alerts/{id}/delete", get(alerts::ask_to_delete).post(alerts::delete)),
        ("/audit", get(audit::show)),
        ("/audit/verify", get(audit::verify)),
        (TAB, get(side::index)),
        ("/settings/space", get(space_settings::show).post(space_settings::update)),
        ("/settings/servers", get(servers::show)),
        ("/settings/servers/{id}/drain", get(servers::ask_to_drain).post(servers::drain)),
        ("/settings/servers/{id}/resume", post(servers::resume)),
        ("/settings/signing-key/rotate", get(signing_key::ask).post(signing_key::rotate)),
    ];
    pages.extend(people());
    pages.extend(objects::pages::<objects::Outputs>());
    pages.extend(objects::pages::<objects::Hosts>());
    pages.extend(objects::pages::<objects::Proxies>());
    pages.extend(objects::pages::<objects::Downloads>());
    #[cfg(debug_assertions)]
    pages.push(("/ui/kit", get(kit::show)));
    pages
}

/// The pages of users, roles, tokens, spaces and one's own account.
fn people() -> Vec<Route> {
    vec![
        ("/settings/users", get(users::list)),
        ("/settings/users/new", get(users::ask).post(users::create)),
        ("/settings/users/{id}", get(users::show).post(users::bind)),
        ("/settings/users/{id}/setup-link", post(users::set_up_link)),
        ("/settings/users/{id}/sign-out", get(users::ask_to_sign_out).post(users::sign_out)),
        ("/settings/users/{id}/lock", get(users::ask_to_lock).post(users::lock)),
        ("/settings/users/{id}/unlock", post(users::unlock)),
        ("/settings/users/{id}/delete", get(users::ask_to_delete).post(users::delete)),
        ("/settings/bindings", get(bindings::list).post(bindings::bind)),
        ("/settings/providers", get(providers::list)),
        ("/settings/providers/new", get(providers::ask).post(providers::create)),
        ("/settings/providers/{id}", get(providers::show).post(update::<providers::Fields>)),
        ("/settings/providers/{id}/delete", get(providers::ask_to_delete).post(providers::delete)),
        ("/settings/bindings/{id}/delete", get(bindings::ask_to_unbind).post(bindings::unbind)),
        ("/settings/roles", get(roles::list)),
        ("/settings/roles/new", get(roles::ask).post(roles::create)),
        ("/settings/roles/{id}", get(roles::show).post(update::<roles::Fields>)),
        ("/settings/roles/{id}/delete", get(roles::ask_to_delete).post(roles::delete)),
        ("/settings/tokens", get(tokens::list)),
        ("/settings/tokens/new", get(tokens::ask).post(tokens::create)),
        ("/settings/tokens/{id}/revoke", get(tokens::ask_to_revoke).post(tokens::revoke)),
        ("/settings/spaces", get(spaces::list)),
        ("/settings/spaces/new", get(spaces::ask).post(spaces::create)),
        ("/settings/spaces/{id}", get(spaces::show).post(update::<spaces::Fields>)),
        ("/settings/spaces/{id}/delete", get(spaces::ask_to_delete).post(spaces::delete)),
        ("/settings/account", get(account::show).post(account::set_password)),
        ("/settings/account/sessions/{id}/end", post(account::end)),
        ("/settings/account/sign-out", get(account::ask_to_end_all).post(account::end_all)),
        ("/settings/account/theme", post(account::set_theme)),
        ("/settings/account/zone", post(account::set_zone)),
    ]
}

/// Answers with a page, or with the error that prevented it.
pub fn shown(visitor: &Visitor, tab: &'static str, made: Result<impl Template, Error>) -> Response {
    match made {
        Ok(template) => page(StatusCode::OK, &template),
        Err(error) => failure::inside(visitor, &error, tab),
    }
}

/// A policy that a form offers.
struct PolicyName {
    id: String,
    name: String,
}

/// Returns the policies that a person may read, by name. Others may have rights on keys or bindings, but see no policies.
async fn policy_names(fleet: &Fleet, visitor: &Visitor) -> Result<Vec<PolicyName>, Error> {
    let Ok(grant) = visitor.context.grant::<PoliciesRead>() else { return Ok(Vec::new()) };
    let found = fleet.policies().list(&grant, Page { offset: 0, limit: POLICIES }).await?.items;
    Ok(found.into_iter().map(|policy| PolicyName { id: policy.id.to_string(), name: policy.name }).collect())
}

/// Returns what was typed into a field; `None` if it is empty.
pub fn given(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Returns the lines of a text that are not empty, without the spaces around them.
pub fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
