//! Decisions that concern only fleetd: which queries a host must answer, and what their results say about it
//! (FL §1.7, §1.8).

pub mod check_history;
pub mod checks;
pub mod claims;
pub mod desktop;
pub mod details;
pub mod device_token;
pub mod identifier;
pub mod inventory;
pub mod labels;
pub mod live;
pub mod log_lines;
pub mod mdm;
pub mod numbers;
pub mod options;
mod options_advice;
mod options_check;
pub mod orbit_config;
mod osquery_json;
pub mod packs;
pub mod platform;
pub mod questions;
pub mod rows;
pub mod schedule;
pub mod software;

use crate::status::Status;

/// Statuses of hosts that are online for FleetDM, which knows only online and offline.
pub const ONLINE: [Status; 5] =
    [Status::Online, Status::Updating, Status::Unenrolling, Status::Error, Status::Degraded];
