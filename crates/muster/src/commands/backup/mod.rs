//! `muster backup …`

mod archive;
mod create;
mod restore;

use clap::Subcommand;

use super::connect::Connect;
use super::failure::Failed;

/// Verbs of `backup`.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Create a backup of the fleet while its servers are running
    ///
    /// The file contains the whole database as of one time, with checksums. Passwords, keys and tokens in it are hashed, or encrypted with
    /// the master key, which is not in the file unless you pass --include-master-key. Without master.key, a restored server cannot
    /// decrypt them: keep a copy of it elsewhere.
    #[command(
        after_help = "Examples:\n  muster backup create --out fleet.tar\n  muster backup create --out /mnt/safe/fleet.tar --include-master-key"
    )]
    Create(create::CreateArgs),
    /// Restore a backup into an empty data directory
    ///
    /// The checksums are verified first. Agents go on with the keys that they have. What was changed after the backup is lost: a policy
    /// goes back to its earlier revision, and keys that were revoked after the backup are valid again. Agents that enrolled after the
    /// backup are unknown: they keep their policy and retry for 30 days, and `muster status` lists them, so that you can enroll them again.
    #[command(
        after_help = "Examples:\n  muster backup restore fleet.tar --data-dir /var/lib/muster --master-key-file master.key\n  muster backup restore fleet.tar --data-dir /var/lib/muster --database 'postgres://muster@db.example:5432/muster'"
    )]
    Restore(restore::RestoreArgs),
}

impl BackupCommand {
    /// Runs the verb.
    pub async fn run(self, connect: &Connect) -> Result<(), Failed> {
        match self {
            Self::Create(args) => args.run(connect).await,
            Self::Restore(args) => args.run(connect),
        }
    }
}
