//! Simulated agents for load tests.
//!
//! On the wire, a drone behaves like a real Elastic Agent: it enrolls, checks in with a gzip body of realistic size,
//! keeps the ack token, reports the policy that it runs, acknowledges actions over the same connection, and backs off
//! after errors. It does nothing else, so that one machine can run many drones, with one task per drone, one TLS
//! configuration for all, several processes if the limit on open files is low ([`processes`]), and local addresses
//! spread over `127.0.1.x` ([`dial`]).
//!
//! With `--family fleetd`, it is a host with orbit and osqueryd ([`fleetd`]).
//!
//! The entry point is [`run`]. [`drone`] contains the behavior of a drone, and [`wire`] the requests that it sends.

pub mod admission;
pub mod args;
pub mod back_off;
pub mod burst;
pub mod check_in;
pub mod dial;
pub mod drone;
pub mod enroll;
pub mod event;
pub mod fault;
pub mod fleetd;
pub mod fleetd_load;
pub mod fleetd_push;
pub mod gzip;
pub mod histogram;
pub mod live;
pub mod processes;
pub mod report;
pub mod session;
pub mod share;
pub mod tally;
pub mod upload;
pub mod wire;

pub use args::{DronesArgs, Family, Mode};
pub use processes::run;
