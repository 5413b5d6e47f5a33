//! Wire types of the protocols that Muster speaks, one module per protocol. Depends on serde only: no I/O, no rules.

pub mod elastic;
pub mod management;
pub mod objects;
