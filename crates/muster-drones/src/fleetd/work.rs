//! What a simulated host does when it is told to: scripts, installs and carves.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{FleetdHost, ask, post, post_text, text};
use crate::fault::Fault;

/// Length of a block of a carve, bytes.
const BLOCK: usize = 64 * 1024;
/// Of this many hosts, software cannot be installed on one.
const FAILING: u32 = 10;
/// Exit code for a package that could not be downloaded.
const NOT_DOWNLOADED: i64 = -3;

impl FleetdHost {
    /// Runs the scripts of a configuration: reports a line of output for each.
    pub(super) async fn run_scripts(&mut self, config: &Value) -> Result<(), Fault> {
        let ids = config["notifications"]["pending_script_execution_ids"].as_array();
        for id in ids.into_iter().flatten() {
            let began = Instant::now();
            let ids = json!({"orbit_node_key": self.orbit_key, "execution_id": id});
            let script = post(&self.orbit, "/api/fleet/orbit/scripts/request", &ids).await?;
            let lines = text(&script, "script_contents").lines().count();
            let output = format!("drone-{}: {lines} lines\n", self.number);
            let result = json!({"orbit_node_key": self.orbit_key, "execution_id": id, "output": output, "runtime": 1,
                "exit_code": 0, "timeout": 300});
            post(&self.orbit, "/api/fleet/orbit/scripts/result", &result).await?;
            self.shared.tally.requested("script", began.elapsed());
        }
        Ok(())
    }

    /// Installs the software of a configuration: downloads each package, and reports that the script has failed on some hosts.
    pub(super) async fn install_software(&mut self, config: &Value) -> Result<(), Fault> {
        let ids = config["notifications"]["pending_software_installer_ids"].as_array();
        for id in ids.into_iter().flatten() {
            let began = Instant::now();
            let request = json!({"orbit_node_key": self.orbit_key, "install_uuid": id});
            let details = post(&self.orbit, "/api/fleet/orbit/software_install/details", &request).await?;
            let request = json!({"orbit_node_key": self.orbit_key, "installer_id": details["installer_id"]});
            let path = "/api/fleet/orbit/software_install/package?alt=media";
            let package = ask(&self.orbit, path, request.to_string()).await?;
            let is_downloaded = package.status == 200 && !package.body.is_empty();
            let code = match is_downloaded {
                false => NOT_DOWNLOADED,
                true if self.number.is_multiple_of(FAILING) => 1,
                true => 0,
            };
            let output = format!("drone-{}: {} bytes\n", self.number, package.body.len());
            let mut result = json!({"orbit_node_key": self.orbit_key, "install_uuid": id,
                "install_script_exit_code": code, "install_script_output": output});
            if !text(&details, "pre_install_condition").is_empty() {
                result["pre_install_condition_output"] = json!("[{\"1\":\"1\"}]");
            }
            let told = ask(&self.orbit, "/api/fleet/orbit/software_install/result", result.to_string()).await?;
            if told.status != 204 {
                return Err(Fault::Refused(told.status, "result of an install".to_owned()));
            }
            self.shared.tally.requested("install", began.elapsed());
        }
        Ok(())
    }

    /// Uploads an archive, as osqueryd does after a query that carves.
    pub(super) async fn carve(&mut self, query: &str) -> Result<(), Fault> {
        let began = Instant::now();
        let archive = archive(&format!("drone-{}\n", self.number)).map_err(anyhow::Error::from)?;
        let blocks = archive.chunks(BLOCK);
        let begin = json!({"node_key": self.node_key, "block_count": blocks.len(), "block_size": BLOCK,
            "carve_size": archive.len(), "carve_id": uuid::Uuid::new_v4().to_string(), "request_id": query});
        let begun = post(&self.osquery, "/api/v1/osquery/carve/begin", &begin).await?;
        let session = text(&begun, "session_id");
        for (number, block) in blocks.enumerate() {
            // The members in the order of osqueryd.
            let (session, query) = (json!(session), json!(query));
            let data = STANDARD.encode(block);
            let body =
                format!(r#"{{"block_id":{number},"session_id":{session},"request_id":{query},"data":"{data}"}}"#);
            post_text(&self.osquery, "/api/v1/osquery/carve/block", body).await?;
        }
        self.shared.tally.requested("carve", began.elapsed());
        Ok(())
    }
}

/// Returns a tar file with one file in it.
fn archive(content: &str) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    archive.append_data(&mut header, "drone.txt", content.as_bytes())?;
    archive.into_inner()
}
