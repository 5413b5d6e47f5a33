//! The share of the agents in one process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::args::{DronesArgs, Family, Mode};
use crate::back_off::BackOff;
use crate::burst;
use crate::check_in::{self, Pace, Phase};
use crate::dial::{self, Dialer};
use crate::drone::Drone;
use crate::enroll;
use crate::event::{Event, Summary};
use crate::fleetd::{Lines, OSQUERY_VERSION};
use crate::fleetd_load::Hosts;
use crate::live::live;
use crate::session::Shared;
use crate::tally::Tally;

/// How often progress is reported.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Runs one share until its mode ends or the phase is `Stopped`. Sends events.
///
/// # Errors
/// If the server's address or CA is unusable.
pub async fn run(
    args: &DronesArgs,
    share: u32,
    events: UnboundedSender<Event>,
    phase: watch::Receiver<Phase>,
) -> anyhow::Result<()> {
    // Each agent needs a file descriptor, and default limits allow a thousand.
    dial::raise_open_files()?;
    let numbers = args.numbers(share);
    let shared = Arc::new(Shared {
        dialer: Dialer::new(&args.url, &args.ca, args.resume_tls).await?,
        tally: Tally::new(u64::from(numbers.end - numbers.start), events.clone()),
        user_agent: HeaderValue::try_from(match args.family {
            Family::Elastic => format!("Elastic Agent v{}", args.agent_version),
            Family::Fleetd => format!("osquery/{OSQUERY_VERSION}"),
        })?,
        version: args.agent_version.clone(),
    });
    let admission = Arc::new(Admission::new(args)?);
    let began = Instant::now();
    let work = work(args, shared.clone(), numbers, admission, phase.clone());
    let measured = until_stopped(work, phase, &shared).await.unwrap_or(began);
    let summary = Summary {
        seconds: measured.elapsed().as_secs_f64(),
        counts: shared.tally.counts(),
        latencies: shared.tally.latencies(),
        ..Summary::default()
    };
    let _ = events.send(Event::Summary(summary));
    Ok(())
}

/// Runs the work and reports progress. Returns the start of the measured part.
async fn until_stopped(
    work: impl Future<Output = Option<Instant>>,
    phase: watch::Receiver<Phase>,
    shared: &Shared,
) -> Option<Instant> {
    // The phase is watched in any case, because not all modes end on their own.
    let mut stopped = std::pin::pin!(stopped(phase));
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            measured = &mut work => return measured,
            () = &mut stopped => {
                // Loops that check the phase end soon, and return the time at which they started.
                return tokio::time::timeout(Duration::from_secs(2), work).await.ok().flatten();
            }
            _ = ticks.tick() => shared.tally.tell(Event::Progress(shared.tally.counts())),
        }
    }
}

async fn stopped(mut phase: watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
}

async fn work(
    args: &DronesArgs,
    shared: Arc<Shared>,
    numbers: std::ops::Range<u32>,
    admission: Arc<Admission>,
    phase: watch::Receiver<Phase>,
) -> Option<Instant> {
    if args.family == Family::Fleetd {
        let pace = args.interval / 10.0;
        let lines = Arc::new(Lines::new(&shared, args.connections.div_ceil(args.processes.max(1))));
        let hosts = Hosts { shared, lines, numbers, admission, back_off: back_off(args), pace, push: args.push };
        return fleetd(args, hosts, phase).await;
    }
    match args.mode {
        // The mode `details` is refused when the arguments are checked.
        Mode::Enroll | Mode::Details => {
            let began = Instant::now();
            enroll::enroll(shared, numbers, admission, args.fresh_connections).await;
            Some(began)
        }
        Mode::Live => {
            live_all(args, shared, numbers, admission).await;
            None
        }
        Mode::Burst => burst_all(args, shared, numbers, admission, phase).await,
        Mode::Heartbeat | Mode::Change => repeat_all(args, shared, numbers, admission, phase).await,
    }
}

async fn fleetd(args: &DronesArgs, hosts: Hosts, phase: watch::Receiver<Phase>) -> Option<Instant> {
    match args.mode {
        Mode::Enroll | Mode::Details => {
            let began = Instant::now();
            hosts.enroll(args.fresh_connections, args.mode == Mode::Details).await;
            Some(began)
        }
        Mode::Live => {
            hosts.live().await;
            None
        }
        // Other modes are refused when the arguments are checked.
        Mode::Heartbeat | Mode::Change | Mode::Burst => hosts.measured(phase).await,
    }
}

async fn live_all(args: &DronesArgs, shared: Arc<Shared>, numbers: std::ops::Range<u32>, admission: Arc<Admission>) {
    let back_off = back_off(args);
    let mut agents = JoinSet::new();
    for number in numbers {
        let drone = Drone::new(shared.clone(), number).degrading(number % 100 < args.degrade_percent);
        agents.spawn(live(shared.clone(), drone, admission.clone(), back_off.clone()));
    }
    // There is no measured part in this mode, so that the share is ready immediately.
    shared.tally.tell(Event::Ready);
    while agents.join_next().await.is_some() {}
}

/// Enrolls all agents, waits for the start of the measured part, and returns its time.
async fn repeat_all(
    args: &DronesArgs,
    shared: Arc<Shared>,
    numbers: std::ops::Range<u32>,
    admission: Arc<Admission>,
    mut phase: watch::Receiver<Phase>,
) -> Option<Instant> {
    let drones = settled(args, &shared, numbers, admission).await;
    // The rate is for all agents together.
    let interval = (args.rate > 0.0).then(|| Duration::from_secs_f64(f64::from(args.count) / args.rate));
    let pace = Pace { change: args.mode == Mode::Change, interval };
    let mut agents = JoinSet::new();
    for drone in drones {
        agents.spawn(check_in::repeat(shared.clone(), drone, pace, phase.clone()));
    }
    // The first check-ins must not count.
    shared.tally.begin_check_ins();
    shared.tally.tell(Event::Ready);
    phase.wait_for(|phase| *phase != Phase::Waiting).await.ok()?;
    let began = Instant::now();
    while agents.join_next().await.is_some() {}
    Some(began)
}

/// Like [`repeat_all`], but each agent checks in once with a large body, all at the same time.
async fn burst_all(
    args: &DronesArgs,
    shared: Arc<Shared>,
    numbers: std::ops::Range<u32>,
    admission: Arc<Admission>,
    mut phase: watch::Receiver<Phase>,
) -> Option<Instant> {
    let drones = settled(args, &shared, numbers, admission).await;
    shared.tally.begin_check_ins();
    shared.tally.tell(Event::Ready);
    phase.wait_for(|phase| *phase != Phase::Waiting).await.ok()?;
    let began = Instant::now();
    // The tasks are spawned only now, so that all bodies are sent at the same time.
    let mut agents = JoinSet::new();
    for drone in drones {
        agents.spawn(burst::send(shared.clone(), drone, args.body_bytes, back_off(args)));
    }
    while agents.join_next().await.is_some() {}
    Some(began)
}

async fn settled(
    args: &DronesArgs,
    shared: &Arc<Shared>,
    numbers: std::ops::Range<u32>,
    admission: Arc<Admission>,
) -> Vec<Drone> {
    let mut coming = JoinSet::new();
    for number in numbers {
        let (shared, admission, mut back_off) = (shared.clone(), admission.clone(), back_off(args));
        let invented = args.invent;
        coming.spawn(async move {
            let mut drone = Drone::new(shared.clone(), number);
            admission.admit(&mut drone, &mut back_off).await;
            while let Err(fault) = check_in::settle(&mut drone, invented).await {
                shared.tally.failed(&format!("settle: {fault}"));
                tokio::time::sleep(back_off.next_pause()).await;
            }
            drone
        });
    }
    coming.join_all().await
}

fn back_off(args: &DronesArgs) -> BackOff {
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(60));
    BackOff::new(seconds(args.back_off), seconds(args.back_off_max))
}

/// Creates the channel from a share to the process that collects its events.
#[must_use]
pub fn events() -> (UnboundedSender<Event>, UnboundedReceiver<Event>) {
    unbounded_channel()
}
