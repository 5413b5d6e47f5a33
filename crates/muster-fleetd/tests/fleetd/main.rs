//! Tests of fleetd's protocols in process: the adapter over a real fleet and a real store.

mod bad_input;
mod carves;
mod certificates;
mod checks;
mod device;
mod disk_keys;
mod enrolling;
mod failing_queries;
mod golden;
mod hosts;
mod installs;
mod inventory;
mod keys;
mod labels;
mod live_queries;
mod logs;
mod options;
mod packs;
mod push;
mod scripts;
mod setting;
mod software;
mod transfers;
