//! Limits per operation (EA §1.12): a token bucket, a cap on requests at the same time, and a cap on bodies.
//!
//! One layer, one instance a listener. Nothing ever queues: what is over a limit is answered 429 at once (EA15).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::error::ApiError;

/// What is limited. The words of the configuration file are in [`Operation::key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `GET /api/status`
    Status,
    /// Enrolments.
    Enroll,
    /// Check-ins, parked ones included (EA16).
    CheckIn,
    /// Acks.
    Ack,
    /// Audit reports of agents that leave.
    AuditUnenroll,
    /// Artifacts of policies.
    Artifact,
    /// Beginnings of uploads.
    UploadStart,
    /// Chunks of uploads.
    UploadChunk,
    /// Ends of uploads.
    UploadEnd,
    /// Files for agents.
    FileDelivery,
    /// The PGP key.
    PgpRetrieval,
}

impl Operation {
    /// Every operation, in the order of their discriminants.
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

    /// Whether its requests are refused without a valid key.
    pub const fn asks_for_key(self) -> bool {
        !matches!(self, Self::Status | Self::PgpRetrieval)
    }

    /// The name under `limits.` in the configuration file.
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
    /// One token comes back in this time; zero: no bucket.
    pub interval: Duration,
    /// Tokens in a full bucket.
    pub burst: u32,
    /// Requests at the same time; 0: any number.
    pub max: usize,
    /// Bytes of a request's body, as they come over the wire; 0: only the bound that every body has.
    pub max_body: usize,
}

impl OperationLimit {
    const fn new(interval: Duration, burst: u32, max: usize, max_body: usize) -> Self {
        Self { interval, burst, max, max_body }
    }
}

/// No body is longer, whatever the configuration says.
const LONGEST_BODY: usize = 64 << 20;

/// The limits of a listener. The number of all requests at the same time (EA17) is bounded by the connection layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// By operation.
    by_operation: [OperationLimit; Operation::ALL.len()],
    /// Bytes of a check-in's body after decompression.
    pub max_decompressed: usize,
    /// Time in which a body must have come.
    pub read_timeout: Duration,
}

/// Time in which a body other than an upload's chunk must have come.
const SMALL_BODY_TIMEOUT: Duration = Duration::from_secs(20);

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Default for Limits {
    /// The protocol's defaults (EA §1.12), scaled up to what this server can do: 100,000 agents that come back within
    /// seconds are let in, and two cores' worth of heartbeats are far below the bucket.
    fn default() -> Self {
        let micros = Duration::from_micros;
        let by_operation = Operation::ALL.map(|operation| match operation {
            Operation::Status => OperationLimit::new(micros(100), 5_000, 2_000, 0),
            Operation::Enroll => OperationLimit::new(micros(100), 20_000, 5_000, 512 * KIB),
            // Agents before 9.x send plain bodies, and one with a thousand components sends more than a megabyte.
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
    /// Time in which a body of `operation` must have come. Only a chunk of an upload is large enough to take long on
    /// a slow line; whoever states gigabytes elsewhere and sends nothing does not hold a connection (D23).
    pub fn read_timeout(&self, operation: Operation) -> Duration {
        match operation {
            Operation::UploadChunk => self.read_timeout,
            _ => self.read_timeout.min(SMALL_BODY_TIMEOUT),
        }
    }

    /// The limits of `operation`.
    pub fn of(&self, operation: Operation) -> &OperationLimit {
        &self.by_operation[operation as usize]
    }

    /// Bytes of a body of `operation`.
    pub fn body(&self, operation: Operation) -> usize {
        match self.of(operation).max_body {
            0 => LONGEST_BODY,
            bytes => bytes.min(LONGEST_BODY),
        }
    }

    /// The limits of `operation`, to change them.
    pub fn of_mut(&mut self, operation: Operation) -> &mut OperationLimit {
        &mut self.by_operation[operation as usize]
    }
}

/// Counts requests against [`Limits`].
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    start: Instant,
    gauges: [Gauge; Operation::ALL.len()],
}

#[derive(Debug, Default)]
struct Gauge {
    running: AtomicUsize,
    /// The time, in nanoseconds since the limiter's start, at which the bucket is full again.
    full_at: AtomicU64,
}

impl Limiter {
    /// A limiter with full buckets.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, start: Instant::now(), gauges: Default::default() })
    }

    /// The limits it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// One more request of `operation`, at the time `now`.
    pub fn admit(self: &Arc<Self>, operation: Operation, now: Instant) -> Result<Permit, ApiError> {
        let (limit, gauge) = (self.limits.of(operation), &self.gauges[operation as usize]);
        // The rate comes first: a request that is refused by the cap has cost its token as well, so that hammering on a
        // full server is slowed down too.
        gauge.take(limit, now.saturating_duration_since(self.start))?;
        if !raise(&gauge.running, limit.max) {
            return Err(ApiError::of("MaxLimit"));
        }
        Ok(Permit { limiter: Arc::clone(self), operation })
    }

    /// Requests of `operation` being handled now, parked ones included.
    pub fn running(&self, operation: Operation) -> usize {
        self.gauges[operation as usize].running.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// Takes a token: the bucket is a point in time that each token moves on by an interval.
    fn take(&self, limit: &OperationLimit, since_start: Duration) -> Result<(), ApiError> {
        let interval = nanos(limit.interval);
        if interval == 0 {
            return Ok(());
        }
        let now = nanos(since_start);
        let depth = interval.saturating_mul(u64::from(limit.burst.max(1)));
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            // A bucket that was full long ago saves up no more than its depth.
            let after = full_at.max(now).saturating_add(interval);
            (after - now <= depth).then_some(after)
        });
        taken.map(|_| ()).map_err(|full_at| {
            let wait = full_at.saturating_add(interval).saturating_sub(now.saturating_add(depth));
            let seconds = Duration::from_nanos(wait).as_secs().saturating_add(1);
            ApiError::of("RateLimit").retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Adds one unless `max` are there; 0: no maximum.
fn raise(counter: &AtomicUsize, max: usize) -> bool {
    // Added first and taken back: between a look and an addition others could slip in beyond the maximum.
    let before = counter.fetch_add(1, Ordering::Relaxed);
    let fits = max == 0 || before < max;
    if !fits {
        counter.fetch_sub(1, Ordering::Relaxed);
    }
    fits
}

/// A slot in the limits; freed when dropped. A parked check-in keeps its own.
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
    fn d23_only_chunks_of_uploads_may_take_as_long_as_configured() {
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
    fn ea15_the_cap_holds_until_a_permit_is_dropped() {
        let limiter = limiter(Duration::ZERO, 0, 1);
        let now = Instant::now();
        let first = ask(&limiter, now).unwrap();
        assert_eq!(ask(&limiter, now).unwrap_err(), "MaxLimit");
        drop(first);
        assert!(ask(&limiter, now).is_ok());
        assert_eq!(limiter.running(Operation::Ack), 0);
    }

    #[test]
    fn the_defaults_let_a_large_fleet_come_back() {
        let limits = Limits::default();
        let rate = |operation| 1.0 / limits.of(operation).interval.as_secs_f64();
        assert_eq!(limits.of(Operation::CheckIn).max, 0);
        assert!(limits.of(Operation::CheckIn).burst >= 100_000 && rate(Operation::CheckIn) >= 120_000.0);
        assert!(rate(Operation::Enroll) >= 4_000.0 && rate(Operation::Ack) >= 60_000.0);
    }

    #[test]
    fn operations_are_told_apart_by_their_place() {
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place, "{}", operation.key());
        }
    }
}
