//! Property tests of the rules, against a simple model or an invariant of each.
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
