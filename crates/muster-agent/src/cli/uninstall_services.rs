//! The part of `uninstall` that removes the services that the agent has installed (AG77, AG141).

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::error_chain::chain;

use super::guard::Guarded;
use crate::components::installed_services::{self, Around, Stuck};
use crate::exit::{self, Failure};
use crate::install::{Installation, Manager};
use crate::launch::Guard;
use crate::model::Catalog;
use crate::paths::Layout;
use crate::protection::Protection;
use crate::settings::Settings;
use crate::state::disk::DiskStore;
use crate::state::{Store, atomic};
use crate::variables::Variables as _;
use crate::variables::providers::HostVariables;

/// Uninstalls the services. If one fails, starts the agent again, which installs those that are gone.
pub(super) async fn run(
    layout: &Layout,
    installation: &Installation,
    store: &DiskStore,
    guarded: &Guarded,
) -> Result<(), Failure> {
    if installed_services::all(layout).is_empty() {
        return Ok(());
    }
    let tokens = Tokens::write(layout, store, guarded)?;
    let uninstalled = uninstall(layout, store, tokens.path()).await;
    drop(tokens);
    match uninstalled {
        Ok(()) => Ok(()),
        Err(stuck) => Err(stay(installation, &stuck).await),
    }
}

async fn uninstall(layout: &Layout, store: &DiskStore, tokens: Option<&Utf8Path>) -> Result<(), Stuck> {
    // Files that cannot be read must not make the agent unremovable.
    let settings = Settings::load(&layout.settings(), &[]).unwrap_or_default();
    let agent_id = store.enrollment().ok().flatten().map(|enrollment| enrollment.agent_id).unwrap_or_default();
    let variables = HostVariables::new(layout, &settings.providers, &agent_id).sets();
    let catalog = Catalog::without_rules(layout);
    let around = Around {
        layout,
        catalog: &catalog,
        scope: variables.context(),
        settings: &settings.process,
        guard: Guard::own(),
        tokens,
    };
    let uninstalled = installed_services::uninstall_all(&around).await?;
    for component in &uninstalled.done {
        println!("The service of the component {component} was uninstalled");
    }
    for (component, reason) in &uninstalled.orphaned {
        eprintln!("Warning: the service of the component {component} may remain: {reason}");
    }
    Ok(())
}

/// Starts the agent again, and returns the failure of the command.
async fn stay(installation: &Installation, stuck: &Stuck) -> Failure {
    let state = match installation.service().start().await {
        Ok(()) if installation.manager == Manager::None => "the agent is stopped".to_owned(),
        Ok(()) => "the agent was started again".to_owned(),
        Err(error) => format!("the agent cannot be started again: {}", chain(&error)),
    };
    Failure::new(exit::FAILED, format!("{stuck}; the agent stays installed, and {state}"))
        .hint("its log is in logs/components; run uninstall again, or keep the services with --keep-services")
}

/// A file with the uninstall tokens of the command, which programs read. In an argument, every user could read them.
struct Tokens(Option<Utf8PathBuf>);

impl Tokens {
    /// Writes the file if a service may ask for a token: the policy is protected, or has been lost.
    fn write(layout: &Layout, store: &DiskStore, guarded: &Guarded) -> Result<Self, Failure> {
        let tokens = guarded.tokens()?;
        let is_unprotected = store.state().is_ok_and(|state| state.policy.is_some());
        let is_unprotected = is_unprotected && Protection::stored(store) == Protection::Off;
        if tokens.is_empty() || is_unprotected {
            return Ok(Self(None));
        }
        let path = layout.uninstall_tokens();
        let failed = |error: std::io::Error| Failure::new(exit::FAILED, format!("{path}: {error}"));
        atomic::replace(&path, tokens.join("\n").as_bytes()).map_err(failed)?;
        Ok(Self(Some(path)))
    }

    fn path(&self) -> Option<&Utf8Path> {
        self.0.as_deref()
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // If this fails, the file is removed with the base path.
            let _ = std::fs::remove_file(path);
        }
    }
}
