//! Tests of fleetd's protocols in process: the adapter over a real fleet and a real store.

mod bad_input;
mod certificates;
mod checks;
mod device;
mod golden;
mod hosts;
mod keys;
mod live_queries;
mod logs;
mod options;
mod push;
mod setting;
mod software;
