//! Modes of simulated hosts with orbit and osqueryd: enroll, and requests at the intervals of the real programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::back_off::BackOff;
use crate::check_in::Phase;
use crate::event::Event;
use crate::fault::Fault;
use crate::fleetd::{FleetdHost, Lines, Program};
use crate::fleetd_push::Hinted;
use crate::session::Shared;

/// A request that a host repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Read,
    Log,
    Config,
    OrbitConfig,
    DeviceToken,
}

impl Request {
    fn program(self) -> Program {
        match self {
            Self::Read | Self::Log | Self::Config => Program::Osquery,
            Self::OrbitConfig | Self::DeviceToken => Program::Orbit,
        }
    }
}

/// The requests with their intervals: those that a package of fleetd has by default.
const INTERVALS: [(Request, Duration); 5] = [
    (Request::Read, Duration::from_secs(10)),
    (Request::Log, Duration::from_secs(10)),
    (Request::Config, Duration::from_secs(60)),
    (Request::OrbitConfig, Duration::from_secs(30)),
    (Request::DeviceToken, Duration::from_secs(3600)),
];

/// The hosts of a share.
pub struct Hosts {
    /// What all of them use.
    pub shared: Arc<Shared>,
    /// Their connections.
    pub lines: Arc<Lines>,
    /// Their numbers.
    pub numbers: std::ops::Range<u32>,
    /// How they enroll.
    pub admission: Arc<Admission>,
    /// Pauses after failures.
    pub back_off: BackOff,
    /// Factor of all intervals.
    pub pace: f64,
    /// Whether hosts read queries only on hints.
    pub push: bool,
}

impl Hosts {
    /// Enrolls all hosts as fast as the server accepts them, over persistent connections or over new ones for each host. With
    /// details, each host then reports what the server asks.
    pub async fn enroll(self, fresh: bool, with_details: bool) {
        let next = Arc::new(AtomicU32::new(self.numbers.start));
        let mut workers = JoinSet::new();
        for _ in 0..self.admission.in_flight() {
            let (shared, next, admission) = (self.shared.clone(), next.clone(), self.admission.clone());
            let (end, lines) = (self.numbers.end, self.lines.clone());
            workers.spawn(async move {
                // A placeholder for its connections: another number follows before anything is sent.
                let mut host = FleetdHost::new(&lines, end);
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= end {
                        return;
                    }
                    host = if fresh { FleetdHost::new(&lines, number) } else { host.followed_by(number) };
                    if let Err(fault) = host.enroll(admission.secret()).await {
                        shared.tally.failed(&format!("enroll: {fault}"));
                    } else if with_details && let Err(fault) = host.read(Instant::now()).await {
                        shared.tally.failed(&format!("details: {fault}"));
                    }
                }
            });
        }
        while workers.join_next().await.is_some() {}
    }

    /// Enrolls the hosts, each of which then behaves like a real one.
    pub async fn live(self) {
        let mut hosts = JoinSet::new();
        for number in self.numbers.clone() {
            let (shared, admission, mut back_off) =
                (self.shared.clone(), self.admission.clone(), self.back_off.clone());
            let (pace, host) = (self.pace, FleetdHost::new(&self.lines, number).with_push(self.push));
            hosts.spawn(async move {
                let host = admit(&shared, &admission, &mut back_off, host).await;
                repeat(&shared, host, &admission, &mut back_off, pace, false).await;
            });
        }
        // At once, because this mode has no measured part.
        self.shared.tally.tell(Event::Ready);
        while hosts.join_next().await.is_some() {}
    }

    /// Enrolls all hosts and lets them report their details, waits for the start of the measured part, and returns its time.
    pub async fn measured(self, mut phase: watch::Receiver<Phase>) -> Option<Instant> {
        let mut coming = JoinSet::new();
        for number in self.numbers.clone() {
            let (shared, admission, mut back_off) =
                (self.shared.clone(), self.admission.clone(), self.back_off.clone());
            let host = FleetdHost::new(&self.lines, number).with_push(self.push);
            coming.spawn(async move {
                let mut host = admit(&shared, &admission, &mut back_off, host).await;
                // What each host does once after its start: its writes are not part of the load.
                for request in [Request::Read, Request::OrbitConfig, Request::DeviceToken] {
                    if let Err(fault) = send(&mut host, request, Instant::now()).await {
                        shared.tally.failed(&format!("settle: {fault}"));
                    }
                }
                connect_push(&shared, &mut host).await;
                host
            });
        }
        let settled = coming.join_all().await;
        let mut hosts = JoinSet::new();
        for host in settled {
            let (shared, admission, mut back_off) =
                (self.shared.clone(), self.admission.clone(), self.back_off.clone());
            let pace = self.pace;
            let mut over = phase.clone();
            let mut started = phase.clone();
            hosts.spawn(async move {
                if started.wait_for(|phase| *phase != Phase::Waiting).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = repeat(&shared, host, &admission, &mut back_off, pace, true) => {}
                    _ = over.wait_for(|phase| *phase == Phase::Stopped) => {}
                }
            });
        }
        // Only the measured part counts.
        self.shared.tally.begin_check_ins();
        self.shared.tally.tell(Event::Ready);
        phase.wait_for(|phase| *phase != Phase::Waiting).await.ok()?;
        let began = Instant::now();
        while hosts.join_next().await.is_some() {}
        Some(began)
    }
}

/// Enrolls a host, and retries until it succeeds.
async fn admit(shared: &Shared, admission: &Admission, back_off: &mut BackOff, mut host: FleetdHost) -> FleetdHost {
    loop {
        let permit = admission.permit().await;
        let outcome = host.enroll(admission.secret()).await;
        // Released before the pause, so that others can enroll in the meantime.
        drop(permit);
        let Err(fault) = outcome else {
            back_off.reset();
            return host;
        };
        shared.tally.failed(&format!("enroll: {fault}"));
        tokio::time::sleep(back_off.next_pause()).await;
    }
}

/// Sends requests at their intervals. Hosts start at random points of their schedules.
async fn repeat(
    shared: &Shared,
    mut host: FleetdHost,
    admission: &Admission,
    back_off: &mut BackOff,
    pace: f64,
    has_token: bool,
) -> ! {
    let began = Instant::now();
    let mut due = INTERVALS.map(|(request, interval)| {
        // The first token is announced at once: Fleet Desktop needs it.
        let share = if request == Request::DeviceToken && !has_token { 0.01 } else { 1.0 };
        began + interval.mul_f64(rand::random::<f64>() * share * pace)
    });
    let mut rejected: Vec<Program> = Vec::new();
    loop {
        connect_push(shared, &mut host).await;
        let is_read = |at: &usize| INTERVALS[*at].0 == Request::Read;
        // With push, queries are read only on a hint.
        let timed = (0..due.len()).filter(|at| !(host.has_push() && is_read(at)));
        let mut next = timed.min_by_key(|at| due[*at]).unwrap_or_default();
        let hinted = tokio::select! {
            () = tokio::time::sleep_until(due[next].into()) => None,
            hinted = host.hinted() => Some(hinted),
        };
        let hinted = match hinted {
            None => None,
            Some(Hinted::Read) => Some(Request::Read),
            Some(Hinted::Config) => Some(Request::OrbitConfig),
            Some(Hinted::Lost) => continue,
        };
        if let Some(request) = hinted {
            next = INTERVALS.iter().position(|(known, _)| *known == request).unwrap_or_default();
            due[next] = Instant::now();
        }
        let (request, interval) = INTERVALS[next];
        let program = request.program();
        // Like the real programs, each enrolls again if its key is rejected.
        if rejected.contains(&program) {
            if let Err(fault) = host.enroll_program(program, admission.secret()).await {
                shared.tally.failed(&format!("enroll: {fault}"));
                due[next] = Instant::now() + back_off.next_pause();
                continue;
            }
            back_off.reset();
            rejected.retain(|other| *other != program);
        }
        if let Err(fault) = send(&mut host, request, due[next]).await {
            shared.tally.failed(&format!("{request:?}: {fault}"));
            if fault.is_unauthorized() {
                shared.tally.rejected(&format!("{}:{}", program.as_str(), host.uuid()));
                rejected.push(program);
            }
        }
        // From the schedule, because a late request must not delay the following ones; but none is sent twice for it.
        due[next] = (due[next] + interval.mul_f64(pace)).max(Instant::now());
    }
}

/// Opens the WebSocket of a host with push. If that fails, it is tried again after a pause.
async fn connect_push(shared: &Shared, host: &mut FleetdHost) {
    if let Err(fault) = host.connect_push().await {
        shared.tally.failed(&format!("push: {fault}"));
    }
}

async fn send(host: &mut FleetdHost, request: Request, due: Instant) -> Result<(), Fault> {
    match request {
        Request::Read => host.read(due).await,
        Request::Log => host.log(due).await,
        Request::Config => host.config(due).await,
        Request::OrbitConfig => host.orbit_config(due).await,
        Request::DeviceToken => host.device_token(due).await,
    }
}
