//! What the rules promise for any input: properties, each against a plain model of the rule or an invariant of it.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod action_request;
mod assignment;
mod credential;
mod delivery;
mod lifecycle;
mod poll;
mod status;
mod tags;
mod text;
mod versions;
