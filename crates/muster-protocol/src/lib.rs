//! Wire types of the protocols that Muster speaks, one module per protocol. serde and nothing else: no I/O, no rules.

pub mod elastic;
pub mod management;
pub mod objects;
