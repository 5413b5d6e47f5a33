//! Runs `muster drones`, reads its events as JSON lines, and stops it by closing its input.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::Deserialize;

use super::Bench;
use crate::process::cpu_with_children;

/// The parts of an event that the benchmark needs; see `muster_drones::event`.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The measured part has started.
    Began {},
    /// Progress.
    Progress(Counts),
    /// An agent received an action.
    Action {
        /// Time in microseconds since 1970.
        at_us: u64,
        /// Its id.
        action_id: String,
    },
    /// The server rejected the credentials of an agent for the first time.
    Rejected {
        /// Time in microseconds since 1970.
        at_us: u64,
        /// Its id.
        agent_id: String,
    },
    /// All agents have acknowledged a policy.
    Revision {
        /// `policy:<id>:<revision>`.
        action_id: String,
        /// Times at which the agents had read it.
        received_us: Vec<u64>,
        /// Times at which the acks were confirmed.
        acked_us: Vec<u64>,
    },
    /// The end.
    Summary(Summary),
    /// Any other event, of which drones of the family `fleetd` have more.
    #[serde(other)]
    Other,
}

/// Counters.
#[derive(Debug, Default, Deserialize)]
pub struct Counts {
    /// Enrolled agents.
    pub enrolled: u64,
    /// Check-ins without a response yet.
    pub waiting: u64,
    /// Check-ins with a response.
    pub check_ins: u64,
    /// Failures.
    pub errors: BTreeMap<String, u64>,
}

/// Results.
#[derive(Debug, Deserialize)]
pub struct Summary {
    /// Duration of the measured part.
    pub seconds: f64,
    /// Counters.
    pub counts: Counts,
    /// 99th percentile of the latency of each operation, in microseconds.
    #[serde(default)]
    pub p99_us: BTreeMap<String, u64>,
}

/// Running drones.
pub struct Drones {
    child: Child,
    events: Receiver<anyhow::Result<Event>>,
}

/// The server that drones connect to.
pub struct Target<'a> {
    /// `https://…`
    pub url: &'a str,
    /// Certificate authority to trust.
    pub ca: &'a Path,
    /// Enrollment token; `None` if the server does not check credentials.
    pub token: Option<&'a str>,
}

impl Drones {
    /// Starts them.
    pub fn start(bench: &Bench, target: &Target<'_>, count: u32, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(&bench.muster);
        command
            .args(["drones", "--json", "--url", target.url, "--count", &count.to_string()])
            .arg("--ca")
            .arg(target.ca);
        match target.token {
            Some(token) => command.args(["--enrollment-token", token]),
            // The bare Go server accepts any credentials.
            None => command.arg("--invent"),
        };
        command.args(["--processes", &bench.sizes.processes.to_string()]).args(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the drones")?;
        let output = std::io::BufReader::new(child.stdout.take().context("no standard output")?);
        let (sender, events) = channel();
        // A thread reads the events, so that waiting for one can have a timeout.
        std::thread::spawn(move || {
            for line in output.lines() {
                let event = line.map_err(Into::into).and_then(|line| Ok(serde_json::from_str(&line)?));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, events })
    }

    /// Waits for an event for which `pick` returns something.
    pub fn wait_for<T>(&self, within: Duration, mut pick: impl FnMut(Event) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + within;
        loop {
            // The deadline applies to the event that is awaited, and not to each event before it.
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    if let Some(found) = pick(event?) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    anyhow::bail!("timeout after {} s", within.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the drones ended"),
            }
        }
    }

    /// Waits until `count` check-ins have been held for `still`. Returns the start of the last one.
    pub fn wait_parked(&self, count: u32, still: Duration, within: Duration) -> anyhow::Result<Instant> {
        let mut since = None;
        let mut latest = Counts::default();
        let parked = self.wait_for(within, |event| {
            let Event::Progress(counts) = event else { return None };
            // The time restarts whenever a check-in ends in between.
            since = if counts.waiting == u64::from(count) { since.or(Some(Instant::now())) } else { None };
            latest = counts;
            since.filter(|since| since.elapsed() >= still)
        });
        parked.with_context(|| format!("parked {} of {count}; {:?}", latest.waiting, latest.errors))
    }

    /// Returns the CPU time of all processes so far, in seconds.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        cpu_with_children(self.child.id())
    }

    /// Waits for the results.
    pub fn summary(self, within: Duration) -> anyhow::Result<Summary> {
        self.wait_for(within, |event| if let Event::Summary(summary) = event { Some(summary) } else { None })
    }
}

impl Drop for Drones {
    fn drop(&mut self) {
        // The process stops when its input is closed, and first stops its own children.
        drop(self.child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(15);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the time in microseconds since 1970, to compare it with the times in events.
#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time, and drones report theirs since 1970")]
pub fn now_us() -> u64 {
    // Drones are other processes, so that only the wall clock can be compared.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
