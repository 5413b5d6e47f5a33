//! orbit's API (FL §2).

use muster_core::agent::Family;
use muster_core::credential::ApiKey;
use muster_core::enroll::Request;
use muster_core::fleetd::details::{OrbitFacts, orbit_metadata};
use muster_core::fleetd::orbit_config;
use muster_core::fleetd::platform::Platform;
use muster_core::host;
use muster_core::one_time::Hardware;
use muster_fleet::enroll::EnrollInput;
use muster_fleet::registry::AgentEntry;
use muster_listen::reply::Reply;
use muster_protocol::fleetd::{Enabled, OrbitConfig, OrbitEnroll, OrbitEnrolled, OrbitRequest};

use super::failure::Failure;
use super::{Call, Inner, Nothing, json, json_bytes};

/// Line of the architecture in [`AgentRecord::os`](muster_core::agent::AgentRecord::os).
const ARCHITECTURE: usize = 4;

/// Returns the metadata in an enrollment.
pub fn enrolled_facts(wire: &OrbitEnroll<'_>) -> String {
    orbit_metadata(&OrbitFacts {
        hardware_uuid: &wire.hardware_uuid,
        hardware_serial: &wire.hardware_serial,
        hardware_model: &wire.hardware_model,
        hostname: &wire.hostname,
        computer_name: &wire.computer_name,
        platform: &wire.platform,
        platform_like: &wire.platform_like,
    })
}

impl Inner {
    pub(super) async fn orbit_enroll(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitEnroll<'_> = call.parse()?;
        let admission = self.admit(&call, &wire.enroll_secret).await?;
        let uuid = host::machine_id(&wire.hardware_uuid)
            .ok_or_else(|| Failure::bad_request("enroll failed: no valid hardware_uuid"))?;
        // The instance id, if hosts are told apart by it: clones of a virtual machine have the same hardware UUID (FL48).
        let machine = host::machine_id(&wire.osquery_identifier).unwrap_or(uuid);
        if host::is_placeholder(&machine) {
            let reason = "enroll failed: the hardware UUID is a manufacturer's placeholder; package fleetd with --host-identifier=instance";
            return Err(Failure::bad_request(reason));
        }
        let metadata = enrolled_facts(&wire);
        let id = host::agent_id(Family::Orbit, &machine);
        let request = Request {
            family: Family::Orbit,
            machine_id: &machine,
            id: id.as_str(),
            metadata: &metadata,
            certificate: self.certificate(call.peer),
            hardware: Hardware { uuid: &wire.hardware_uuid, serial: &wire.hardware_serial },
            ..Request::default()
        };
        let address = call.peer.ip();
        let input = EnrollInput { request: &request, agent_version: "", newer_than_tested: false, address: &address };
        let enrolled = self.fleet.enrollment().enroll(&admission, input).await.map_err(Failure::of_enrollment)?;
        json(&OrbitEnrolled { orbit_node_key: enrolled.key.secret() })
    }

    pub(super) async fn orbit_config(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitRequest<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        let options = self.fleet.fleetd_options().orbit(&entry).await?;
        // Only extensions depend on the platform, and few fleets have any.
        let target = if options.have_extensions() { self.update_target(&entry).await? } else { None };
        // orbit remembers push until the member is absent (FL §2.9).
        let websocket_transport = self.options.push.then_some(Enabled { enabled: true });
        let config = OrbitConfig { websocket_transport, ..self.work_of(&entry).await? };
        // An object, which always serializes, with the members from the options behind its own.
        let mut config = serde_json::to_string(&config).unwrap_or_default();
        config.pop();
        Ok(json_bytes(format!("{config}{}}}", options.members(target))))
    }

    /// Returns the platform of an orbit's host in update repositories; `None` while it is unknown. orbit does not report the architecture, but
    /// osqueryd does.
    async fn update_target(&self, entry: &AgentEntry) -> Result<Option<&'static str>, Failure> {
        let Some(platform) = entry.record().and_then(|record| Platform::of(&record)) else { return Ok(None) };
        let agents = self.fleet.agents().of_device(entry).await?;
        let mut architectures = agents.iter().filter_map(|agent| agent.details.record.os.lines().nth(ARCHITECTURE));
        Ok(Some(orbit_config::target(platform, architectures.any(orbit_config::is_arm))))
    }

    pub(super) async fn device_token(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitRequest<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        muster_core::fleetd::device_token::check(&wire.device_auth_token)?;
        self.fleet.credentials().announce_device_token(&entry, &ApiKey::opaque(&wire.device_auth_token)).await?;
        json(&Nothing {})
    }
}
