//! Wire types of fleetd for the installation of software (FL §2.6).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// `POST /api/fleet/orbit/software_install/details`.
#[derive(Debug, Deserialize)]
pub struct OrbitInstallRequest<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub orbit_node_key: Cow<'a, str>,
    /// The node key, as versions up to 1.38 misspell it; later ones send both (FL61).
    #[serde(borrow, default)]
    pub orbot_node_key: Cow<'a, str>,
    /// The install.
    #[serde(borrow, default)]
    pub install_uuid: Cow<'a, str>,
}

impl OrbitInstallRequest<'_> {
    /// Returns the node key, whichever spelling it has.
    pub fn key(&self) -> &str {
        if self.orbit_node_key.is_empty() { &self.orbot_node_key } else { &self.orbit_node_key }
    }
}

/// Response of `POST /api/fleet/orbit/software_install/details`. The member `installer_url`, for packages on other servers, is absent.
#[derive(Debug, Serialize)]
pub struct OrbitInstallDetails<'a> {
    /// The install.
    pub install_id: &'a str,
    /// The installer, for the download.
    pub installer_id: u64,
    /// Query that must return rows; empty for none.
    pub pre_install_condition: &'a str,
    /// Script that installs the package.
    pub install_script: &'a str,
    /// Script that orbit runs if the one after it fails.
    pub uninstall_script: &'a str,
    /// Script after the install; empty for none.
    pub post_install_script: &'a str,
    /// Whether the user of the host asked for it.
    pub self_service: bool,
    /// Number of times that orbit repeats a failed install; absent for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_retries: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `POST /api/fleet/orbit/software_install/package?alt=media`.
#[derive(Debug, Deserialize)]
pub struct OrbitPackageRequest<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub orbit_node_key: Cow<'a, str>,
    /// The installer.
    #[serde(default)]
    pub installer_id: u64,
}

/// `POST /api/fleet/orbit/software_install/result`. An absent exit code is a step that did not run (FL63).
#[derive(Debug, Deserialize)]
pub struct OrbitInstallResult<'a> {
    /// Node key.
    #[serde(borrow, default)]
    pub orbit_node_key: Cow<'a, str>,
    /// The install.
    #[serde(borrow, default)]
    pub install_uuid: Cow<'a, str>,
    /// Rows of the condition; empty if there were none, absent without a condition.
    #[serde(borrow, default)]
    pub pre_install_condition_output: Option<Cow<'a, str>>,
    /// Exit code of the script that installs; −2 if scripts are disabled, −3 if the package could not be downloaded.
    #[serde(default)]
    pub install_script_exit_code: Option<i64>,
    /// Its output.
    #[serde(borrow, default)]
    pub install_script_output: Option<Cow<'a, str>>,
    /// Exit code of the script after it.
    #[serde(default)]
    pub post_install_script_exit_code: Option<i64>,
    /// Its output.
    #[serde(borrow, default)]
    pub post_install_script_output: Option<Cow<'a, str>>,
    /// Number of times that orbit will try again.
    #[serde(default)]
    pub retries_remaining: u64,
}
