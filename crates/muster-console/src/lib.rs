//! The web pages for administrators, rendered on the server.
//!
//! [`visitor`] identifies the person by the session and the space by the path, each other module contains a page: it reads
//! its parameters, calls services of [`muster_fleet`] and fills a template. Templates escape all values. [`frame`] is what
//! all pages share, and [`assets`] serves the style sheet and the script, so that no page loads anything from another host.

mod actions;
mod agents;
mod assets;
mod chart;
mod compress;
mod confirm;
mod download;
mod durations;
mod elsewhere;
mod failure;
mod fields;
mod frame;
mod hosts;
mod links;
mod log_in;
mod names;
mod notice;
mod pager;
mod people;
mod policies;
mod preferences;
mod request;
mod rollouts;
mod set_up;
mod settings;
mod subjects;
mod terraform;
mod text;
mod unknown;
mod versioned;
mod visitor;

use std::sync::Arc;

use axum::middleware::from_fn;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use muster_fleet::Fleet;

pub use agents::enroll_commands::ServerTrust;
pub use unknown::in_html;

/// A page: its path below the space, and what answers its methods.
type Route = (&'static str, MethodRouter<Arc<Fleet>>);

/// Creates the router of the pages, for [`in_html`]. Each page also exists below `/s/{space}`. The connection's
/// `muster_listen::reply::Peer` must be in the request's extensions.
pub fn console_router(fleet: Arc<Fleet>, trust: ServerTrust) -> Router {
    let mut router = Router::new()
        .route(log_in::PATH, get(log_in::show).post(log_in::log_in))
        // An address that people type, too.
        .route(log_in::LOG_OUT, get(log_in::overview).post(log_in::log_out))
        .route(set_up::PATH, get(set_up::show).post(set_up::set_up))
        .route(assets::PATH, get(assets::serve));
    for (path, page) in routes() {
        router = router.route(path, page.clone());
        router = router.route(&format!("/s/{{space}}{}", path.trim_end_matches('/')), page);
    }
    router
        .layer(from_fn(notice::forget))
        .layer(from_fn(compress::compress))
        .layer(Extension(Arc::new(trust)))
        .with_state(fleet)
}

/// All pages of spaces, by family.
fn routes() -> Vec<Route> {
    [agent_pages(), hosts::pages(), policy_pages(), setting_pages()].concat()
}

fn agent_pages() -> Vec<Route> {
    use crate::actions::{self, action};
    use crate::agents::{self, add_agent, agent, bulk, diagnostics, export, menu, overview, respond};
    use crate::agents::{suggest, timeline, views};
    vec![
        ("/", get(overview::show)),
        ("/add-agent", get(add_agent::show).post(add_agent::create)),
        ("/add-agent/reveal", post(add_agent::reveal)),
        ("/agents", get(agents::show)),
        ("/agents.csv", get(export::send)),
        ("/agents/bulk", get(bulk::show).post(bulk::run)),
        ("/agents/menu/{kind}", get(menu::show)),
        ("/agents/suggest", get(suggest::show)),
        ("/agents/views", post(views::save)),
        ("/agents/views/delete", post(views::delete)),
        ("/agents/{id}", get(agent::show)),
        ("/agents/{id}/diagnostics", get(diagnostics::show)),
        ("/agents/{id}/diagnostics/delete", post(diagnostics::delete)),
        ("/agents/{id}/respond", get(respond::show).post(respond::run)),
        ("/agents/{id}/timeline", get(timeline::show)),
        ("/actions", get(actions::show)),
        ("/actions/{id}", get(action::show)),
        ("/actions/{id}/cancel", get(action::ask).post(action::cancel)),
    ]
}

fn policy_pages() -> Vec<Route> {
    [policies::routes(), rollouts::routes()].concat()
}

fn setting_pages() -> Vec<Route> {
    settings::pages()
}

#[cfg(test)]
mod tests {
    use muster_management::base_path::{BadBasePath, BasePath};

    use super::*;

    #[test]
    fn no_base_path_hides_a_page() {
        let others = [log_in::PATH, log_in::LOG_OUT, set_up::PATH, assets::PATH];
        for path in routes().into_iter().map(|(path, _)| path).chain(others).filter(|path| *path != "/") {
            let first = path.split('/').nth(1).unwrap();
            assert_eq!(
                format!("/{first}").parse::<BasePath>(),
                Err(BadBasePath::Own),
                "{path}: {first} is missing in OWN"
            );
        }
    }
}
