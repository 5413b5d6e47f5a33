//! What monitoring asks over the control socket: `GET /liveness` and `GET /stats` (AG §11.2).

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

use crate::components::{ComponentState, Health};
use crate::coordinator::report::{AgentState, Snapshot};

/// Time after which a loop that does not respond counts as hanging.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What makes `/liveness` fail, beside a loop that hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailOn {
    /// Nothing else.
    Heartbeat,
    /// A failed agent, component or unit.
    Failed,
    /// A degraded or failed one.
    Degraded,
}

impl FailOn {
    /// Reads the query of `/liveness`: `failon=heartbeat|failed|degraded`. Returns `None` for anything else.
    pub fn parse(query: &str) -> Option<Self> {
        match query {
            "" | "failon=heartbeat" => Some(Self::Heartbeat),
            "failon=failed" => Some(Self::Failed),
            "failon=degraded" => Some(Self::Degraded),
            _ => None,
        }
    }
}

/// Returns the status of `/liveness`. `status` responds with the state of the loop.
pub async fn liveness(status: impl Future<Output = Option<Snapshot>>, fail_on: FailOn) -> StatusCode {
    match tokio::time::timeout(HEARTBEAT, status).await {
        Ok(Some(snapshot)) if !fails(&snapshot, fail_on) => StatusCode::OK,
        Ok(Some(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        Ok(None) | Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn fails(snapshot: &Snapshot, fail_on: FailOn) -> bool {
    let states = || snapshot.components.iter().flat_map(states);
    let has_failed = || snapshot.state == AgentState::Failed || states().any(|state| state == Health::Failed);
    let is_degraded = || snapshot.state == AgentState::Degraded || states().any(|state| state == Health::Degraded);
    match fail_on {
        FailOn::Heartbeat => false,
        FailOn::Failed => has_failed(),
        FailOn::Degraded => has_failed() || is_degraded(),
    }
}

/// Returns the states of a component and its units.
fn states(component: &ComponentState) -> impl Iterator<Item = Health> {
    std::iter::once(component.state).chain(component.units.iter().map(|unit| unit.state))
}

/// Metrics of the agent itself, without its components, which are processes of their own.
#[derive(Debug, Serialize)]
pub struct Stats {
    version: String,
    pid: u32,
    started_at: String,
    /// Resident memory in bytes.
    memory_rss_bytes: Option<u64>,
    cpu_user_seconds: Option<f64>,
    cpu_system_seconds: Option<f64>,
    open_files: Option<usize>,
    queued_actions: usize,
    pending_acks: usize,
    /// Consecutive failed check-ins.
    check_in_failures: u32,
    /// Number of components in each state.
    components: BTreeMap<String, usize>,
}

/// Returns the metrics at this moment.
pub fn stats(snapshot: &Snapshot) -> Stats {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    let seconds = |time: TimeVal| {
        let whole = Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or_default());
        (whole + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())).as_secs_f64()
    };
    let mut components = BTreeMap::new();
    for component in &snapshot.components {
        *components.entry(component.state.as_str().to_owned()).or_default() += 1;
    }
    Stats {
        version: snapshot.version.clone(),
        pid: snapshot.pid,
        started_at: snapshot.started_at.clone(),
        memory_rss_bytes: resident(),
        cpu_user_seconds: usage.map(|usage| seconds(usage.user_time())),
        cpu_system_seconds: usage.map(|usage| seconds(usage.system_time())),
        open_files: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
        queued_actions: snapshot.queued_actions,
        pending_acks: snapshot.pending_acks,
        check_in_failures: snapshot.fleet.failures,
        components,
    }
}

fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::UnitState;
    use crate::coordinator::report::FleetStatus;

    fn snapshot(state: AgentState, unit: Health) -> Snapshot {
        let unit =
            UnitState { id: "u".into(), direction: "input".into(), state: unit, message: String::new(), payload: None };
        let component = ComponentState {
            id: "c".into(),
            kind: "process".into(),
            state: Health::Healthy,
            message: String::new(),
            units: vec![unit],
        };
        let fleet = FleetStatus {
            state,
            message: String::new(),
            last_check_in: None,
            failures: 2,
            servers: Vec::new(),
            poll_limit_seconds: None,
        };
        Snapshot {
            agent_id: "a".into(),
            version: "1".into(),
            pid: 1,
            started_at: String::new(),
            state,
            message: String::new(),
            fleet,
            policy: None,
            components: vec![component],
            blocked: Vec::new(),
            queued_actions: 0,
            pending_acks: 0,
            log_level: "info".into(),
            signing_key_pinned: false,
            upgrade: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ag149_liveness_is_that_of_the_loop_and_of_what_is_asked_for() {
        for (state, unit, [heartbeat, failed, degraded]) in [
            (AgentState::Healthy, Health::Healthy, [200, 200, 200]),
            (AgentState::Degraded, Health::Failed, [200, 500, 500]),
            (AgentState::Degraded, Health::Degraded, [200, 200, 500]),
            (AgentState::Failed, Health::Healthy, [200, 500, 500]),
        ] {
            for (query, wanted) in [("", heartbeat), ("failon=failed", failed), ("failon=degraded", degraded)] {
                let loop_status = async { Some(snapshot(state, unit)) };
                let status = liveness(loop_status, FailOn::parse(query).unwrap()).await;
                assert_eq!(status.as_u16(), wanted, "{state:?} {unit:?} {query}");
            }
        }
        assert_eq!(liveness(std::future::pending(), FailOn::Heartbeat).await, 503, "it hangs");
        assert_eq!(FailOn::parse("failon=never"), None);
    }

    #[test]
    fn stats_are_those_of_this_process() {
        let stats = stats(&snapshot(AgentState::Healthy, Health::Healthy));
        assert!(stats.memory_rss_bytes.unwrap() > 1 << 20 && stats.open_files.unwrap() > 0, "{stats:?}");
        assert_eq!((stats.check_in_failures, stats.components["HEALTHY"]), (2, 1));
    }
}
