//! Steps that `install`, `privileged` and `unprivileged` share.

use camino::Utf8Path;
use muster_core::error_chain::chain;

use super::definition::Definition;
use super::{Installation, Manager, account};
use crate::exit::{self, Failure};
use crate::homes::{self, HomeName};
use crate::paths::Layout;
use crate::state::atomic;
use crate::state::seal::{KeyPlace, Seal};

/// Creates the key, the command and the service.
pub async fn prepare(layout: &Layout, installation: &Installation) -> Result<(), Failure> {
    if installation.manager == Manager::Systemd
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
