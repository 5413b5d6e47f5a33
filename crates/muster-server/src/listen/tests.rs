//! Tests of the accept loop and of connections, over real sockets with short deadlines.

pub mod harness;
mod hostile;
mod ordinary;
mod parking;
