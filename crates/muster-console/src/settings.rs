//! Keys, alerts, the audit log and the settings.

mod audit;
#[cfg(debug_assertions)]
mod kit;

use axum::routing::get;

use crate::Route;

/// The pages of this family.
pub fn pages() -> Vec<Route> {
    let mut pages = vec![("/audit", get(audit::show))];
    #[cfg(debug_assertions)]
    pages.push(("/ui/kit", get(kit::show)));
    pages
}
