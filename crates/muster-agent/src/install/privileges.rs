//! Gives up the privileges of root because the server wants it (PRIVILEGE_LEVEL_CHANGE, AG §7.5).

use muster_core::error_chain::chain;
use serde::{Deserialize, Serialize};

use super::removal::{self, Found};
use super::{Installation, Manager, account, steps};
use crate::exit::Failure;
use crate::paths::Layout;

/// The account that the agent should run as; a name that is missing means the default one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, expecting = "an object with username or groupname")]
pub struct Wanted {
    /// Existing user.
    #[serde(rename = "username")]
    pub user: Option<String>,
    /// Existing group.
    #[serde(rename = "groupname")]
    pub group: Option<String>,
}

/// The privileges of the agent on its host.
pub trait Privileges: Send + Sync {
    /// Returns whether the agent runs without the privileges of root.
    fn are_lowered(&self) -> bool;
    /// Checks whether the agent can give them up. The error is for people.
    fn check(&self) -> Result<(), String>;
}

/// The privileges of this process.
#[derive(Clone, Debug)]
pub struct HostPrivileges(pub Layout);

impl Privileges for HostPrivileges {
    fn are_lowered(&self) -> bool {
        !nix::unistd::geteuid().is_root()
    }

    fn check(&self) -> Result<(), String> {
        service(&self.0).map(drop)
    }
}

/// Returns the installation. Only systemd starts a service that has ended as another user.
fn service(layout: &Layout) -> Result<Installation, String> {
    match removal::find(layout) {
        Ok(Found::Whole(installation)) if installation.manager == Manager::Systemd => Ok(installation),
        Ok(_) => Err("this agent is not a service of systemd, so that it cannot change its user itself".into()),
        Err(error) => Err(chain(&error).to_string()),
    }
}

/// Changes the account of the service, and requests its restart. The daemon must have ended its work: files that it would
/// write from now on would belong to root.
pub async fn lower(layout: &Layout, wanted: &Wanted) -> Result<(), String> {
    let former = service(layout)?;
    let account = account::prepare(wanted.user.as_deref(), wanted.group.as_deref()).await;
    let account = account.map_err(|error| format!("account: {}", chain(&error)))?;
    let next = Installation { account: Some(account), ..former.clone() };
    let failed = |failure: Failure| failure.message;
    let changed = async {
        next.save(layout).map_err(|error| chain(&error).to_string())?;
        steps::register(layout, &next).await.map_err(failed)?;
        steps::own(layout, &next).map_err(failed)
    };
    let outcome = changed.await;
    if outcome.is_err() {
        steps::restore(layout, &former, None).await.map_err(failed)?;
    }
    next.service().request_restart().await.map_err(|error| chain(&error).to_string())?;
    outcome
}
