//! Hosts, and what osquery tells about them: live and saved queries, software, host checks, labels, packs, the configuration of fleetd.

mod asked;
mod carves;
mod check_history;
mod checks;
mod disk_key;
mod export;
mod facts;
mod fleetd;
mod host;
mod installs;
mod inventory;
pub mod label_hosts;
mod labels;
mod list;
mod mdm;
mod pack_queries;
mod packs;
mod queries;
mod runs;
mod scripts;
mod software;
mod transfer;

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
        ("/hosts/{id}/transfer", get(transfer::ask).post(transfer::send)),
        ("/hosts/{id}/delete", get(host::ask_to_delete).post(host::delete)),
        ("/hosts/{id}/labels", post(label_hosts::change_one)),
        ("/labels", get(labels::list)),
        ("/labels/new", get(labels::ask).post(labels::create)),
        ("/labels/{id}", get(labels::show).post(labels::update)),
        ("/labels/{id}/delete", get(labels::ask_to_delete).post(labels::delete)),
        ("/labels/{id}/hosts", post(label_hosts::change)),
        ("/packs", get(packs::list)),
        ("/packs/new", get(packs::ask).post(packs::create)),
        ("/packs/{id}", get(packs::show).post(packs::update)),
        ("/packs/{id}/delete", get(packs::ask_to_delete).post(packs::delete)),
        ("/packs/{id}/queries", post(pack_queries::change)),
        ("/hosts/{id}/disk-key", get(disk_key::show)),
        ("/hosts/{id}/disk-key/reveal", get(disk_key::ask_to_reveal).post(disk_key::reveal)),
        ("/hosts/{id}/disk-key/request", get(disk_key::ask_to_request).post(disk_key::request)),
        ("/carves", get(carves::list)),
        ("/carves/new", get(carves::request::ask).post(carves::request::run)),
        ("/carves/{id}", get(carves::show)),
        ("/carves/{id}/delete", get(carves::ask_to_delete).post(carves::delete)),
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
    pages.extend(scripts::pages());
    pages
}
