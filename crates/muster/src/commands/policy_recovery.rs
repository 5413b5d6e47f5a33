//! `muster policy recovery-code`

use clap::Args;
use muster_client::Client;

use super::confirm::Care;
use super::failure::Failed;
use super::find::find_policy;
use super::text::print_line;

/// Flags of `recovery-code`.
#[derive(Args, Debug)]
pub struct RecoveryCodeArgs {
    /// Policy, by name or id
    policy: String,
    /// Remove the code instead
    #[arg(long)]
    remove: bool,
    /// Do not ask for confirmation before a code is replaced or removed
    #[arg(long, short)]
    yes: bool,
}

impl RecoveryCodeArgs {
    /// Runs the verb.
    pub async fn run(self, client: &Client) -> Result<(), Failed> {
        let policy = find_policy(client, &self.policy).await?;
        let care = Care { yes: self.yes, dry_run: false };
        let name = &policy.name;
        if self.remove {
            care.confirm(&format!(
                "Remove the recovery code of the policy {name:?}? Printed copies become worthless."
            ))?;
            return print_line(client.remove_recovery_code(&policy.id).await?.message);
        }
        if policy.has_recovery_code {
            care.confirm(&format!(
                "Replace the recovery code of the policy {name:?}? Printed copies become worthless."
            ))?;
        }
        let made = client.create_recovery_code(&policy.id).await?;
        // Only the code goes to stdout, so that it can be redirected to a file or a printer.
        eprintln!(
            "The recovery code of the policy {name:?} is shown only now. Keep it offline, and not on the server."
        );
        print_line(made.recovery_code)
    }
}
