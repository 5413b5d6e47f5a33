//! CPU time of a check-in without the network: the adapter over a real fleet and a durable store, with the load of
//! `muster drones`.
//!
//! `cargo bench -p muster-elastic --bench check_in -- [change|heartbeat] [agents] [agents at a time] [seconds] [rate]`; the store
//! is in the directory `BENCH_DIR`, by default the current one.

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use muster_core::credential::ApiKey;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::PolicyId;
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::testing;
use muster_core::time::Timestamp;
use muster_drones::{gzip, wire};
use muster_elastic::{AgentApi, AgentApiOptions};
use muster_fleet::health::ServerState;
use muster_fleet::system::{SystemClock, SystemEntropy};
use muster_fleet::{Fleet, FleetParts, FleetSettings};
use muster_listen::reply::{Answer, ListenerKind, Peer};
use muster_protocol::elastic::enroll::EnrollResponse;
use muster_store::Options;
use muster_store::{EnrollmentKeyWrite, PolicyWrite, SqlStore, Store, Write};
use nix::sys::resource::{UsageWho, getrusage};

type Outcomes<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const VERSION: &str = "9.5.2";
const POLICY: &str = "bench";

fn main() -> Outcomes {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(()); // `cargo test` is not for measuring.
    }
    let plan = Plan::of(&arguments)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(plan))
}

/// The load.
struct Plan {
    change: bool,
    agents: u32,
    tasks: usize,
    seconds: u64,
    /// Check-ins per second in total; 0 means without a limit.
    rate: f64,
}

impl Plan {
    fn of(arguments: &[String]) -> Outcomes<Self> {
        let number = |place: usize, default: &str| arguments.get(place).map_or(default, |text| text).parse::<u32>();
        Ok(Self {
            change: arguments.first().is_none_or(|mode| mode == "change"),
            agents: number(1, "256")?,
            tasks: number(2, "64")? as usize,
            seconds: u64::from(number(3, "6")?),
            rate: f64::from(number(4, "0")?),
        })
    }
}

async fn run(plan: Plan) -> Outcomes {
    let directory = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| ".".into()))?;
    let store = Arc::new(SqlStore::open(&directory.path().join("muster.db"), &Options::default())?);
    let server = Server::new(store).await?;
    let mut enrolling = tokio::task::JoinSet::new();
    for number in 0..plan.agents {
        let server = server.clone();
        enrolling.spawn(async move { server.agent(number).await });
    }
    let mut agents = enrolling.join_all().await.into_iter().collect::<Outcomes<Vec<_>>>()?;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let pause = (plan.rate > 0.0).then(|| Duration::from_secs_f64(plan.tasks as f64 / plan.rate));
    let share = agents.len().div_ceil(plan.tasks);
    let mut tasks = Vec::new();
    while !agents.is_empty() {
        let mine = agents.split_off(agents.len().saturating_sub(share));
        let (api, stop, count) = (server.api.clone(), stop.clone(), count.clone());
        tasks.push(tokio::spawn(drive(api, mine, plan.change, pause, stop, count)));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, began, from) = (Use::now()?, Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
    let (after, took) = (Use::now()?, began.elapsed());
    let done = count.load(Ordering::Relaxed) - from;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    after.since(&before).print(&plan, done as f64, took);
    Ok(())
}

/// Sends check-ins of one agent after another.
async fn drive(
    api: AgentApi,
    mut agents: Vec<Agent>,
    change: bool,
    pause: Option<Duration>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Outcomes {
    let mut due = tokio::time::Instant::now() + pause.unwrap_or_default().mul_f64(rand::random::<f64>());
    while !stop.load(Ordering::Relaxed) {
        for agent in &mut agents {
            if let Some(pause) = pause {
                tokio::time::sleep_until(due).await;
                due += pause;
            }
            agent.turn += usize::from(change);
            let status = agent.check_in(&api).await?;
            if status != 200 {
                return Err(format!("a check-in was answered {status}").into());
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// The adapter and its fleet.
#[derive(Clone)]
struct Server {
    api: AgentApi,
    key: String,
}

impl Server {
    async fn new(store: Arc<SqlStore>) -> Outcomes<Self> {
        let entropy = Arc::new(SystemEntropy::default());
        let fleet = Fleet::new(FleetParts {
            store: store.clone(),
            clock: Arc::new(SystemClock),
            sealer: Arc::new(Sealer::new(&*Sealer::generate_key(&*entropy))?),
            signer: Arc::new(Signer::generate()?.0),
            entropy: entropy.clone(),
            issuer: Arc::new(muster_fleet::output_keys::issuer::NoIssuer),
            openid: Arc::new(muster_fleet::identity::openid::NoProviders),
            alert_sender: Arc::new(muster_fleet::alerts::sender::NoSender),
            prober: Arc::new(muster_fleet::connection_tests::NoProber),
            settings: FleetSettings { long_poll: Duration::ZERO, poll_jitter: Duration::ZERO, ..Default::default() },
        });
        tokio::spawn(Arc::clone(&fleet).run_background());
        let key = ApiKey::generate(&*entropy);
        store.commit(foundation(&key, fleet.now())).await?;
        let options = AgentApiOptions::default();
        options.health.set(ServerState::Healthy);
        Ok(Self { api: AgentApi::new(fleet, options), key: key.token() })
    }

    /// Enrolls an agent that runs its policy.
    async fn agent(&self, number: u32) -> Outcomes<Agent> {
        let host = wire::Host { number, agent_id: "", version: VERSION };
        let headers = headers(&self.key, false)?;
        let body = Bytes::from(host.enroll(&[]).map_err(|error| error.to_string())?);
        let (status, reply) = ask(&self.api, &Uri::from_static("/api/fleet/agents/enroll?"), &headers, body).await?;
        if status != 200 {
            return Err(format!("an enrollment was answered {status}: {}", String::from_utf8_lossy(&reply)).into());
        }
        let item = serde_json::from_slice::<EnrollResponse>(&reply)?.item;
        let host = wire::Host { agent_id: &item.id, ..host };
        let body = |pid| {
            let report = wire::Report { policy: Some((POLICY, 1)), pid, ..Default::default() };
            gzip::pack(wire::check_in(&host, &report).as_bytes()).map(Bytes::from).map_err(|error| error.to_string())
        };
        Ok(Agent {
            uri: format!("/api/fleet/agents/{}/checkin?", item.id).parse()?,
            headers: self::headers(&item.access_api_key, true)?,
            bodies: [body(1000)?, body(1001)?],
            turn: 0,
        })
    }
}

struct Agent {
    uri: Uri,
    headers: HeaderMap,
    bodies: [Bytes; 2],
    turn: usize,
}

impl Agent {
    async fn check_in(&self, api: &AgentApi) -> Outcomes<u16> {
        let body = self.bodies[self.turn % 2].clone();
        Ok(ask(api, &self.uri, &self.headers, body).await?.0)
    }
}

fn headers(key: &str, packed: bool) -> Outcomes<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("Elastic Agent v9.5.2"));
    headers.insert("authorization", format!("ApiKey {key}").parse()?);
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("accept-encoding", HeaderValue::from_static("gzip"));
    headers.insert("elastic-api-version", HeaderValue::from_static("2023-06-01"));
    if packed {
        headers.insert("content-encoding", HeaderValue::from_static("gzip"));
    }
    Ok(headers)
}

async fn ask(api: &AgentApi, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Outcomes<(u16, Bytes)> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers.clone();
    let address = Some(([127, 0, 0, 1], 50_000).into());
    let peer = Peer { address, tls: true, ..Peer::new(ListenerKind::Agent) };
    let reply = match api.handle(request, peer).await.answer {
        Answer::Reply(reply) => reply,
        Answer::Park(parked) => parked.await,
        Answer::Upgrade(_) => panic!("upgraded"),
    };
    Ok((reply.status().as_u16(), reply.into_body().collect().await?.to_bytes()))
}

/// A policy at revision 1 and a key for it.
fn foundation(key: &ApiKey, now: Timestamp) -> Vec<Write> {
    let enrollment_key =
        EnrollmentKey { policy_id: Some(PolicyId::trusted(POLICY)), ..testing::key_of("bench-key", key, now) };
    vec![
        Write::Policy(PolicyWrite::Insert(Box::new(testing::policy(POLICY, now)))),
        Write::Policy(PolicyWrite::InsertRevision(Box::new(testing::revision(POLICY, 1, now)))),
        Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(enrollment_key))),
    ]
}

/// Resource usage of the process so far; times in microseconds.
#[derive(Default)]
struct Use {
    user: f64,
    system: f64,
    writer: f64,
    written: f64,
    write_calls: f64,
    switches: f64,
}

impl Use {
    fn now() -> Outcomes<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
        let mut writer = 0.0;
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.trim() == "store-writer" {
                let times = fs::read_to_string(task.join("schedstat"))?;
                writer += times.split(' ').next().unwrap_or("0").parse::<f64>()? / 1e3;
            }
        }
        let io = fs::read_to_string("/proc/self/io")?;
        let field = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or("0").parse::<f64>()
        };
        Ok(Self {
            user: micros(usage.user_time()),
            system: micros(usage.system_time()),
            writer,
            written: field("wchar")?,
            write_calls: field("syscw")?,
            switches: (usage.voluntary_context_switches() + usage.involuntary_context_switches()) as f64,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
            writer: self.writer - before.writer,
            written: self.written - before.written,
            write_calls: self.write_calls - before.write_calls,
            switches: self.switches - before.switches,
        }
    }

    fn print(&self, plan: &Plan, done: f64, took: Duration) {
        println!(
            "{}: {} agents, {} tasks: {:.0} check-ins/s; each: {:.1} us CPU (user {:.1}, system {:.1}; writer {:.1}), \
             {:.0} bytes in {:.2} calls, {:.2} task switches",
            if plan.change { "change" } else { "heartbeat" },
            plan.agents,
            plan.tasks,
            done / took.as_secs_f64(),
            (self.user + self.system) / done,
            self.user / done,
            self.system / done,
            self.writer / done,
            self.written / done,
            self.write_calls / done,
            self.switches / done,
        );
    }
}
