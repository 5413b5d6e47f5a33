//! The account of an unprivileged agent, and the ownership of its files.

use camino::Utf8PathBuf;
use nix::unistd::{Group, User};

use super::Account;
use super::command::{self, CommandError};
use super::ownership::{Owner, give, regroup, set_mode};
use crate::homes;
use crate::local_server::LocalServer;
use crate::paths::Layout;
use crate::state::StoreError;

/// User and group that `install --unprivileged` creates.
pub const USER: &str = "muster-agent";
/// Group whose members may use `muster-agent status`.
pub const GROUP: &str = "muster-agent";

/// Records in the base path that stay root's, because commands of root act on them.
const RECORDS: [&str; 2] = ["install.json", "server.json"];

/// Why an account cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// A user that was named does not exist.
    #[error("user {0:?} does not exist")]
    NoUser(String),
    /// A group that was named does not exist.
    #[error("group {0:?} does not exist")]
    NoGroup(String),
    /// The user database cannot be read.
    #[error("the user database cannot be read: {0}")]
    Database(#[from] nix::Error),
    /// The account cannot be created or removed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The owner of a file cannot be changed.
    #[error("cannot change the owner of files: {0}")]
    Owner(#[from] std::io::Error),
    /// The record of the server on this host cannot be trusted.
    #[error(transparent)]
    Record(#[from] StoreError),
}

/// Returns the account, and creates the default one if it does not exist. Named users and groups must exist, because
/// they are managed by somebody else.
pub async fn prepare(user: Option<&str>, group: Option<&str>) -> Result<Account, AccountError> {
    let mut account = Account {
        user: user.unwrap_or(USER).to_owned(),
        group: group.unwrap_or(GROUP).to_owned(),
        user_created: false,
        group_created: false,
    };
    if Group::from_name(&account.group)?.is_none() {
        if group.is_some() {
            return Err(AccountError::NoGroup(account.group));
        }
        command::run("groupadd", &["--system", &account.group]).await?;
        account.group_created = true;
    }
    if User::from_name(&account.user)?.is_none() {
        if user.is_some() {
            return Err(AccountError::NoUser(account.user));
        }
        let created = create_user(&account).await;
        if created.is_err() {
            // Also the group that was created for it.
            remove(&account).await?;
        }
        created?;
        account.user_created = true;
    }
    Ok(account)
}

async fn create_user(account: &Account) -> Result<(), CommandError> {
    let shell = "/usr/sbin/nologin";
    let args = ["--system", "--gid", &account.group, "--no-create-home", "--home-dir", "/nonexistent"];
    command::run("useradd", &[&args[..], &["--shell", shell, &account.user]].concat()).await
}

/// Removes what [`prepare`] has created (AG8).
pub async fn remove(account: &Account) -> Result<(), AccountError> {
    if account.user_created && User::from_name(&account.user)?.is_some() {
        command::run("userdel", &[&account.user]).await?;
    }
    // `userdel` also removes a group that has the name of the user.
    if account.group_created && Group::from_name(&account.group)?.is_some() {
        command::run("groupdel", &[&account.group]).await?;
    }
    Ok(())
}

/// Gives all files of the base path to the account, or to root, so that nothing is accessible for other
/// users (AG38), and the group of an unprivileged agent can reach the control socket (AG47).
pub fn own(layout: &Layout, account: Option<&Account>) -> Result<(), AccountError> {
    // Before anything changes: only root's record says where the data of a server is.
    let server = LocalServer::load(layout)?;
    let owner = match account {
        None => Owner::ROOT,
        Some(account) => {
            let user = User::from_name(&account.user)?.ok_or_else(|| AccountError::NoUser(account.user.clone()))?;
            let group =
                Group::from_name(&account.group)?.ok_or_else(|| AccountError::NoGroup(account.group.clone()))?;
            Owner { uid: user.uid, gid: group.gid }
        }
    };
    give(layout.base().as_std_path(), owner, &RECORDS)?;
    for record in RECORDS {
        regroup(&layout.base().join(record), owner)?;
    }
    // The data of the server on this host is elsewhere, so that it survives an uninstallation.
    if let Some(server) = server
        && server.data_dir.symlink_metadata().is_ok()
    {
        give(server.data_dir.as_std_path(), owner, &[])?;
    }
    let mode = if account.is_some() { 0o750 } else { 0o700 };
    for path in shared_with_group(layout)? {
        set_mode(layout.base(), &path, mode)?;
    }
    Ok(())
}

/// Returns what the group needs for `muster-agent status`: the program, and the way to it and to the socket.
fn shared_with_group(layout: &Layout) -> std::io::Result<Vec<Utf8PathBuf>> {
    let mut paths = vec![layout.base().to_owned(), layout.run(), layout.homes()];
    for name in homes::installed(layout)? {
        let home = layout.home(&name);
        paths.extend([home.path().to_owned(), home.program()]);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use camino::Utf8Path;

    use super::*;

    #[test]
    fn ag49_files_that_change_hands_and_back_are_as_before() {
        // Nobody else can give files away.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap());
        let work = layout.run().join("log-default");
        for path in [layout.homes(), work.clone()] {
            fs_err::create_dir_all(path).unwrap();
        }
        fs_err::write(work.join("registry"), "positions").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", work.join("link")).unwrap();
        let owned = || {
            let of = |path: Utf8PathBuf| {
                fs_err::symlink_metadata(path).map(|found| (found.uid(), found.gid(), found.mode() & 0o777))
            };
            [layout.base().to_owned(), layout.run(), work.join("registry"), work.join("link")]
                .map(|path| of(path).unwrap())
        };
        own(&layout, None).unwrap();
        let before = owned();
        let account =
            Account { user: "nobody".into(), group: "nogroup".into(), user_created: false, group_created: false };
        own(&layout, Some(&account)).unwrap();
        let (user, group) = (
            User::from_name("nobody").unwrap().unwrap().uid.as_raw(),
            Group::from_name("nogroup").unwrap().unwrap().gid.as_raw(),
        );
        assert!(owned().iter().all(|(uid, gid, _)| (*uid, *gid) == (user, group)), "{:?}", owned());
        assert_eq!(
            (owned()[0].2, fs_err::metadata("/etc/passwd").unwrap().uid()),
            (0o750, 0),
            "links are not followed"
        );
        own(&layout, None).unwrap();
        assert_eq!(owned(), before);
        assert_eq!(fs_err::read_to_string(work.join("registry")).unwrap(), "positions");
    }
}
