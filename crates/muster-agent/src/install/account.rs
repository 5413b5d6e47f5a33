//! The account of an unprivileged agent, and the ownership of its files.

use std::os::unix::fs::lchown;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{Gid, Group, Uid, User};

use super::Account;
use super::command::{self, CommandError};
use crate::homes;
use crate::local_server::LocalServer;
use crate::paths::Layout;

/// User and group that `install --unprivileged` creates.
pub const USER: &str = "muster-agent";
/// Group whose members may use `muster-agent status`.
pub const GROUP: &str = "muster-agent";

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
    let (uid, gid) = match account {
        None => (Uid::from_raw(0), Gid::from_raw(0)),
        Some(account) => {
            let user = User::from_name(&account.user)?.ok_or_else(|| AccountError::NoUser(account.user.clone()))?;
            let group =
                Group::from_name(&account.group)?.ok_or_else(|| AccountError::NoGroup(account.group.clone()))?;
            (user.uid, group.gid)
        }
    };
    // Before the files change hands: their owners tell who has written them.
    let data = server_data(layout);
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    // Nobody but root may write to a directory while its entries change hands, or somebody could exchange one for a link in
    // the meantime.
    for tree in std::iter::once(layout.base()).chain(data.as_deref()) {
        chown(tree, root.0, root.1)?;
    }
    let mode = if account.is_some() { 0o750 } else { 0o700 };
    for path in shared_with_group(layout)? {
        chmod(&path, mode)?;
    }
    if !uid.is_root() {
        for tree in std::iter::once(layout.base()).chain(data.as_deref()) {
            chown(tree, uid, gid)?;
        }
    }
    Ok(())
}

/// Returns the data directory of the server on this host, which is outside of the base path, so that it survives an
/// uninstallation. A record that an unprivileged agent could have written leads only to its own files.
fn server_data(layout: &Layout) -> Option<Utf8PathBuf> {
    let owner = |path: &Utf8Path| path.symlink_metadata().ok().map(|found| found.uid());
    let server = LocalServer::load(layout).ok()??;
    let (record, data) = (owner(&layout.local_server())?, owner(&server.data_dir)?);
    (record == 0 || record == data).then_some(server.data_dir)
}

/// Changes the mode of a file or directory. Links are not followed.
fn chmod(path: &Utf8Path, mode: u32) -> std::io::Result<()> {
    // Without waiting for the other end of a pipe.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
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

/// Changes the owner of a tree. Links are changed themselves, and never followed.
fn chown(path: &Utf8Path, uid: Uid, gid: Gid) -> std::io::Result<()> {
    let own = || lchown(path, Some(uid.as_raw()), Some(gid.as_raw()));
    // A directory is root's as long as its entries change hands.
    if uid.is_root() {
        own()?;
    }
    if path.symlink_metadata()?.is_dir() {
        for entry in path.read_dir_utf8()? {
            chown(entry?.path(), uid, gid)?;
        }
    }
    if uid.is_root() { Ok(()) } else { own() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

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
        // A record of the service user does not lead to files of others, and a link of it to no directory.
        let server = directory.path().join("victim");
        fs_err::create_dir(&server).unwrap();
        let record =
            serde_json::json!({"version": 1, "data_dir": server, "host": "127.0.0.1", "port": 1, "local_port": 2});
        fs_err::write(layout.local_server(), record.to_string()).unwrap();
        std::os::unix::fs::chown(layout.local_server(), Some(user), Some(group)).unwrap();
        assert!(LocalServer::load(&layout).unwrap().is_some());
        assert_eq!(server_data(&layout), None);
        std::os::unix::fs::chown(layout.local_server(), Some(0), Some(0)).unwrap();
        assert!(server_data(&layout).is_some(), "root has written it");
        std::os::unix::fs::symlink(&server, directory.path().join("link")).unwrap();
        let mode = fs_err::metadata(&server).unwrap().mode();
        assert!(chmod(&layout.base().join("link"), 0o700).is_err());
        assert_eq!(fs_err::metadata(&server).unwrap().mode(), mode);
        assert_eq!(fs_err::read_to_string(work.join("registry")).unwrap(), "positions");
    }
}
