//! What a server with an empty folder makes, and what a person is told to begin with.

use std::fmt::Write;

use muster_core::Error;
use muster_core::context::{Actor, OpContext};
use muster_core::id::PolicyId;
use muster_store::query::Page;

use crate::config::Config;
use crate::data_dir::ListenAddresses;
use crate::fleet::Fleet;
use crate::fleet::keys::NewEnrollmentKey;
use crate::tls::Tls;

/// The setting that says that the first start is done. What was deleted later must not come again.
const DONE: &str = "first_start_done";
const DEFAULT_KEY: &str = "Default";

/// What one needs to begin.
#[derive(Clone, Debug, Default)]
pub struct FirstStart {
    /// The default enrollment key's token, if it was made just now.
    pub enrollment_token: Option<String>,
    /// SHA-256 of the own CA's certificate.
    pub ca_fingerprint: Option<String>,
    /// Path of the own CA's certificate.
    pub ca_path: Option<String>,
    /// What agents are told as the server's address.
    pub url: String,
}
