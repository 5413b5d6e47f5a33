//! Every parser that reads what a stranger sent, as a function of bytes that must not panic, hang or eat memory.
//!
//! `cargo xtask fuzz` runs them under a fuzzer; `cargo test -p muster-fuzz` runs them over `seeds/` (what agents sent,
//! and odd things made by hand) and `findings/` (what a fuzzer ever found), as every `./check` does.

mod connection;
mod targets;

/// A target: a parser, fed with whatever comes.
pub type Target = fn(&[u8]);

/// All targets by name; a directory of `seeds/` has the same.
pub const TARGETS: &[(&str, Target)] = &[
    ("ack", targets::ack),
    ("audit", targets::audit),
    ("authorization", targets::authorization),
    ("check_in", targets::check_in),
    ("check_in_gzip", targets::check_in_gzip),
    ("config_file", targets::config_file),
    ("enroll", targets::enroll),
    ("fleetd_carve", targets::fleetd_carve),
    ("fleetd_certificate", targets::fleetd_certificate),
    ("fleetd_enroll", targets::fleetd_enroll),
    ("fleetd_head", targets::fleetd_head),
    ("fleetd_options", targets::fleetd_options),
    ("fleetd_request", targets::fleetd_request),
    ("fleetd_results", targets::fleetd_results),
    ("fleetdm_message", targets::fleetdm_message),
    ("fleetdm_query", targets::fleetdm_query),
    ("http_connection", connection::http_connection),
    ("kql", targets::kql),
    ("multipart", targets::multipart),
    ("policy_yaml", targets::policy_yaml),
    ("poll_duration", targets::poll_duration),
    ("range", targets::range),
    ("software_version", targets::software_version),
    ("upload_begin", targets::upload_begin),
    ("upload_end", targets::upload_end),
];

/// The target with that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
