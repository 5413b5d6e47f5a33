//! The endpoint agent: enrols in a fleet, keeps its policy, runs its actions, supervises programs.

pub mod backoff;
pub mod clock;
pub mod entropy;
pub mod fleet;
pub mod hex;
pub mod net;
pub mod paths;
pub mod state;
pub mod version;
