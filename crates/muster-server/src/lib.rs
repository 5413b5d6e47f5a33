//! The server: configuration ([`config`]), data directory ([`data_dir`]), certificates ([`tls`]), metrics, logs, and
//! the wiring of listeners, adapters and services ([`serve`]).

pub mod config;
pub mod data_dir;
pub mod first_start;
pub mod logging;
pub mod metrics;
pub mod serve;
pub mod tls;
