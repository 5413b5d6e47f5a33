//! Tests of fleetd's protocols in process: the adapter over a real fleet and a real store.

mod bad_input;
mod device;
mod golden;
mod hosts;
mod keys;
mod live_queries;
mod setting;
