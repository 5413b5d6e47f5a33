//! Calls of the operating system for which no library has a safe function. Each is one function that is safe to call.

pub mod memory;
