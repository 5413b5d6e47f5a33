//! The endpoint agent, which enrolls in a fleet, applies the policy, runs actions and supervises programs.

pub mod backoff;
pub mod base_dir;
pub mod cli;
pub mod clock;
pub mod components;
pub mod control;
pub mod coordinator;
pub mod diagnostics;
pub mod duration;
pub mod enroll;
pub mod entropy;
pub mod exit;
pub mod fleet;
pub mod hex;
pub mod host;
pub mod logging;
pub mod model;
pub mod net;
pub mod paths;
pub mod policy;
pub mod settings;
pub mod state;
pub mod token;
pub mod version;
