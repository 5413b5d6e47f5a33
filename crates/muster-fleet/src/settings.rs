//! The part of the configuration that services use.

use std::time::Duration;

use muster_core::poll::PollLimits;
use muster_core::version::AcceptedVersions;

use crate::identity::passwords::PasswordCost;
use crate::urls::OwnUrls;

/// The part of the configuration that services use.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// Default time that a check-in with nothing to deliver is held (`timeouts.checkin_long_poll`).
    pub long_poll: Duration,
    /// Maximum random time subtracted from it (`timeouts.checkin_jitter`).
    pub poll_jitter: Duration,
    /// Maximum poll time that a client may request (`timeouts.checkin_max_poll`).
    pub max_poll: Duration,
    /// What this server knows of the fleet's URLs, which are delivered to agents as `fleet.hosts`.
    pub urls: OwnUrls,
    /// Highest agent version that this server was tested with: major and minor (EA32).
    pub tested_version: (u32, u32),
    /// Highest accepted agent version: major and minor; without a minor, every minor of that major.
    pub highest_version: (u32, Option<u32>),
    /// Lowest accepted agent version: major and minor.
    pub lowest_version: (u32, u32),
    /// The commit that the program was built from; empty if unknown.
    pub build_hash: String,
    /// Cost of password hashes.
    pub password_cost: PasswordCost,
    /// Minimum time between two enrollments of an osqueryd (`osquery.enroll_cooldown`).
    pub enroll_cooldown: Duration,
    /// Whether requests may authenticate with a name and a password (`auth.basic`).
    pub accepts_basic: bool,
}

impl FleetSettings {
    /// The limits of held polls.
    pub fn poll(&self) -> PollLimits {
        PollLimits { default: self.long_poll, max: self.max_poll, jitter: self.poll_jitter }
    }

    /// The agent versions that are accepted.
    pub fn accepted_versions(&self) -> AcceptedVersions {
        AcceptedVersions { lowest: self.lowest_version, highest: self.highest_version, tested: self.tested_version }
    }
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self {
            long_poll: Duration::from_secs(300),
            poll_jitter: Duration::from_secs(30),
            max_poll: Duration::from_secs(3600),
            urls: OwnUrls::default(),
            tested_version: (9, 5),
            highest_version: (9, None),
            lowest_version: (7, 13),
            build_hash: String::new(),
            password_cost: PasswordCost::default(),
            enroll_cooldown: Duration::ZERO,
            accepts_basic: false,
        }
    }
}
