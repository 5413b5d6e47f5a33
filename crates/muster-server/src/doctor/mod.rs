//! Examination of a server's host: can a server run here, and will it go on? Nothing is changed.

mod certificates;
mod files;
mod host;
mod network;

use muster_core::error_chain::chain;
use muster_core::time::{Clock as _, Timestamp};
use muster_fleet::system::SystemClock;
use muster_store::copy::Place;
use muster_store::{Examined, examine};
use serde::Serialize;

use crate::config::Config;
use crate::data_dir::{DATABASE, MISSING, refuse_lost_file};

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Nothing to do.
    Ok,
    /// Something will go wrong, or is not as recommended.
    Warning,
    /// A server can't start, or agents can't connect.
    Error,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// The result.
    pub grade: Grade,
    /// The facts.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, message: message.into(), remedy: None }
    }

    fn warning(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    fn error(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, grade: Grade::Error, message: message.into(), remedy: Some(remedy.into()) }
    }
}

/// Runs all checks. Blocks, at most for the time that the database takes to answer.
pub fn examine_host(config: &Config) -> Vec<Finding> {
    examine_at(config, SystemClock.now())
}

fn examine_at(config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut findings = files::examine(config);
    let store = store(config);
    findings.extend(certificates::examine(config, now));
    // A database on another host has a clock of its own to compare with.
    findings.push(host::clock(config, now, store.as_ref().ok().and_then(Option::as_ref)));
    findings.push(host::disk(config));
    findings.push(files::host_logs(config));
    findings.push(database(config, store));
    findings.extend(network::examine(config));
    findings.push(host::open_files(config));
    findings
}

/// Examines the database; `None` if there is none yet.
fn store(config: &Config) -> Result<Option<Examined>, String> {
    let place = match &config.database {
        Some(address) => Place::from(address.clone()),
        None => {
            let file = config.data_dir.join(DATABASE);
            if !fs_err::metadata(&file).is_ok_and(|file| file.len() > 0) {
                return Ok(None);
            }
            Place::File(file.into())
        }
    };
    examine(&place).map(Some).map_err(|error| chain(&error).to_string())
}

fn database(config: &Config, examined: Result<Option<Examined>, String>) -> Finding {
    const CHECK: &str = "database";
    match examined {
        Ok(Some(Examined { engine, migration: 0, .. })) => {
            Finding::ok(CHECK, format!("{engine}, empty: the first start creates the tables"))
        }
        Ok(Some(Examined { engine, migration, .. })) => Finding::ok(CHECK, format!("{engine}, schema {migration}")),
        Ok(None) => match refuse_lost_file(&config.data_dir, MISSING) {
            Ok(()) => Finding::ok(CHECK, "none yet: the first start creates it"),
            Err(error) => {
                // The text of this error ends with its remedy.
                let told = chain(&error).to_string();
                let (reason, remedy) =
                    told.split_once("\nhint: ").unwrap_or((&told, "restore the database from a backup"));
                Finding::error(CHECK, reason, remedy)
            }
        },
        Err(reason) => {
            let remedy = match &config.database {
                Some(_) => "check the address, the password and the network (database)",
                None => "restore the database from a backup, or run the version of the server that wrote it",
            };
            Finding::error(CHECK, reason, remedy)
        }
    }
}

#[cfg(test)]
mod tests;
