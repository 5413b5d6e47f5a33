//! Commands that a protected policy allows only with its uninstall token or recovery code (AG142, AG143).

use std::time::Duration;

use muster_core::error_chain::chain;
use muster_core::time::Clock as _;

use super::connect;
use crate::clock::SystemClock;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::notice::departure::Departure;
use crate::notice::{Event, Notice, Spool};
use crate::paths::Layout;
use crate::protection::{self, Pass, Protection};
use crate::state::Store;
use crate::state::disk::DiskStore;

/// Variable with the uninstall token.
const VARIABLE: &str = "MUSTER_UNINSTALL_TOKEN";
/// Maximum time to report a refused command, or the use of the recovery code. After that, the daemon keeps trying.
const REPORT: Duration = Duration::from_secs(5);

/// The uninstall token of a command.
#[derive(clap::Args)]
pub struct Guarded {
    /// Uninstall token or recovery code of a protected policy: one, several separated by commas, or an absolute path of
    /// a file with one per line
    #[arg(long, env = VARIABLE, hide_env_values = true, value_name = "TOKEN")]
    uninstall_token: Option<String>,
}

impl std::fmt::Debug for Guarded {
    /// Omits the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guarded")
    }
}

impl Guarded {
    /// Reads the token from the environment only, for a command whose options are variables.
    pub fn of_environment() -> Self {
        Self { uninstall_token: std::env::var(VARIABLE).ok().filter(|token| !token.is_empty()) }
    }

    /// Returns the passed tokens.
    pub fn tokens(&self) -> Result<Vec<String>, Failure> {
        let given = self.uninstall_token.as_deref().map_or(Ok(Vec::new()), protection::tokens);
        given.map_err(|error| Failure::new(exit::USAGE, format!("--uninstall-token: {}", chain(&error))))
    }
}

/// Fails if the stored policy is protected and neither a token nor the recovery code fits. Every refusal and every use of
/// the recovery code is reported to the server.
pub async fn guard(layout: &Layout, store: &DiskStore, command: &str, guarded: &Guarded) -> Result<(), Failure> {
    let tokens = guarded.tokens()?;
    let refused = match Protection::stored(store).check(&tokens) {
        Ok(Pass::Open | Pass::Token) => return Ok(()),
        Ok(Pass::RecoveryCode) => {
            // Stored before the command begins; what cannot be delivered now is delivered before the notice of the uninstallation.
            report(layout, store, command, Event::Recovered, "allowed with the recovery code").await;
            return Ok(());
        }
        Err(refused) => refused,
    };
    report(layout, store, command, Event::Refused, &refused.to_string()).await;
    let failure = Failure::new(exit::PROTECTED, format!("{command}: {refused}"));
    Err(failure
        .hint("an administrator can print the token: muster uninstall-token list, muster uninstall-token show ID; if the server is lost, pass the policy's recovery code as --uninstall-token"))
}

async fn report(layout: &Layout, store: &DiskStore, command: &str, event: Event, reason: &str) {
    let Ok(Some(enrollment)) = store.enrollment() else { return };
    let departure = Departure::by_this_process(command, Some(reason), None);
    let notice = Notice::new(event, &enrollment, departure, SystemClock.now());
    let spool = Spool::new(layout);
    match spool.add(&notice, &System) {
        // What is not delivered now stays for the daemon.
        Ok(_) => drop(tokio::time::timeout(REPORT, spool.deliver_once(&connect)).await),
        Err(error) => eprintln!("Warning: the server could not be notified of this attempt: {}", chain(&error)),
    }
}
