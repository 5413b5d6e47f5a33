//! Wire types of the protocols that Muster speaks, one module per protocol. Depends on serde only: no I/O, no rules.

// Both the servers and the clients of this workspace use these types, so a renamed field breaks them together, and the
// golden samples in `tests/wire` are what protects other clients.
pub mod elastic;
pub mod fleetd;
pub mod fleetd_software;
pub mod management;
pub mod objects;
