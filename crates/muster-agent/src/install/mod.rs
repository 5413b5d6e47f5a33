//! Installation on this host: the program in a versioned home, the service, and their removal.

pub mod installation;
