//! The fleet domain: agents, keys, policies, actions, statuses, signing.
//!
//! Nothing in this crate does I/O, reads a clock or generates random numbers: time is a [`Timestamp`] argument,
//! randomness an [`Entropy`] argument. It knows neither HTTP nor SQL. Adapters translate protocols and call the
//! decisions of this crate; the store persists its records.

pub mod acknowledge;
pub mod action;
mod action_data;
pub mod action_request;
pub mod agent;
pub mod alert;
pub mod assignment;
pub mod audit;
pub mod authorization;
pub mod auto_upgrade;
pub mod canonical;
pub mod carve;
pub mod certificate_names;
pub mod change;
pub mod check_in;
pub mod client_certificate;
pub mod compromise;
pub mod connection_test;
pub mod credential;
pub mod csv;
pub mod delivery;
pub mod denial;
pub mod disk_key;
pub mod documents;
pub mod duplicate_hosts;
pub mod eligibility;
pub mod enroll;
pub mod enrollment_key;
pub mod entropy;
pub mod error;
pub mod error_chain;
pub mod event;
pub mod file;
pub mod fleetd;
pub mod hex;
pub mod host;
pub mod host_run;
pub mod id;
pub mod identity;
pub mod install;
pub mod installer;
pub mod lifecycle;
pub mod live_query;
pub mod network_object;
pub mod one_time;
pub mod output;
pub mod output_key;
pub mod package;
pub mod pem;
pub mod plural;
pub mod policy;
pub mod poll;
pub mod private_key;
pub mod raw_json;
pub mod recovery_code;
pub mod reenroll;
pub mod replace_token;
pub mod reported;
pub mod resource_limits;
pub mod rollout;
pub mod saved_query;
pub mod script;
pub mod seal;
pub mod secret_refs;
pub mod shell;
pub mod signing;
pub mod status;
pub mod time;
pub mod transfer;
pub mod uninstall_token;
pub mod upgrade;
pub mod upgrade_details;
pub mod version;
pub mod yaml;

// Other crates get the samples through the feature; a release build contains none of them.
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use entropy::Entropy;
pub use error::{Error, ErrorKind};
pub use time::Timestamp;
