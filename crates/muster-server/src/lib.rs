//! The server: adapters (agent API, management API) over one floor of operations ([`fleet`]), which stands on core
//! and store. An adapter unpacks, calls one operation and converts; operations know no HTTP.
//!
//! Below the adapters lie [`listen`] (connections, limits, deadlines), [`tls`] and [`metrics`]; [`serve`] wires all.

pub mod agent_api;
pub mod config;
pub mod data_dir;
pub mod first_start;
pub mod fleet;
pub mod listen;
pub mod logging;
pub mod management_api;
pub mod metrics;
pub mod reply;
pub mod serve;
pub mod system;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
