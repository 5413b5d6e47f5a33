//! Platforms of hosts, as options and checks distinguish them.

use crate::agent::AgentRecord;
use crate::error::Error;

/// Platform of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// macOS.
    Darwin,
    /// Any distribution of Linux.
    Linux,
    /// Windows.
    Windows,
}

impl Platform {
    /// All platforms.
    pub const ALL: [Self; 3] = [Self::Darwin, Self::Linux, Self::Windows];
    /// Their names.
    pub const NAMES: [&str; 3] = ["darwin", "linux", "windows"];

    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Parses a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.as_str() == name)
    }

    /// Returns the platform of an agent's host; `None` while it has not reported one.
    pub fn of(record: &AgentRecord) -> Option<Self> {
        // osquery calls each distribution of Linux a platform of its own.
        match record.os.lines().next().unwrap_or_default() {
            "" => None,
            "darwin" => Some(Self::Darwin),
            "windows" => Some(Self::Windows),
            _ => Some(Self::Linux),
        }
    }
}

/// Returns whether something for these platforms, by name, applies to hosts of one; `None` stands for a platform that is unknown. No
/// names stand for all platforms.
pub fn applies(names: &[String], platform: Option<Platform>) -> bool {
    names.is_empty() || platform.is_some_and(|own| names.iter().any(|name| name == own.as_str()))
}

/// Rejects unknown names of platforms.
pub fn check_names(field: &'static str, names: &[String]) -> Result<(), Error> {
    match names.iter().find(|name| Platform::parse(name).is_none()) {
        Some(unknown) => {
            let reason = format!("unknown platform {unknown:?}; known: {}", Platform::NAMES.join(", "));
            Err(Error::invalid(field, reason))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::agent;

    #[test]
    fn every_distribution_is_linux() {
        let of = |os: &str| Platform::of(&AgentRecord { os: os.into(), ..agent() });
        assert_eq!(of("ubuntu\ndebian\nUbuntu\n24.04\nx86_64"), Some(Platform::Linux));
        assert_eq!(
            [of("darwin\ndarwin"), of("windows\nwindows"), of("")],
            [Some(Platform::Darwin), Some(Platform::Windows), None]
        );
        assert!(Platform::ALL.into_iter().all(|one| Platform::parse(one.as_str()) == Some(one)));
    }
}
