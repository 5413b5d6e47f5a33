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
    /// The file contains a consistent snapshot of the database, with checksums. Passwords, keys and tokens in it are hashed, or encrypted with the master key, except for secrets in policies that the server stores as plain text. The master key is not in the file unless you pass --include-master-key. Without master.key, a restored server does not
    /// start: keep a copy elsewhere.
    #[command(
        after_help = "Examples:\n  muster backup create --out fleet.tar\n  muster backup create --out /mnt/safe/fleet.tar --include-master-key"
    )]
    Create(create::CreateArgs),
    /// Restore a backup into an empty data directory
    ///
    /// --data-dir names the directory, and is required. The checksums are verified first. Agents keep their access keys. Changes after the backup are lost:
    /// policies return to their earlier revisions, and keys that were revoked after the backup are valid again. Agents that enrolled
    /// after the backup are unknown. For 30 days, they keep their policy and retry, and `muster status` lists them, so that you can
    /// enroll them again.
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
