//! Upgrades on a real disk that stops at every change, downloads from sources that fail, and packages that are not what
//! they should be.

#![allow(clippy::unwrap_used, reason = "tests")]

mod crashes;
mod downloads;
mod faulty;
mod host;
