//! What orbit does on its host: scripts, among them those that uninstall software, and disk keys (FL §2.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::agent::Family;
use muster_core::disk_key::DiskSecret;
use muster_core::install::SCRIPT_SECONDS;
use muster_core::script::ScriptResult;
use muster_fleet::registry::AgentEntry;
use muster_listen::reply::Reply;
use muster_protocol::fleetd::{
    OrbitConfig, OrbitDiskKey, OrbitLuks, OrbitNotifications, OrbitScript, OrbitScriptRequest, OrbitScriptResult,
};
use zeroize::Zeroizing;

use super::failure::Failure;
use super::orbit_software::is_unknown;
use super::{Call, Inner, Nothing, json, no_content};

impl Inner {
    /// Returns the configuration of an orbit: what it has to do. Members that are off are absent (FL §2.5).
    pub(super) async fn work_of(&self, entry: &AgentEntry) -> Result<OrbitConfig, Failure> {
        let scripts = self.fleet.scripts().runs_due(entry).await?;
        let software = self.fleet.installs().due(entry).await?;
        let of_scripts = scripts.iter().map(|script| (script.id.to_string(), script.work.timeout));
        let uninstalls = software.uninstall.iter().map(|run| (run.to_string(), SCRIPT_SECONDS));
        let (ids, timeouts): (Vec<_>, Vec<_>) = of_scripts.chain(uninstalls).unzip();
        Ok(OrbitConfig {
            // One value for all scripts of a configuration: the longest.
            script_execution_timeout: timeouts.into_iter().max(),
            notifications: OrbitNotifications {
                pending_script_execution_ids: ids,
                pending_software_installer_ids: software.install.iter().map(ToString::to_string).collect(),
                run_disk_encryption_escrow: self.fleet.disk_keys().take_escrow(entry).await?,
            },
            websocket_transport: None,
        })
    }

    pub(super) async fn script_request(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitScriptRequest<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        let run = match self.fleet.scripts().fetch(&entry, &wire.execution_id).await {
            Err(error) if is_unknown(&error) => {
                return self.uninstall_script(&entry, &wire.execution_id, error).await;
            }
            found => found?,
        };
        json(&OrbitScript {
            host_id: 0,
            execution_id: run.id.as_str(),
            script_contents: &run.work.script,
            output: "",
            runtime: 0,
            exit_code: None,
            timeout: run.work.timeout,
        })
    }

    /// Takes a result. The key names the host, whatever the body says (FL59).
    pub(super) async fn script_result(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitScriptResult<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        let exit_code = wire.exit_code.ok_or_else(|| Failure::bad_request("exit_code is missing"))?;
        let result = ScriptResult::new(exit_code, &wire.output, wire.runtime);
        match self.fleet.scripts().report(&entry, &wire.execution_id, result).await {
            Err(error) if is_unknown(&error) => self.uninstall_result(&entry, &wire, error).await?,
            stored => stored?,
        }
        json(&Nothing {})
    }

    /// Takes the recovery key of BitLocker, or the reason why there is none.
    pub(super) async fn disk_encryption_key(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitDiskKey<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        if wire.client_error.is_empty() {
            let bytes = STANDARD.decode(wire.encryption_key.as_deref().unwrap_or_default()).map(Zeroizing::new);
            let key = bytes.ok().and_then(|bytes| std::str::from_utf8(&bytes).ok().map(str::to_owned));
            let key = key.ok_or_else(|| Failure::bad_request("encryption_key is not text in base64"))?;
            self.fleet.disk_keys().store(&entry, &DiskSecret { key, salt: None, key_slot: None }).await?;
        } else {
            self.fleet.disk_keys().store_error(&entry, &wire.client_error).await?;
        }
        Ok(no_content())
    }

    /// Takes a passphrase of LUKS, or the reason why there is none.
    pub(super) async fn luks_data(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitLuks<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        if wire.client_error.is_empty() {
            let salt = Some(wire.salt.into_owned()).filter(|salt| !salt.is_empty());
            let secret = DiskSecret { key: wire.passphrase.into_owned(), salt, key_slot: wire.key_slot };
            self.fleet.disk_keys().store(&entry, &secret).await?;
        } else {
            self.fleet.disk_keys().store_error(&entry, &wire.client_error).await?;
        }
        Ok(no_content())
    }
}
