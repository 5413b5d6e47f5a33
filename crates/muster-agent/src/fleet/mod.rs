//! The calls that an agent makes to its server, over any [`Transport`](crate::net::Transport).

pub mod acks;
pub mod check_in;
pub mod client;
pub mod enroll;
pub mod error;
pub mod upload;

pub use client::FleetClient;
pub use error::CallError;
