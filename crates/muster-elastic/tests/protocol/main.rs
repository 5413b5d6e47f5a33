//! Tests of the agent API in process: the adapter over a real fleet and a real store.

mod acks;
mod artifacts;
mod audit;
mod bad_input;
mod balancers;
mod check_in;
mod clones;
mod delivery;
mod enroll;
mod files;
mod life;
mod limits;
mod noticed;
mod outage;
mod output_keys;
mod recorded;
mod refusals;
mod setting;
mod status;
mod transport;
mod uploads;
