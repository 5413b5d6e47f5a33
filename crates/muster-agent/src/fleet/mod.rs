//! The requests of the Fleet Server protocol, over any [`Transport`](crate::net::Transport).

pub mod acks;
pub mod check_in;
pub mod client;
pub mod enroll;
pub mod error;
pub mod upload;

pub use client::FleetClient;
pub use error::CallError;
