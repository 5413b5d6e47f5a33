//! The operations floor: one `enroll`, one `check_in`, one `acknowledge`, one `revoke`, whatever the adapter.
//!
//! An operation loads, asks core to decide, commits, and tells this node's registry. It knows neither HTTP nor SQL.

pub mod artifacts;
pub mod files;
pub mod registry;
pub mod uploads;

use std::sync::Arc;
use std::time::Duration;

use muster_core::Entropy;
use muster_core::time::Clock;
use muster_store::Store;

use self::registry::Registry;

/// What operations need to know of the configuration.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// How long a check-in is held when there is nothing to deliver (`timeouts.checkin_long_poll`).
    pub long_poll: Duration,
    /// Upper bound of the random part subtracted from it (`timeouts.checkin_jitter`).
    pub poll_jitter: Duration,
    /// Cap on what a client may ask for (`timeouts.checkin_max_poll`).
    pub max_poll: Duration,
    /// What agents are told as `fleet.hosts`.
    pub external_urls: Vec<String>,
    /// Highest agent version that this server was tested with: major and minor (EA32).
    pub tested_version: (u32, u32),
    /// Highest agent version let in: major, and minor unless any.
    pub highest_version: (u32, Option<u32>),
    /// Lowest agent version let in: major and minor.
    pub lowest_version: (u32, u32),
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            long_poll: Duration::from_secs(300),
            poll_jitter: Duration::from_secs(30),
            max_poll: Duration::from_secs(3600),
            external_urls: Vec::new(),
            tested_version: (9, 5),
            highest_version: (9, None),
            lowest_version: (7, 13),
        }
    }
}

/// The fleet: everything that operations share.
pub struct Fleet {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The generator.
    pub entropy: Arc<dyn Entropy>,
    /// The configuration's part.
    pub settings: FleetSettings,
    /// Agents known to this node, and who of them is connected.
    pub registry: Registry,
}
