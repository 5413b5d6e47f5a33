//! The arguments of `muster drones`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What the simulated agents do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Behave like real agents until interrupted: check in, apply policies, run and acknowledge actions
    Live,
    /// Enroll `--count` agents as fast as the server accepts them, then exit
    Enroll,
    /// Enroll `--count` hosts of fleetd, which report their details once, then exit
    Details,
    /// Check in repeatedly, without changes
    Heartbeat,
    /// Check in repeatedly with a changed component each time
    Change,
    /// Send one check-in of `--body-bytes` per agent, all at the same time, then exit
    Burst,
}

/// The programs that are simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// Elastic Agents
    #[default]
    Elastic,
    /// Hosts with orbit and osqueryd; modes `live`, `enroll`, `details` and `heartbeat`
    Fleetd,
}

/// Arguments of the load generator.
#[derive(Clone, Debug, Args)]
pub struct DronesArgs {
    /// URL of the server's agent listener: `https://HOST:PORT`
    #[arg(long)]
    pub url: String,
    /// Programs to simulate
    #[arg(long, value_enum, default_value_t)]
    pub family: Family,
    /// Enrollment token, or enroll secret of fleetd
    #[arg(long, env = "MUSTER_ENROLLMENT_TOKEN", hide_env_values = true, required_unless_present = "invent")]
    pub enrollment_token: Option<String>,
    /// PEM file with the CA certificate to trust
    #[arg(long)]
    pub ca: PathBuf,
    /// Number of simulated agents
    #[arg(long, default_value_t = 100)]
    pub count: u32,
    /// Number of processes to distribute the agents over
    #[arg(long, default_value_t = 1)]
    pub processes: u32,
    /// What the simulated agents do
    #[arg(long, value_enum, default_value = "live")]
    pub mode: Mode,
    /// Maximum number of concurrent enrollments, over all processes
    #[arg(long, default_value_t = 64)]
    pub in_flight: u32,
    /// Mode `enroll`: open a connection for every agent instead of `--in-flight` persistent ones
    #[arg(long)]
    pub fresh_connections: bool,
    /// Duration in seconds; 0 means until interrupted
    #[arg(long, default_value_t = 0.0)]
    pub seconds: f64,
    /// Modes `heartbeat` and `change`: check-ins per second over all agents, on a fixed schedule; 0 means no limit
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Family `fleetd`: seconds between two distributed reads of a host; the intervals of other requests are scaled accordingly
    #[arg(long, default_value_t = 10.0)]
    pub interval: f64,
    /// Family `fleetd`: hosts keep a WebSocket open, and read queries only when they are told to; needs `osquery.push` on the server
    #[arg(long)]
    pub push: bool,
    /// Family `fleetd`: number of connections that all hosts share, as behind a proxy, besides WebSockets; 0 means two for each host
    #[arg(long, default_value_t = 0)]
    pub connections: u32,
    /// Mode `burst`: size of each body in bytes, before compression
    #[arg(long, default_value_t = 1_000_000)]
    pub body_bytes: usize,
    /// Initial back-off after a failure, in seconds; doubles with each failure
    #[arg(long, default_value_t = 60.0)]
    pub back_off: f64,
    /// Maximum back-off, in seconds
    #[arg(long, default_value_t = 600.0)]
    pub back_off_max: f64,
    /// Generate ids and keys instead of enrolling, for a server that does not verify them
    #[arg(long)]
    pub invent: bool,
    /// Resume TLS sessions on reconnect
    #[arg(long)]
    pub resume_tls: bool,
    /// Agent version to report
    #[arg(long, default_value = "9.5.2")]
    pub agent_version: String,
    /// Tags of the agents, separated by commas
    #[arg(long, alias = "tag", value_delimiter = ',', default_value = "drone")]
    pub tags: Vec<String>,
    /// Number of the first agent; hosts are named `drone-N`
    #[arg(long, default_value_t = 0)]
    pub first: u32,
    /// Mode `live`: percentage of agents that report that they are degraded while they run the second policy revision that they get
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    pub degrade_percent: u32,
    /// Print events as JSON lines
    #[arg(long)]
    pub json: bool,
    /// Number of the share, set in the processes that the leading one starts
    #[arg(long, hide = true)]
    pub share: Option<u32>,
}

impl DronesArgs {
    /// Checks what clap can't.
    ///
    /// # Errors
    /// If the mode or a flag is not for the family.
    pub fn check(&self) -> anyhow::Result<()> {
        let is_known = matches!(self.mode, Mode::Live | Mode::Enroll | Mode::Details | Mode::Heartbeat) && !self.invent;
        anyhow::ensure!(
            self.family == Family::Elastic || is_known,
            "--family fleetd supports the modes live, enroll, details and heartbeat, and enrolls its hosts"
        );
        let is_of_fleetd = self.family == Family::Fleetd || self.mode != Mode::Details;
        anyhow::ensure!(is_of_fleetd, "the mode details requires --family fleetd");
        anyhow::ensure!(self.family == Family::Fleetd || !self.push, "--push is for --family fleetd");
        anyhow::ensure!(self.family == Family::Fleetd || self.connections == 0, "--connections is for --family fleetd");
        anyhow::ensure!((0.01..=3600.0).contains(&self.interval), "--interval must be from 0.01 to 3600");
        Ok(())
    }

    /// Returns the numbers of the agents of one share.
    #[must_use]
    pub fn numbers(&self, share: u32) -> std::ops::Range<u32> {
        let processes = u64::from(self.processes.max(1));
        // Computed from the bounds of the shares, so that they cover all agents even if the division leaves a
        // remainder.
        let bound =
            |share: u64| self.first + u32::try_from(u64::from(self.count) * share / processes).unwrap_or(u32::MAX);
        bound(u64::from(share))..bound(u64::from(share) + 1)
    }

    /// Maximum number of concurrent enrollments in one share.
    #[must_use]
    pub fn in_flight_of_share(&self) -> usize {
        (self.in_flight / self.processes.max(1)).max(1) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: DronesArgs,
    }

    fn parse(line: &str) -> DronesArgs {
        let words = std::iter::once("drones").chain(line.split_whitespace());
        <Cli as clap::Parser>::parse_from(words).args
    }

    #[test]
    fn shares_are_complete_and_disjoint() {
        let args = parse("--url https://x:1 --enrollment-token t --ca c --count 10 --processes 3 --first 5");
        let shares: Vec<_> = (0..3).map(|share| args.numbers(share)).collect();
        assert_eq!(shares, [5..8, 8..11, 11..15]);
    }

    #[test]
    fn invented_agents_need_no_token() {
        assert!(parse("--url https://x:1 --ca c --invent").enrollment_token.is_none());
    }
}
