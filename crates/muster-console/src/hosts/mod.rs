//! Hosts, and what osquery tells about them: live and saved queries, software, host checks, the configuration of fleetd.

mod asked;
mod checks;
mod export;
mod facts;
mod fleetd;
mod host;
mod installs;
mod list;
mod mdm;
mod queries;
mod software;

use axum::routing::{get, post};

use crate::Route;

/// Path of the list of hosts, which is the tab of the whole family.
pub const TAB: &str = "/hosts";

/// The pages of this family.
pub fn pages() -> Vec<Route> {
    let mut pages = vec![
        (TAB, get(list::show)),
        ("/hosts.csv", get(export::send)),
        ("/hosts/{id}", get(host::show)),
        ("/hosts/{id}/software", get(host::software)),
        ("/hosts/{id}/refetch", post(host::refetch)),
        ("/hosts/{id}/delete", get(host::ask_to_delete).post(host::delete)),
        ("/software", get(software::list)),
        ("/software/{id}", get(software::show)),
        ("/checks", get(checks::list)),
        ("/checks/new", get(checks::ask).post(checks::create)),
        ("/checks/{id}", get(checks::show).post(checks::update)),
        ("/checks/{id}/delete", get(checks::ask_to_delete).post(checks::delete)),
        ("/fleetd", get(fleetd::show).post(fleetd::save)),
        ("/fleetd/reset", get(fleetd::ask_to_reset).post(fleetd::reset)),
        ("/fleetd/mdm", get(mdm::show).post(mdm::send)),
    ];
    pages.extend(queries::pages());
    pages.extend(installs::pages());
    pages
}
