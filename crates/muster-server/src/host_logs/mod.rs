//! Logs of hosts: rotating files ([`files`]), and an HTTP receiver to which their lines are forwarded ([`forward`]).
//!
//! The files are the buffer of the receiver: a line is on disk before its host is answered, and is forwarded from there, so
//! that it survives a restart of the server and an outage of the receiver.

pub mod files;
pub mod forward;
mod reader;
#[cfg(test)]
mod tests;
