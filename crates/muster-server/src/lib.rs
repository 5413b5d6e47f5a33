//! The server: configuration ([`config`]), data directory ([`data_dir`]), certificates ([`tls`]), metrics, logs, restore of a backup, examination of a host ([`doctor`]), and
//! the wiring of listeners, adapters and services ([`serve`]).

pub mod config;
pub mod data_dir;
pub mod doctor;
pub mod first_start;
pub mod host_logs;
pub mod logging;
pub mod metrics;
pub mod restore;
pub mod serve;
pub mod tls;
