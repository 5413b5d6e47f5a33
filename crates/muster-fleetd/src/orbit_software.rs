//! The installation of software by orbit (FL §2.6).

use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use muster_core::agent::Family;
use muster_core::fleetd::numbers;
use muster_core::install::{InstallKind, InstallResult, SCRIPT_SECONDS, StepResult};
use muster_core::{Error, ErrorKind};
use muster_fleet::registry::AgentEntry;
use muster_listen::reply::{Reply, ReplyBody};
use muster_protocol::fleetd::{OrbitScript, OrbitScriptResult};
use muster_protocol::fleetd_software::{
    OrbitInstallDetails, OrbitInstallRequest, OrbitInstallResult, OrbitPackageRequest,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::failure::Failure;
use super::{Call, Inner, json, no_content};

impl Inner {
    /// Returns the details of an install, which the host then counts as begun.
    pub(super) async fn install_details(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitInstallRequest<'_> = call.parse()?;
        let entry = self.seen(&call, wire.key(), Family::Orbit).await?;
        // Here and not at the download: orbit asks again with its next configuration, but takes a refused download for a failed install.
        self.downloads.reserve(entry.id())?;
        let details = self.fleet.installs().details(&entry, &wire.install_uuid, InstallKind::Install).await;
        let (run, installer) = details.inspect_err(|_| self.downloads.release(entry.id()))?;
        json(&OrbitInstallDetails {
            install_id: run.id.as_str(),
            installer_id: numbers::of(installer.id.as_str()),
            pre_install_condition: &installer.condition,
            install_script: &installer.install_script,
            uninstall_script: &installer.uninstall_script,
            post_install_script: &installer.post_install_script,
            self_service: false,
            max_retries: run.work.max_retries,
        })
    }

    /// Streams a package that the host has yet to install.
    pub(super) async fn install_package(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitPackageRequest<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        if !is_media(call.head.uri.query().unwrap_or_default()) {
            return Err(Failure::bad_request("only alt=media is supported"));
        }
        let installer = self.fleet.installs().package(&entry, wire.installer_id).await?;
        // Held until the last byte is sent, because a slow reader occupies memory all the time.
        let slot = self.downloads.slot(entry.id()).await?;
        let pieces = self.fleet.installs().stream(&installer, slot);
        let mut reply = Response::new(ReplyBody::stream(pieces, installer.size));
        let headers = reply.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(installer.size));
        headers.insert(CONTENT_DISPOSITION, disposition(&installer.file_name)?);
        Ok(reply)
    }

    /// Takes a result.
    pub(super) async fn install_result(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let wire: OrbitInstallResult<'_> = call.parse()?;
        let entry = self.seen(&call, &wire.orbit_node_key, Family::Orbit).await?;
        // orbit downloads nothing if the condition is not met.
        self.downloads.release(entry.id());
        self.fleet.installs().report_attempt(&entry, &wire.install_uuid, install_result_of(&wire)).await?;
        Ok(no_content())
    }

    /// Returns the script of an uninstall, which orbit executes like any other script. Fails with `unknown` if there is none.
    pub(super) async fn uninstall_script(
        &self,
        entry: &AgentEntry,
        id: &str,
        unknown: Error,
    ) -> Result<Reply, Failure> {
        let details = self.fleet.installs().details(entry, id, InstallKind::Uninstall).await;
        let (run, installer) = details.map_err(|error| if is_unknown(&error) { unknown } else { error })?;
        json(&OrbitScript {
            host_id: 0,
            execution_id: run.id.as_str(),
            script_contents: &installer.uninstall_script,
            output: "",
            runtime: 0,
            exit_code: None,
            timeout: SCRIPT_SECONDS,
        })
    }

    /// Takes the result of an uninstall. Fails with `unknown` if there is none.
    pub(super) async fn uninstall_result(
        &self,
        entry: &AgentEntry,
        wire: &OrbitScriptResult<'_>,
        unknown: Error,
    ) -> Result<(), Failure> {
        let script = StepResult::new(wire.exit_code, &wire.output);
        let result = InstallResult { script, ..InstallResult::default() };
        let stored = self.fleet.installs().report_attempt(entry, &wire.execution_id, result).await;
        Ok(stored.map_err(|error| if is_unknown(&error) { unknown } else { error })?)
    }
}

/// Returns the result in a request.
pub fn install_result_of(wire: &OrbitInstallResult<'_>) -> InstallResult {
    let step = |code, output: &Option<_>| StepResult::new(code, output.as_deref().unwrap_or_default());
    let result = InstallResult {
        condition: None,
        script: step(wire.install_script_exit_code, &wire.install_script_output),
        post_install: step(wire.post_install_script_exit_code, &wire.post_install_script_output),
        retries_remaining: wire.retries_remaining,
    };
    result.with_condition(wire.pre_install_condition_output.as_deref())
}

fn is_media(query: &str) -> bool {
    query.split('&').any(|pair| pair == "alt=media")
}

/// Returns the header with the name of the file, from which orbit takes its extension.
fn disposition(file_name: &str) -> Result<HeaderValue, Error> {
    let text = if file_name.is_ascii() {
        format!("attachment; filename=\"{file_name}\"")
    } else {
        format!("attachment; filename*=UTF-8''{}", utf8_percent_encode(file_name, NON_ALPHANUMERIC))
    };
    HeaderValue::from_str(&text).map_err(Error::internal)
}

/// Returns whether an execution is not one of a script, so that it may be an uninstall.
pub(super) fn is_unknown(error: &Error) -> bool {
    error.kind == ErrorKind::NotFound
}
