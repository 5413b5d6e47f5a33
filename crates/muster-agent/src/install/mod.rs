//! Installation on this host: the program in a versioned home, the service, and their removal.

pub mod account;
pub mod command;
pub mod definition;
pub mod installation;
pub mod notifier;
pub mod ownership;
pub mod privileges;
pub mod program;
pub mod removal;
pub mod service;
pub mod steps;

pub use installation::{Account, Installation, Manager};
pub use service::Service;
