//! The plan of a rollout: its waves and their members.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Gate, MAX_SOAK};
use crate::Error;
use crate::audit::sha256;
use crate::hex::number_of;
use crate::id::AgentId;

/// Maximum number of waves.
const MAX_WAVES: usize = 20;

/// The place of an agent in all rollouts, 0 to [`Place::END`]. It is computed from the agent's id, so it never changes, and
/// agents that enroll during a rollout have one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Place(i64);

impl Place {
    /// All places are below this one.
    pub const END: Self = Self(1 << 62);

    /// Returns the place of an agent.
    pub fn of(agent: &AgentId) -> Self {
        // Hashed, because ids start with the time of enrollment: the first wave must not consist of the oldest agents.
        let hash = sha256(&[b"muster rollout ", agent.as_str().as_bytes()]);
        Self((number_of(&hash) >> 2).cast_signed())
    }

    /// Returns the place below which this share of all places lies.
    pub fn share(percent: u8) -> Self {
        Self(Self::END.0 / 100 * i64::from(percent.min(100)) + if percent >= 100 { Self::END.0 % 100 } else { 0 })
    }

    /// Wraps a stored value.
    pub fn from_stored(value: i64) -> Self {
        Self(value)
    }

    /// Returns the value to store.
    pub fn as_i64(self) -> i64 {
        self.0
    }

    /// Returns the next place: the bound of a wave that ends with this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The plan of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The waves, in order.
    pub waves: Vec<Wave>,
    /// When to halt.
    #[serde(default)]
    pub gate: Gate,
}

/// A wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    /// Its agents, in addition to those of the waves before.
    pub members: Members,
    /// Time from its start to the next wave, seconds on the wire.
    #[serde(with = "seconds")]
    pub soak: Duration,
    /// Whether a person has to approve the wave after it.
    #[serde(default)]
    pub needs_approval: bool,
}

/// The agents of a wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Members {
    /// Percentage of all agents, including those of earlier waves.
    Percent(u8),
    /// Number of agents, including those of earlier waves.
    Count(u32),
    /// The agents with one of these tags.
    Tags(Vec<String>),
}

impl Members {
    /// Parses what people write for a wave: `5` and `5%` are a share, `5agents` is a number, and everything else a tag.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Ok(percent) = text.trim_end_matches('%').trim_end().parse() {
            return Self::Percent(percent);
        }
        match text.strip_suffix("agents").and_then(|number| number.trim().parse().ok()) {
            Some(count) => Self::Count(count),
            None => Self::Tags(vec![text.to_owned()]),
        }
    }
}

impl Plan {
    /// Checks the plan. Errors name the field: `waves[1].members`.
    pub fn check(&self) -> Result<(), Error> {
        if self.waves.is_empty() || self.waves.len() > MAX_WAVES {
            return Err(Error::invalid("waves", format!("{} waves; must be 1 to {MAX_WAVES}", self.waves.len())));
        }
        let mut percent_before = 0;
        let mut count_before = 0;
        for (number, wave) in self.waves.iter().enumerate() {
            let field = |name: &str| format!("waves[{number}].{name}");
            if wave.soak > MAX_SOAK {
                return Err(Error::invalid(field("soak"), "at most 30 days"));
            }
            match &wave.members {
                Members::Percent(percent) if *percent <= percent_before || *percent > 100 => {
                    let reason =
                        format!("{percent} percent; must be more than the previous {percent_before}, and at most 100");
                    return Err(Error::invalid(field("members"), reason));
                }
                Members::Count(count) if *count <= count_before || percent_before > 0 => {
                    let reason =
                        "a number of agents must be greater than the previous one, and must precede all percentages";
                    return Err(Error::invalid(field("members"), reason));
                }
                Members::Tags(tags) if tags.is_empty() || tags.iter().any(String::is_empty) => {
                    return Err(Error::invalid(field("members"), "needs at least one tag"));
                }
                Members::Percent(percent) => percent_before = *percent,
                Members::Count(count) => count_before = *count,
                Members::Tags(_) => {}
            }
        }
        // Otherwise a completed rollout would reach agents that no wave has shown to be healthy.
        if percent_before != 100 || !matches!(self.waves.last(), Some(Wave { members: Members::Percent(100), .. })) {
            return Err(Error::invalid("waves", "the last wave must contain 100 percent of the agents"));
        }
        self.gate.check()
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}
