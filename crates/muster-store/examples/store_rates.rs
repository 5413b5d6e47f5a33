//! Prints how many agent updates and point reads a second the embedded store does.
//!
//! `cargo run --release --example store_rates -- [AGENTS] [DIRECTORY]`. The directory should be on the disk that a
//! server would use: updates are durable, so its speed shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::credential::{CredentialKind, LiveCredential, LiveCredentials, SecretHash};
use muster_core::id::{EnrollmentKeyId, KeyId, PolicyId};
use muster_core::status::Status;
use muster_core::testing;
use muster_core::time::Timestamp;
use muster_store::query::{AgentFilter, AgentSort, Page};
use muster_store::{AgentStore as _, AgentWrite, Store, StoreError, Write};
use muster_store::{Options, SqlStore};
use tokio::task::JoinSet;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Callers at the same time, as so many connections would be.
const CALLERS: usize = 2_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let agents: usize = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = parent.join(format!("store-rates-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let outcome = measure(agents, &directory.join("muster.db")).await;
    std::fs::remove_dir_all(&directory)?;
    outcome
}

async fn measure(agents: usize, path: &std::path::Path) -> Outcome<()> {
    let store = Arc::new(SqlStore::open(path, &Options::default())?);
    println!("{:<34} {:>10}", "resident when opened", resident());
    let records: Vec<Arc<AgentRecord>> = (0..agents).map(|n| Arc::new(record(n))).collect();
    println!("{agents} agents, {CALLERS} callers at a time, every commit on disk before its answer");

    let inserts: Vec<_> = records.iter().map(insert).collect();
    report("enrollments", commit_all(&store, inserts).await?, agents);
    let plain = |after: &mut AgentRecord| after.policy_revision += 1;
    let (updates, records) = next_updates(&records, plain);
    report("updates, no index concerned", commit_all(&store, updates).await?, agents);
    let status = |after: &mut AgentRecord| after.status = Status::Degraded;
    let (updates, records) = next_updates(&records, status);
    report("updates of the status", commit_all(&store, updates).await?, agents);
    let policy = |after: &mut AgentRecord| after.policy_id = Some(PolicyId::trusted("policy-2"));
    let (updates, records) = next_updates(&records, policy);
    report("updates of the policy", commit_all(&store, updates).await?, agents);

    let (updates, _) = next_updates(&records, plain);
    let started = Stopwatch::start();
    store.commit(updates.into_iter().flatten().collect()).await?;
    report("updates in one transaction", started.stop(), agents);

    report("point reads, side by side", read_all(&store, &records).await?, agents);
    let started = Stopwatch::start();
    for record in records.iter().take(5_000) {
        store.agent(&record.id).await?;
    }
    report("point reads, one after another", started.stop(), records.len().min(5_000));
    lists(&store).await?;
    println!("{:<34} {:>10}", "resident", resident());
    drop(store);
    let started = Instant::now();
    let store = SqlStore::open(path, &Options::default())?;
    println!("{:<34} {:>10.1} ms", "opened again in", started.elapsed().as_secs_f64() * 1e3);
    drop(store);
    Ok(())
}

async fn lists(store: &SqlStore) -> Result<(), StoreError> {
    let filter = AgentFilter::default();
    let page = Page { offset: 0, limit: 20 };
    for sort in [AgentSort::EnrolledAt, AgentSort::Hostname] {
        let started = Instant::now();
        store.agent_list(&filter, sort, true, page).await?;
        println!("{:<34} {:>10.1} ms", format!("a page by {sort:?}"), started.elapsed().as_secs_f64() * 1e3);
    }
    let started = Instant::now();
    store.agent_counts(&filter).await?;
    println!("{:<34} {:>10.1} ms", "counts by status", started.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn report(what: &str, took: Took, number: usize) {
    let each = |time: f64| time / number as f64;
    let (wall, cpu) = (each(took.wall), each(took.cpu) * 1e6);
    println!("{what:<34} {:>10.0} /s {:>9.2} µs each {cpu:>8.2} µs of CPU", 1.0 / wall, wall * 1e6);
}

/// What something took, in seconds: by the clock, and of the process's processor time, callers included. The latter
/// says more on a busy machine.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

struct Stopwatch(Instant, f64);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now(), cpu_seconds())
    }

    fn stop(&self) -> Took {
        Took { wall: self.0.elapsed().as_secs_f64(), cpu: cpu_seconds() - self.1 }
    }
}

/// Processor time of all threads so far; 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let of = |path: PathBuf| std::fs::read_to_string(path.join("schedstat")).ok();
    let nanos = |text: String| text.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    tasks.flatten().filter_map(|task| of(task.path()).and_then(nanos)).sum::<f64>() / 1e9
}

fn insert(record: &Arc<AgentRecord>) -> Vec<Write> {
    let documents = AgentDocuments { local_metadata: Some(METADATA.into()), components: Some("[]".into()) };
    vec![Write::Agent(AgentWrite::Insert { record: Box::new((**record).clone()), documents })]
}

type Updates = (Vec<Vec<Write>>, Vec<Arc<AgentRecord>>);

fn next_updates(records: &[Arc<AgentRecord>], change: impl Fn(&mut AgentRecord)) -> Updates {
    let step = |before: &Arc<AgentRecord>| {
        let mut after = (**before).clone();
        after.version += 1;
        change(&mut after);
        let after = Arc::new(after);
        (vec![Write::Agent(AgentWrite::Update { before: before.clone(), after: after.clone() })], after)
    };
    records.iter().map(step).unzip()
}

/// Commits jobs, `CALLERS` at a time; the time that it took.
async fn commit_all(store: &Arc<SqlStore>, jobs: Vec<Vec<Write>>) -> Outcome<Took> {
    let mut callers: Vec<Vec<Vec<Write>>> = (0..CALLERS).map(|_| Vec::new()).collect();
    for (n, job) in jobs.into_iter().enumerate() {
        callers[n % CALLERS].push(job);
    }
    let started = Stopwatch::start();
    let mut tasks = JoinSet::new();
    for jobs in callers {
        let store = store.clone();
        tasks.spawn(async move {
            for job in jobs {
                store.commit(job).await?;
            }
            Ok::<(), StoreError>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(started.stop())
}

async fn read_all(store: &Arc<SqlStore>, records: &[Arc<AgentRecord>]) -> Outcome<Took> {
    let started = Stopwatch::start();
    let mut tasks = JoinSet::new();
    for records in records.chunks(records.len().div_ceil(CALLERS)) {
        let (store, ids) = (store.clone(), records.iter().map(|record| record.id.clone()).collect::<Vec<_>>());
        tasks.spawn(async move {
            for id in ids {
                store.agent(&id).await?;
            }
            Ok::<(), StoreError>(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(started.stop())
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown here".into(), |size| size.trim().to_owned())
}

const METADATA: &str = r#"{"elastic":{"agent":{"id":"x","version":"9.5.2","snapshot":false}},"host":{"architecture":
"x86_64","hostname":"host","ip":["127.0.0.1/8","10.0.0.1/24"],"mac":["00:00:5e:00:53:01"]},"os":{"family":"debian",
"kernel":"6.1.0","platform":"debian","version":"12 (bookworm)"}}"#;

/// An agent as it is after some days, ids as long as real ones and not in order.
fn record(n: usize) -> AgentRecord {
    let scattered = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let id = format!("{:08x}-{:04x}-4000-8000-{n:012x}", scattered >> 32, scattered & 0xffff);
    let at = |micros: i64| Timestamp::from_micros(1_790_000_000_000_000 + micros);
    let key = format!("{scattered:016x}{n:04x}");
    AgentRecord {
        credentials: LiveCredentials::one(LiveCredential {
            key_id: KeyId::trusted(&*key),
            kind: CredentialKind::AccessKey,
            hash: SecretHash::of(key.as_bytes()),
            issued_at: at(n as i64),
            certificate: None,
        }),
        enrollment_key_id: Some(EnrollmentKeyId::trusted("5f0f7f9e-0000-4000-8000-000000000001")),
        tags: vec!["production".into(), "linux".into()],
        hostname: format!("host-{n}.example.com"),
        last_checkin: Some(at(0)),
        status_since: at(0),
        status_deadline: Some(at(n as i64)),
        ..testing::online_agent(&id, Some("policy-1"), at(n as i64))
    }
}
