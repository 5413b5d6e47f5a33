//! `/api/v1`: users, service accounts, roles, bindings, API tokens, spaces, OpenID providers, logins, and the caller's own session (MG §8.2).

mod bindings;
mod browser;
pub mod device_page;
mod devices;
pub mod html;
pub mod log_in;
mod providers;
mod roles;
pub mod session;
mod spaces;
mod tokens;
mod users;

use super::endpoints::Endpoint;

/// Endpoints of users and what belongs to them.
pub fn endpoints() -> Vec<Endpoint> {
    let families = [
        users::endpoints(),
        roles::endpoints(),
        bindings::endpoints(),
        tokens::endpoints(),
        spaces::endpoints(),
        session::endpoints(),
        providers::endpoints(),
        log_in::endpoints(),
        devices::endpoints(),
    ];
    families.into_iter().flatten().collect()
}
