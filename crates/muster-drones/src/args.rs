//! The arguments of `muster drones`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What the drones do once they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Live as real agents do, until stopped: check in, take policies and actions, ack.
    Live,
    /// Enrol `--count` agents as fast as the server lets them, then end.
    Enroll,
    /// Check in again and again, saying the same each time.
    Heartbeat,
    /// Check in again and again, with a component's state changed each time.
    Change,
}

/// Simulates agents against a server.
#[derive(Clone, Debug, Args)]
pub struct DronesArgs {
    /// Where agents reach the server: `https://HOST:PORT`.
    #[arg(long)]
    pub url: String,
    /// Token that admits agents.
    #[arg(long, env = "MUSTER_ENROLLMENT_TOKEN", hide_env_values = true, required_unless_present = "invent")]
    pub enrollment_token: Option<String>,
    /// File with the CA to trust (PEM).
    #[arg(long)]
    pub ca: PathBuf,
    /// How many agents.
    #[arg(long, default_value_t = 100)]
    pub count: u32,
    /// Processes to spread them over.
    #[arg(long, default_value_t = 1)]
    pub processes: u32,
    /// What they do.
    #[arg(long, value_enum, default_value = "live")]
    pub mode: Mode,
    /// Enrolments under way at a time, over all processes.
    #[arg(long, default_value_t = 64)]
    pub in_flight: u32,
    /// Mode `enroll`: a connection of its own for every agent instead of `--in-flight` lasting ones.
    #[arg(long)]
    pub fresh_connections: bool,
    /// Stop after this many seconds; 0: when told so.
    #[arg(long, default_value_t = 0.0)]
    pub seconds: f64,
    /// Modes `heartbeat` and `change`: check-ins a second over all agents, on a fixed schedule; 0: as fast as answered.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// First back-off after a failure in seconds; doubled each time.
    #[arg(long, default_value_t = 60.0)]
    pub back_off: f64,
    /// Longest back-off in seconds.
    #[arg(long, default_value_t = 600.0)]
    pub back_off_max: f64,
    /// Do not enrol: make ids and keys up, for a server that does not look at them.
    #[arg(long)]
    pub invent: bool,
    /// Resume TLS sessions when connecting again.
    #[arg(long)]
    pub resume_tls: bool,
    /// Version that they claim to be.
    #[arg(long, default_value = "9.5.2")]
    pub agent_version: String,
    /// Tags to enrol with.
    #[arg(long, alias = "tag", value_delimiter = ',', default_value = "drone")]
    pub tags: Vec<String>,
    /// Number of the first agent: names hosts `drone-N`.
    #[arg(long, default_value_t = 0)]
    pub first: u32,
    /// Tell what happens as JSON lines.
    #[arg(long)]
    pub json: bool,
    /// Set in the processes that this one starts: which share is theirs.
    #[arg(long, hide = true)]
    pub share: Option<u32>,
}

impl DronesArgs {
    /// The numbers of the agents of one share.
    #[must_use]
    pub fn numbers(&self, share: u32) -> std::ops::Range<u32> {
        let processes = u64::from(self.processes.max(1));
        let bound =
            |share: u64| self.first + u32::try_from(u64::from(self.count) * share / processes).unwrap_or(u32::MAX);
        bound(u64::from(share))..bound(u64::from(share) + 1)
    }

    /// Enrolments under way at a time in one share.
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
    fn shares_are_whole_and_do_not_overlap() {
        let args = parse("--url https://x:1 --enrollment-token t --ca c --count 10 --processes 3 --first 5");
        let shares: Vec<_> = (0..3).map(|share| args.numbers(share)).collect();
        assert_eq!(shares, [5..8, 8..11, 11..15]);
    }

    #[test]
    fn invented_agents_need_no_token() {
        assert!(parse("--url https://x:1 --ca c --invent").enrollment_token.is_none());
    }
}
