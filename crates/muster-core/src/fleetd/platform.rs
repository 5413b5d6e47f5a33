//! Platforms of hosts, as options and checks distinguish them.

use crate::agent::AgentRecord;

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
