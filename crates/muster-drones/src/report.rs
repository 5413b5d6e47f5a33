//! Collects the events of all shares, and prints them as JSON lines, or as one line per second and a table.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::args::{DronesArgs, Mode};
use crate::event::{Counts, Event, Summary, now_us};

/// The state of the whole run.
pub struct Report {
    json: bool,
    mode: Mode,
    shares: usize,
    ready: usize,
    ended: usize,
    latest: Vec<Counts>,
    round: usize,
    revisions: HashMap<String, (usize, Vec<u64>, Vec<u64>)>,
    summary: Summary,
    shown: Instant,
}

impl Report {
    /// Creates a report without events.
    #[must_use]
    pub fn new(args: &DronesArgs) -> Self {
        Self {
            json: args.json,
            mode: args.mode,
            shares: args.processes.max(1) as usize,
            ready: 0,
            ended: 0,
            latest: Vec::new(),
            round: 0,
            revisions: HashMap::new(),
            summary: Summary::default(),
            shown: Instant::now(),
        }
    }

    /// Handles one event. Returns true if the last share has become ready.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn take(&mut self, event: Event) -> anyhow::Result<bool> {
        match event {
            Event::Ready => {
                self.ready += 1;
                // The measured part starts at the same time in all shares.
                if self.ready == self.shares {
                    self.write(&Event::Began { at_us: now_us() })?;
                    return Ok(true);
                }
            }
            Event::Progress(counts) => self.progress(counts)?,
            Event::Revision { action_id, received_us, acked_us } => self.revision(action_id, received_us, acked_us)?,
            Event::Summary(summary) => {
                self.ended += 1;
                self.summary.add(&summary);
            }
            // Only programs use single actions and rejections.
            event @ (Event::Action { .. }
            | Event::Rejected { .. }
            | Event::DeviceToken { .. }
            | Event::Began { .. }) => self.write(&event)?,
        }
        Ok(false)
    }

    /// Returns whether every share has ended.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.ended == self.shares
    }

    /// Writes the summary.
    ///
    /// # Errors
    /// If standard output is closed, or a share ended without a summary.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let latencies = self.summary.latencies.iter();
        self.summary.p99_us =
            latencies.map(|(operation, histogram)| (operation.clone(), histogram.quantile(0.99))).collect();
        self.write(&Event::Summary(self.summary.clone()))?;
        if !self.json {
            show(self.mode, &self.summary);
        }
        anyhow::ensure!(
            self.is_complete(),
            "{} of {} shares did not send a summary",
            self.shares - self.ended,
            self.shares
        );
        Ok(())
    }

    /// Adds up progress, and prints it when each share has sent its own.
    fn progress(&mut self, counts: Counts) -> anyhow::Result<()> {
        // Shares report at the same rate, so that a round is complete when each has reported once.
        self.latest.push(counts);
        self.round += 1;
        if self.round < self.shares {
            return Ok(());
        }
        self.round = 0;
        let mut all = Counts::default();
        self.latest.drain(..).for_each(|counts| all.add(&counts));
        // Programs get every report, and people one per second.
        if !self.json && self.shown.elapsed() >= Duration::from_secs(1) {
            self.shown = Instant::now();
            println!("{}", line(&all));
        }
        self.write(&Event::Progress(all))
    }

    fn revision(&mut self, action_id: String, received_us: Vec<u64>, acked_us: Vec<u64>) -> anyhow::Result<()> {
        let (shares, received, acked) = self.revisions.entry(action_id.clone()).or_default();
        *shares += 1;
        received.extend(received_us);
        acked.extend(acked_us);
        if *shares == self.shares {
            let (_, received_us, acked_us) = self.revisions.remove(&action_id).unwrap_or_default();
            self.write(&Event::Revision { action_id, received_us, acked_us })?;
        }
        Ok(())
    }

    fn write(&self, event: &Event) -> anyhow::Result<()> {
        if self.json {
            let mut out = std::io::stdout().lock();
            serde_json::to_writer(&mut out, event)?;
            out.write_all(b"\n")?;
            // The reader reacts to events immediately.
            out.flush()?;
        }
        Ok(())
    }
}

fn line(counts: &Counts) -> String {
    let Counts { enrolled, waiting, check_ins, acks, gone, errors, .. } = counts;
    let failed: u64 = errors.values().sum();
    format!(
        "enrolled {enrolled}, waiting {waiting}, check-ins {check_ins}, acks {acks}, gone {gone}, failures {failed}"
    )
}

fn show(mode: Mode, summary: &Summary) {
    println!("{}", line(&summary.counts));
    for (kind, count) in &summary.counts.errors {
        println!("  {count} × {kind}");
    }
    // Avoids a division by zero in a run that ends immediately.
    let seconds = summary.seconds.max(f64::EPSILON);
    match mode {
        Mode::Live => {}
        Mode::Enroll | Mode::Details => println!("{:.0} enrollments/s", summary.counts.enrolled as f64 / seconds),
        Mode::Burst => println!("{seconds:.1} s"),
        Mode::Heartbeat | Mode::Change => println!("{:.0} check-ins/s", summary.counts.check_ins as f64 / seconds),
    }
    println!("{:>10} {:>9} {:>9} {:>9} {:>9} {:>9}  (ms)", "", "count", "p50", "p90", "p99", "max");
    for (operation, histogram) in &summary.latencies {
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|q| histogram.quantile(q) as f64 / 1000.0);
        println!("{operation:>10} {:>9} {p50:>9.2} {p90:>9.2} {p99:>9.2} {max:>9.2}", histogram.count());
    }
}
