//! Limits per operation (EA §1.12): a token bucket, a maximum of concurrent requests, and a maximum body size.
//!
//! Each listener has its own instance. Nothing is queued: a request over a limit gets a 429 immediately (EA15).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::error::ApiError;

/// An operation with limits of its own. [`Operation::key`] is its name in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `GET /api/status`
    Status,
    /// Enrollments.
    Enroll,
    /// Check-ins, parked ones included (EA16).
    CheckIn,
    /// Acks.
    Ack,
    /// Audit reports of agents that were uninstalled or unenrolled.
    AuditUnenroll,
    /// Artifacts of policies.
    Artifact,
    /// Starts of uploads.
    UploadStart,
    /// Upload chunks.
    UploadChunk,
    /// Completions of uploads.
    UploadEnd,
    /// Files for agents.
    FileDelivery,
    /// The PGP key of upgrades.
    PgpRetrieval,
}

impl Operation {
    /// All operations, sorted by discriminant, because arrays are indexed by it.
    pub const ALL: [Self; 11] = [
        Self::Status,
        Self::Enroll,
        Self::CheckIn,
        Self::Ack,
        Self::AuditUnenroll,
        Self::Artifact,
        Self::UploadStart,
        Self::UploadChunk,
        Self::UploadEnd,
        Self::FileDelivery,
        Self::PgpRetrieval,
    ];

    /// Returns whether the operation requires a valid key.
    pub const fn asks_for_key(self) -> bool {
        !matches!(self, Self::Status | Self::PgpRetrieval)
    }

    /// Returns the name under `limits.` in the configuration file.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Enroll => "enroll",
            Self::CheckIn => "checkin",
            Self::Ack => "ack",
            Self::AuditUnenroll => "audit_unenroll",
            Self::Artifact => "artifact",
            Self::UploadStart => "upload_start",
            Self::UploadChunk => "upload_chunk",
            Self::UploadEnd => "upload_end",
            Self::FileDelivery => "file_delivery",
            Self::PgpRetrieval => "pgp_retrieval",
        }
    }
}

/// The limits of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationLimit {
    /// Time in which one token is added; zero disables the rate limit.
    pub interval: Duration,
    /// Tokens in a full bucket.
    pub burst: u32,
    /// Maximum concurrent requests; 0 means no limit.
    pub max: usize,
    /// Maximum bytes of a request body, before decompression; 0 means the global limit.
    pub max_body: usize,
}

impl OperationLimit {
    const fn new(interval: Duration, burst: u32, max: usize, max_body: usize) -> Self {
        Self { interval, burst, max, max_body }
    }
}

/// Maximum bytes of any request body, regardless of the configuration.
const LONGEST_BODY: usize = 64 << 20;

/// The limits of a listener. The total of concurrent requests (EA17) is limited by the connection layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Indexed by operation.
    by_operation: [OperationLimit; Operation::ALL.len()],
    /// Maximum bytes of a check-in's body after decompression.
    pub max_decompressed: usize,
    /// Maximum time for an upload chunk's body; other bodies have less.
    pub read_timeout: Duration,
}

/// Maximum time for a body other than an upload chunk's.
const SMALL_BODY_TIMEOUT: Duration = Duration::from_secs(20);

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Default for Limits {
    /// The protocol's defaults (EA §1.12), scaled up to what this server can handle: 100,000 agents may reconnect within
    /// seconds, and the heartbeats that two cores can process stay far below the rate limit.
    fn default() -> Self {
        let micros = Duration::from_micros;
        // Check-ins have no maximum, because each connected agent holds one parked check-in all the time (EA16).
        let by_operation = Operation::ALL.map(|operation| match operation {
            Operation::Status => OperationLimit::new(micros(100), 5_000, 2_000, 0),
            // 512 KiB as in Elastic's server (EA §1.1). A fleet enrolls in bursts, so the bucket is deep.
            Operation::Enroll => OperationLimit::new(micros(100), 20_000, 5_000, 512 * KIB),
            // Agents before 9.x don't compress, and an agent with a thousand components sends more than 1 MiB.
            Operation::CheckIn => OperationLimit::new(micros(4), 250_000, 0, 8 * MIB),
            Operation::Ack => OperationLimit::new(micros(10), 100_000, 20_000, 2 * MIB),
            Operation::AuditUnenroll => OperationLimit::new(micros(500), 5_000, 2_000, KIB),
            Operation::Artifact => OperationLimit::new(micros(200), 2_000, 500, 0),
            Operation::UploadStart => OperationLimit::new(micros(10_000), 500, 200, 5 * MIB),
            Operation::UploadChunk => OperationLimit::new(micros(1_000), 500, 64, 4 * MIB),
            Operation::UploadEnd => OperationLimit::new(micros(10_000), 500, 200, KIB),
            Operation::FileDelivery => OperationLimit::new(micros(5_000), 500, 64, 0),
            Operation::PgpRetrieval => OperationLimit::new(micros(1_000), 500, 200, 0),
        });
        Self { by_operation, max_decompressed: 20 * MIB, read_timeout: Duration::from_secs(60) }
    }
}

impl Limits {
    /// Returns the maximum time for a body of `operation`. Only upload chunks are large enough to take long on a slow
    /// network. Elsewhere, a client that announces gigabytes and sends nothing must not hold a connection for long
    /// (D23).
    pub fn read_timeout(&self, operation: Operation) -> Duration {
        match operation {
            Operation::UploadChunk => self.read_timeout,
            _ => self.read_timeout.min(SMALL_BODY_TIMEOUT),
        }
    }

    /// Returns the limits of `operation`.
    pub fn of(&self, operation: Operation) -> &OperationLimit {
        &self.by_operation[operation as usize]
    }

    /// Returns the maximum length of a body of `operation`, bytes.
    pub fn body(&self, operation: Operation) -> usize {
        match self.of(operation).max_body {
            0 => LONGEST_BODY,
            bytes => bytes.min(LONGEST_BODY),
        }
    }

    /// Returns the limits of `operation`, mutable.
    pub fn of_mut(&mut self, operation: Operation) -> &mut OperationLimit {
        &mut self.by_operation[operation as usize]
    }
}

/// Enforces [`Limits`].
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    start: Instant,
    gauges: [Gauge; Operation::ALL.len()],
}

#[derive(Debug, Default)]
struct Gauge {
    running: AtomicUsize,
    /// Time at which the bucket is full again, in nanoseconds since the limiter's start. A single atomic number, so that
    /// taking a token needs no lock.
    full_at: AtomicU64,
}

impl Limiter {
    /// Creates a limiter with full buckets.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, start: Instant::now(), gauges: Default::default() })
    }

    /// Returns the limits that are enforced.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Admits a request of `operation` at the time `now`, or returns the 429.
    pub fn admit(self: &Arc<Self>, operation: Operation, now: Instant) -> Result<Permit, ApiError> {
        let (limit, gauge) = (self.limits.of(operation), &self.gauges[operation as usize]);
        // The rate is checked first: a request that is refused for concurrency has used a token too, so retries against
        // a full server are slowed down.
        gauge.take(limit, now.saturating_duration_since(self.start))?;
        if !raise(&gauge.running, limit.max) {
            return Err(ApiError::of("MaxLimit"));
        }
        Ok(Permit { limiter: Arc::clone(self), operation })
    }

    /// Returns the number of running requests of `operation`, including parked ones.
    pub fn running(&self, operation: Operation) -> usize {
        self.gauges[operation as usize].running.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// Takes a token. The bucket is represented by the time at which it is full; each token moves that time by one
    /// interval (the generic cell rate algorithm).
    fn take(&self, limit: &OperationLimit, since_start: Duration) -> Result<(), ApiError> {
        let interval = nanos(limit.interval);
        if interval == 0 {
            return Ok(());
        }
        let now = nanos(since_start);
        // A burst of 0 with an interval would refuse everything, so it counts as 1.
        let depth = interval.saturating_mul(u64::from(limit.burst.max(1)));
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            // `max`: a bucket that has been full for long holds no more than its depth.
            let after = full_at.max(now).saturating_add(interval);
            // `after` is never below `now`, so the subtraction cannot underflow.
            (after - now <= depth).then_some(after)
        });
        taken.map(|_| ()).map_err(|full_at| {
            // The seconds until one token is back, rounded up: a client that retries earlier would be refused again.
            let wait = full_at.saturating_add(interval).saturating_sub(now.saturating_add(depth));
            let seconds = Duration::from_nanos(wait).as_secs().saturating_add(1);
            ApiError::of("RateLimit").retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Adds one unless the counter has reached `max`; 0 means no maximum.
fn raise(counter: &AtomicUsize, max: usize) -> bool {
    // Added first and taken back: with a check before the addition, concurrent requests could exceed the maximum.
    let before = counter.fetch_add(1, Ordering::Relaxed);
    let fits = max == 0 || before < max;
    if !fits {
        counter.fetch_sub(1, Ordering::Relaxed);
    }
    fits
}

/// A slot in the limits, released on drop. A parked check-in keeps its slot.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<Limiter>,
    operation: Operation,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.gauges[self.operation as usize].running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d23_only_upload_chunks_get_the_configured_read_timeout() {
        let limits = Limits::default();
        assert_eq!(limits.read_timeout(Operation::UploadChunk), Duration::from_secs(60));
        for operation in [Operation::CheckIn, Operation::Ack, Operation::Enroll, Operation::UploadStart] {
            assert!(limits.read_timeout(operation) < Duration::from_secs(35), "{operation:?}");
        }
    }

    fn limiter(interval: Duration, burst: u32, max: usize) -> Arc<Limiter> {
        let mut limits = Limits::default();
        *limits.of_mut(Operation::Ack) = OperationLimit::new(interval, burst, max, 0);
        Limiter::new(limits)
    }

    fn ask(limiter: &Arc<Limiter>, now: Instant) -> Result<Permit, String> {
        limiter.admit(Operation::Ack, now).map_err(|error| error.code().to_owned())
    }

    #[test]
    fn ea15_a_bucket_empties_and_fills_again() {
        let limiter = limiter(Duration::from_secs(1), 2, 0);
        let start = limiter.start;
        assert!(ask(&limiter, start).is_ok());
        assert!(ask(&limiter, start).is_ok());
        assert_eq!(ask(&limiter, start).unwrap_err(), "RateLimit");
        assert_eq!(ask(&limiter, start + Duration::from_millis(999)).unwrap_err(), "RateLimit");
        assert!(ask(&limiter, start + Duration::from_secs(1)).is_ok());
        assert_eq!(ask(&limiter, start + Duration::from_secs(1)).unwrap_err(), "RateLimit");
        let later = start + Duration::from_secs(100);
        assert!(ask(&limiter, later).is_ok() && ask(&limiter, later).is_ok() && ask(&limiter, later).is_err());
    }

    #[test]
    fn ea15_concurrency_is_limited_until_a_permit_is_dropped() {
        let limiter = limiter(Duration::ZERO, 0, 1);
        let now = Instant::now();
        let first = ask(&limiter, now).unwrap();
        assert_eq!(ask(&limiter, now).unwrap_err(), "MaxLimit");
        drop(first);
        assert!(ask(&limiter, now).is_ok());
        assert_eq!(limiter.running(Operation::Ack), 0);
    }

    #[test]
    fn the_defaults_admit_100_000_agents_that_reconnect_at_once() {
        let limits = Limits::default();
        let rate = |operation| 1.0 / limits.of(operation).interval.as_secs_f64();
        assert_eq!(limits.of(Operation::CheckIn).max, 0);
        assert!(limits.of(Operation::CheckIn).burst >= 100_000 && rate(Operation::CheckIn) >= 120_000.0);
        assert!(rate(Operation::Enroll) >= 4_000.0 && rate(Operation::Ack) >= 60_000.0);
    }

    #[test]
    fn the_list_of_operations_is_sorted_by_discriminant() {
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place, "{}", operation.key());
        }
    }
}
