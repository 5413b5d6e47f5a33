//! The administrator's commands against a real server: one `muster serve` for all tests, agents over the agent API.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod action;
mod agent;
mod agent_upgrade;
mod agents;
mod alert;
mod ask;
mod audit;
mod backup;
mod browser;
mod change;
mod device_page;
mod doctor;
mod documents;
mod drones;
mod enrollment_key;
mod exit_codes;
mod flags;
mod host;
mod identity;
mod leaks;
mod live;
mod mdm;
mod network_object;
mod node;
mod oidc;
mod osquery;
mod output;
mod policy;
mod policy_files;
mod query;
mod respond;
mod rollout;
mod signing_key;
mod store;
mod uninstall_token;
mod upgrades;
mod web_agents;
mod web_all_pages;
mod web_base_path;
mod web_hosts;
mod web_pages;
mod web_policies;
mod web_settings;
mod world;
