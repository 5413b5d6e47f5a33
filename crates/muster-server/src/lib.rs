//! The server: configuration ([`config`]), what it keeps on disk ([`data_dir`]), certificates ([`tls`]), metrics and
//! logs, and the wiring of listeners, adapters and services ([`serve`]).

pub mod config;
pub mod data_dir;
pub mod first_start;
pub mod logging;
pub mod metrics;
pub mod serve;
pub mod tls;
