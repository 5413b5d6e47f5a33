//! Steps that `install`, `privileged` and `unprivileged` share.

use camino::Utf8Path;
use muster_core::error_chain::chain;

use super::definition::Definition;
use super::{Installation, Manager, account};
use crate::exit::{self, Failure};
use crate::homes::{self, HomeName};
use crate::paths::Layout;
use crate::state::atomic;
use crate::state::disk::DiskStore;
use crate::state::seal::{KeyPlace, Seal};

/// Creates the key, the command and the service. `is_image` is whether other hosts will be copies of this one: only this host
/// could decrypt a key that systemd encrypts, so that it stays a file until the first start.
pub async fn prepare(layout: &Layout, installation: &Installation, is_image: bool) -> Result<(), Failure> {
    if is_image {
        portable_key(layout)?;
    } else if installation.manager == Manager::Systemd
        && let Err(error) = Seal::create_credential(layout.base())
    {
        // An old systemd, or one without a key of its own: the key becomes a file.
        eprintln!("Note: the key of the agent's files is kept in a file: {}", chain(&error));
    }
    // After the key, without which the service could not read its files.
    if let Some(command) = &installation.command {
        link_command(layout, command).map_err(|error| failed("command", command, &error))?;
    }
    register(layout, installation).await
}

/// Replaces a key that only this host can decrypt by one in a file. Returns whether there was one.
fn portable_key(layout: &Layout) -> Result<bool, Failure> {
    let is_bound = matches!(Seal::place(layout.base()), Some(KeyPlace::Credential(_)));
    if is_bound {
        DiskStore::new(layout.clone()).with_own_key(false)?;
    }
    Ok(is_bound)
}

/// Prepares an installed agent for an image of its host. A service that loads a credential would not start on other hosts.
pub async fn prepare_image(layout: &Layout) -> Result<(), Failure> {
    if portable_key(layout)?
        && let Ok(Some(installation)) = Installation::load(layout)
    {
        register(layout, &installation).await?;
    }
    Ok(())
}

/// Gives a host that was started from an image a key of its own, once it has enrolled. Returns the store with this key.
pub async fn own_key(layout: &Layout, store: &DiskStore) -> Result<DiskStore, Failure> {
    let installation = Installation::load(layout).ok().flatten();
    // The user of an unprivileged agent can neither encrypt credentials nor change the service.
    let installation = installation.filter(|found| found.manager == Manager::Systemd && found.account.is_none());
    let installation = installation.filter(|_| nix::unistd::geteuid().is_root());
    let store = store.with_own_key(installation.is_some())?;
    if let Some(installation) = installation {
        register(layout, &installation).await?;
    }
    Ok(store)
}

/// Defines the service.
pub async fn register(layout: &Layout, installation: &Installation) -> Result<(), Failure> {
    let credential = match Seal::place(layout.base()) {
        Some(KeyPlace::Credential(path)) => Some(path),
        _ => None,
    };
    let definition = Definition {
        description: "Muster endpoint agent",
        directory: layout.base(),
        arguments: &format!("run --base-path {}", layout.base()),
        account: installation.account.as_ref().map(|account| (account.user.as_str(), account.group.as_str())),
        credential: credential.as_deref(),
        stays: true,
    };
    let registered = installation.service().register(&definition.text(installation.manager)).await;
    registered.map_err(|error| Failure::new(exit::FAILED, format!("service: {}", chain(&error))))
}

/// Gives the files to the account of the agent. Only root can do this.
pub fn own(layout: &Layout, installation: &Installation) -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    account::own(layout, installation.account.as_ref())
        .map_err(|error| Failure::new(exit::FAILED, format!("account: {}", chain(&error))))
}

/// Restores the former installation after one that replaced it has failed.
pub async fn restore(layout: &Layout, former: &Installation, name: Option<&HomeName>) -> Result<(), Failure> {
    former.save(layout)?;
    if let Some(name) = name {
        homes::activate(layout, name).map_err(|error| failed("link", &layout.link(), &error))?;
    }
    // The files may belong to the account of the failed installation.
    own(layout, former)?;
    register(layout, former).await?;
    former.service().start().await.map_err(|error| Failure::new(exit::FAILED, format!("service: {}", chain(&error))))
}

/// Creates the link in a directory of `PATH`, unless the name belongs to something else.
fn link_command(layout: &Layout, command: &Utf8Path) -> std::io::Result<()> {
    match std::fs::read_link(command) {
        // The name is free if it leads here already.
        Ok(target) if target == layout.link() => return Ok(()),
        Ok(_) => return Err(std::io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    std::os::unix::fs::symlink(layout.link(), command)?;
    command.parent().map_or(Ok(()), atomic::sync)
}

fn failed(step: &str, path: &Utf8Path, error: &std::io::Error) -> Failure {
    Failure::new(exit::FAILED, format!("{step}: {path}: {error}"))
}
