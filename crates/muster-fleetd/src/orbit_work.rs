//! What orbit does on its host: scripts (FL §2.6).

use muster_core::agent::Family;
use muster_core::script::ScriptResult;
use muster_fleet::registry::AgentEntry;
use muster_listen::reply::Reply;
use muster_protocol::fleetd::{OrbitConfig, OrbitNotifications, OrbitScript, OrbitScriptRequest, OrbitScriptResult};

use super::failure::Failure;
use super::{Call, Inner, Nothing, json};

impl Inner {
    /// Returns the configuration of an orbit: what it has to do. Members that are off are absent (FL §2.5).
    pub(super) async fn work_of(&self, entry: &AgentEntry) -> Result<OrbitConfig, Failure> {
        let scripts = self.fleet.scripts().due(entry).await?;
        Ok(OrbitConfig {
            // One value for all scripts of a configuration: the longest.
            script_execution_timeout: scripts.iter().map(|script| script.timeout).max(),
            notifications: OrbitNotifications {
                pending_script_execution_ids: scripts.iter().map(|script| script.run.to_string()).collect(),
            },
            websocket_transport: None,
        })
    }

    pub(super) async fn script_request(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitScriptRequest<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        let run = self.fleet.scripts().fetch(&entry, &wire.execution_id).await?;
        json(&OrbitScript {
            host_id: 0,
            execution_id: run.id.as_str(),
            script_contents: &run.script,
            output: "",
            runtime: 0,
            exit_code: None,
            timeout: run.timeout,
        })
    }

    /// Takes a result. The key names the host, whatever the body says (FL59).
    pub(super) async fn script_result(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitScriptResult<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        let result = ScriptResult::new(wire.exit_code, &wire.output, wire.runtime);
        self.fleet.scripts().report(&entry, &wire.execution_id, result).await?;
        json(&Nothing {})
    }
}
