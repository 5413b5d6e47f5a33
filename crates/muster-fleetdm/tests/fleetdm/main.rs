//! FleetDM's REST API against a fleet with a manual clock.

mod access;
mod documented;
mod fleetctl;
mod golden;
mod hosts;
mod live;
mod objects;
mod packs;
mod setting;
