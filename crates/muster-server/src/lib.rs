//! The server: adapters (agent API, management API) over one floor of operations ([`fleet`]), which stands on core
//! and store. An adapter unpacks, calls one operation and converts; operations know no HTTP.

pub mod agent_api;
pub mod fleet;
pub mod management_api;
pub mod reply;
pub mod system;
