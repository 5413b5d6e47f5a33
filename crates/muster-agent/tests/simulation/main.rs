//! The coordinator against a simulated server, network, disk and clock: hours of an agent's life in milliseconds.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixture;
mod server;

mod cuts;
mod enrollments;
mod faults;
mod held;
mod life;
mod migrations;
mod models;
mod routes;
mod site;
mod standalone;
mod trust;
mod upgrades;
