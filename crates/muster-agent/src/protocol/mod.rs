//! The component protocol: how installed components get their configuration and report their states (AG §5).
//!
//! [`session`] decides, without I/O, what a component is told and what its reports mean. [`line`] connects a session
//! with the streams of a component, and [`server`] accepts these streams.

pub mod certificates;
pub mod chunk;
pub mod connection_info;
pub mod line;
pub mod messages;
pub mod server;
mod service;
pub mod session;
pub mod values;

/// Maximum size of a message in bytes, in both directions. Larger configurations are split.
pub const MESSAGE_MAX: usize = 10 << 20;
