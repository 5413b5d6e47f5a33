//! Simulated agents for load.
//!
//! A drone behaves on the wire as a real Elastic Agent does: it enrols, checks in with a gzip body of realistic size,
//! keeps the ack token, reports the policy that it runs, acks what it gets over the same connection, and backs off when
//! refused. It does nothing else, so that one machine can hold many: one task an agent, one TLS configuration for all,
//! several processes where one may not open enough files ([`processes`]), local addresses spread over `127.0.1.x`
//! ([`dial`]).
//!
//! Start with [`run`]; what one drone does is in [`drone`], what it says in [`wire`].

pub mod args;
pub mod check_in;
pub mod dial;
pub mod drone;
pub mod enroll;
pub mod event;
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

pub use args::{DronesArgs, Mode};
pub use processes::run;
