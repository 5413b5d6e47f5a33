//! Tests of the accept loop and of connections, over real sockets with short deadlines.

mod balancers;
mod displacement;
mod hostile;
mod ordinary;
mod parking;
mod upgrades;
mod web;
