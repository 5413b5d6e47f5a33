//! Services over a real store: check-ins, held polls, wake-ups, revocation, status transitions.

mod alerts;
mod audit_chains;
mod auto_upgrades;
mod check_in;
mod copied;
mod duplicates;
mod family;
mod first_start;
mod policies;
mod races;
mod respond;
mod rollouts;
mod setting;
mod signing;
mod spaces;
mod statuses;
mod targets;
mod upgrades;
