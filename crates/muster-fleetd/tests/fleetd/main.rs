//! Tests of fleetd's protocols in process: the adapter over a real fleet and a real store.

mod bad_input;
mod carves;
mod checks;
mod device;
mod disk_keys;
mod golden;
mod hosts;
mod keys;
mod live_queries;
mod logs;
mod options;
mod push;
mod scripts;
mod setting;
mod software;
